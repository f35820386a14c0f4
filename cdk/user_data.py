"""What a Windows machine of a fleet runs at each boot: PowerShell, from its parts in cdk/user_data/."""

from collections.abc import Mapping

from aws_cdk.aws_ec2 import UserData

from cdk.agent_bundle import AgentBundle
from cdk.config import DeploymentConfig, PoolConfig
from scanfleet.contract import Pool


def windows_user_data(
    *,
    config: DeploymentConfig,
    pool: Pool,
    pool_config: PoolConfig,
    bundle: AgentBundle,
    environment: Mapping[str, str],
) -> UserData:
    """Return the script that takes a machine from Windows' first boot to an agent in service.

    `environment` is what the agent finds in its environment (`System.environment` and what the pool adds); values
    may hold tokens. docs/boot.md tells the steps.
    """
    return UserData.custom("<powershell>throw 'the boot script is not written yet'</powershell>")
