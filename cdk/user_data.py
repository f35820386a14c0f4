"""What a Windows machine of a fleet runs at each boot: PowerShell, from its parts in cdk/user_data/.

    values of this deployment, made here   $Name = 'value'
    install_agent.ps1                      functions that image builds use, too
    windows.ps1                            the boot itself

Values are single-quoted, so that PowerShell expands nothing in them, and plain ASCII: Windows PowerShell
reads a script without byte order mark in the machine's code page, and takes typographic quotes for quotes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from aws_cdk.aws_ec2 import UserData

from cdk.agent_bundle import AgentBundle
from cdk.config import ConfigError, DeploymentConfig, PoolConfig
from scanfleet.contract import (
    AGENT_SERVICE,
    AGENT_STATUS_PORT,
    LAUNCH_HOOK,
    METRIC_FACTS,
    TERMINATE_HOOK,
    Component,
    Dimension,
    Metric,
    Pool,
    WindowsPath,
    fleet_name,
    metric_namespace,
)

PARTS = Path(__file__).resolve().parent / "user_data"
INSTALL_AGENT = PARTS / "install_agent.ps1"
BOOT = PARTS / "windows.ps1"
STRICT = (
    "$ErrorActionPreference = 'Stop'",
    "Set-StrictMode -Version 3.0",
    "$ProgressPreference = 'SilentlyContinue'",
)
"""How each of our scripts begins: errors end it, misspelt variables are errors, no progress bars in logs."""
METADATA_URL = "http://169.254.169.254"
PATIENCE = {"AWS_METADATA_SERVICE_TIMEOUT": "5", "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5"}
"""How boto3 asks for the role's credentials: by default once, for a second, and a machine that boots is busy.
Without an answer the agent would have none, and the machine would be given up. Source: boto3 guide,
"Configuration": environment variables."""
LIMIT_BYTES = 16 * 1024
"""EC2's limit, before Base64. Source: EC2 user guide, "Run commands when you launch an EC2 instance with user
data input"."""


def windows_user_data(
    *,
    config: DeploymentConfig,
    pool: Pool,
    pool_config: PoolConfig,
    bundle: AgentBundle,
    environment: Mapping[str, str],
) -> UserData:
    """Return the script that takes a machine from Windows' first boot to an agent in service.

    `environment` is what the agent finds in its environment (`System.environment` and what the pool adds);
    values may hold tokens. docs/boot.md tells the steps. Raises ConfigError for what a script cannot hold.
    """
    values = _values(config, pool, bundle)
    settings = {"AWS_DEFAULT_REGION": config.region, **PATIENCE, **environment}
    lines = [
        "<powershell>",
        *STRICT,
        *(f"${name} = {quoted(name, value)}" for name, value in values.items()),
        f"$ScratchVolume = {'$true' if pool_config.scratch_volume_gib else '$false'}",
        "$Environment = @'",
        *(f"{name}={plain(name, value)}" for name, value in settings.items()),
        "'@",
        *code_lines(INSTALL_AGENT),
        *code_lines(BOOT),
        "</powershell>",
        "<persist>true</persist>",  # at each boot: scratch is formatted anew, warm instances start again
        "",
    ]
    return UserData.custom("\n".join(lines))


def _values(config: DeploymentConfig, pool: Pool, bundle: AgentBundle) -> dict[str, str]:
    values: dict[str, str] = {
        "Region": config.region,
        "Fleet": fleet_name(config.stage, pool),
        "LaunchHook": LAUNCH_HOOK,
        "TerminateHook": TERMINATE_HOOK,
        "BootFailed": _boot_failed_line(config, pool),
        "MetadataUrl": METADATA_URL,
        "ServiceName": AGENT_SERVICE,
        "StatusPort": str(AGENT_STATUS_PORT),
        "Python": WindowsPath.PYTHON + r"\python.exe",
        "Mark": WindowsPath.BUNDLE_MARK,
        "State": WindowsPath.STATE,
        "Downloads": WindowsPath.STATE + r"\downloads",
        "Logs": WindowsPath.LOGS,
        "EnvironmentFile": WindowsPath.ENVIRONMENT_FILE,
    }
    for name, part in (("Wheelhouse", bundle.wheelhouse), ("Source", bundle.source)):
        values[f"{name}Bucket"] = part.bucket_name
        values[f"{name}Key"] = part.object_key
        values[f"{name}Name"] = part.file_name
        values[f"{name}Sha256"] = part.sha256
    return values


def _boot_failed_line(config: DeploymentConfig, pool: Pool) -> str:
    """Return the log line that carries the metric BootFailed; the script puts the time in.

    Source: CloudWatch user guide, "Specification: Embedded metric format".
    """
    unit, dimensions = METRIC_FACTS[Metric.BOOT_FAILED]
    directive = {
        "Namespace": metric_namespace(config.stage),
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": Metric.BOOT_FAILED, "Unit": unit}],
    }
    line = {
        "level": "ERROR",
        "component": Component.USERDATA,
        "action": "boot_failed",
        "_aws": {"Timestamp": "@milliseconds@", "CloudWatchMetrics": [directive]},
        Dimension.POOL: pool,
        Metric.BOOT_FAILED: 1,
    }
    return json.dumps(line, separators=(",", ":"))


def code_lines(script: Path) -> Iterator[str]:
    """Return a script's lines without comments and blank lines: user-data has 16 KB, comments stay here.

    The scripts have no text of several lines, in which a line that begins with # would be no comment.
    """
    for line in script.read_text(encoding="ascii").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line


def quoted(name: str, value: str) -> str:
    """Return a value as PowerShell's literal text. Example: it's -> 'it''s'."""
    return "'" + plain(name, value).replace("'", "''") + "'"


def plain(name: str, value: str) -> str:
    """Return a value that stays what it is inside of a script. Raises ConfigError for all others."""
    if not (value.isascii() and value.isprintable()):
        raise ConfigError(field_name=name, got=value, allowed="printable ASCII, for machines on Windows")
    return value
