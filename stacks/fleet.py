"""The pools' machines and what scales them."""

from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.config import DeploymentConfig
from cdk.network import Network
from cdk.system import System


class FleetStack(BaseStack):
    """The pools' machines and what scales them."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        network: Network,
        system: System,
    ) -> None:
        super().__init__(scope, construct_id, config=config, contains="the machines")
