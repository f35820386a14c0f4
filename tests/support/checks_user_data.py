"""Checks of the script that a machine runs at each boot."""

import json
import re
from collections.abc import Iterator

from cdk.user_data import LIMIT_BYTES
from scanfleet import contract
from scanfleet.contract import WindowsPath
from tests.support import powershell
from tests.support.deployment import Deployment
from tests.support.findings import Finding

FRAME = re.compile(r"<powershell>\n(?P<script>.*)</powershell>\n<persist>true</persist>\n", re.DOTALL)
VALUE = re.compile(r"^\$(?P<name>\w+) = '(?P<value>[^']*)'$", re.MULTILINE)
AUTOMATIC = {
    "_",
    "true",
    "false",
    "null",
    "lastexitcode",
    "erroractionpreference",
    "progresspreference",
    "args",
}
"""Source: PowerShell's help, about_Automatic_Variables, about_Preference_Variables."""
RESERVE_BYTES = 1024
"""References are sample values here, and longer on AWS."""
GIVING_UP = (
    ("Write-Log", "nobody is told why"),
    ("Set-ASInstanceHealth", "the group keeps a machine without agent"),
    ("Complete-ASLifecycleAction", "the group waits for the launch hook's end"),
)
"""Commands of Stop-Boot, and what happens without each."""


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="user-data", rule=rule, where=where, detail=detail)


def user_data(deployment: Deployment) -> Iterator[Finding]:
    """Boot scripts parse, stop on errors, look at exit codes, know every variable, and fit into 16 KB."""
    for name, text in deployment.user_data.items():
        where = f"user-data/{name}"
        if len(text.encode()) > LIMIT_BYTES - RESERVE_BYTES:
            yield _found("SIZE", where, f"{len(text.encode())} bytes of {LIMIT_BYTES}")
        frame = FRAME.fullmatch(text)
        if frame is None:
            yield _found("FRAME", where, "no <powershell> that runs at each boot")
            continue
        for sentence in powershell.findings(frame["script"]):
            yield _found("POWERSHELL", where, sentence)
        assigned, read = powershell.variables(frame["script"])
        for variable in sorted(read - assigned - AUTOMATIC):
            yield _found("VARIABLE", where, f"${variable} is set nowhere")


def boot_steps(deployment: Deployment) -> Iterator[Finding]:
    """Boots use the contract's names, install what was hashed, and mark the machine when they fail."""
    wanted = _names(deployment)
    for name, text in deployment.user_data.items():
        where = f"user-data/{name}"
        values = {found["name"]: found["value"] for found in VALUE.finditer(text)}
        for variable, value in wanted.items():
            if values.get(variable) != value:
                yield _found("NAME", where, f"${variable} is {values.get(variable)}, not {value}")
        for variable in (v for v in values if v.endswith("Sha256")):
            if not re.fullmatch(r"[0-9a-f]{64}", values[variable]):
                yield _found("DIGEST", where, f"${variable} {values[variable]}")
        yield from _metric(deployment, where, values.get("BootFailed", ""))
        for function in ("Install-Wheelhouse", "Install-Source"):
            if not _body(text, function) or powershell.commands(_body(text, function))[:1] != [
                "Assert-Sha256"
            ]:
                yield _found("UNCHECKED", where, f"{function} does not look at the SHA-256 first")
        for command, otherwise in GIVING_UP:
            if command not in powershell.commands(_body(text, "Stop-Boot")):
                yield _found("GIVING_UP", where, f"no {command}: {otherwise}")
        if "'Unhealthy'" not in _body(text, "Stop-Boot") or not re.search(r"catch \{\n\s+Stop-Boot ", text):
            yield _found("GIVING_UP", where, "a failed boot leaves the machine healthy")
        if "New-NetFirewallRule" not in powershell.commands(text):
            yield _found("FIREWALL", where, "Windows refuses the load balancer's checks")
        if "'userdata.jsonl'" not in text:
            yield _found("LOG_FILE", where, "nothing ships another file than userdata.jsonl")


def _metric(deployment: Deployment, where: str, line: str) -> Iterator[Finding]:
    """Yield what is wrong with the log line that counts a failed boot."""
    metric = contract.Metric.BOOT_FAILED
    unit, dimensions = contract.METRIC_FACTS[metric]
    wanted = {
        "Namespace": contract.metric_namespace(deployment.config.stage),
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": metric, "Unit": unit}],
    }
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        yield _found("METRIC", where, f"not JSON: {line}")
        return
    if said["_aws"]["CloudWatchMetrics"] != [wanted] or not {metric, *dimensions} <= said.keys():
        yield _found("METRIC", where, line)


def _names(deployment: Deployment) -> dict[str, str]:
    stage, region = deployment.config.stage, deployment.config.region
    return {
        "Region": region,
        "Fleet": contract.fleet_name(stage, contract.Pool.WINDOWS_GPU),
        "LaunchHook": contract.LAUNCH_HOOK,
        "TerminateHook": contract.TERMINATE_HOOK,
        "ServiceName": contract.AGENT_SERVICE,
        "StatusPort": str(contract.AGENT_STATUS_PORT),
        "Logs": WindowsPath.LOGS,
        "EnvironmentFile": WindowsPath.ENVIRONMENT_FILE,
        "Mark": WindowsPath.BUNDLE_MARK,
    }


def _body(script: str, function: str) -> str:
    """Return a function's text: to the next line that closes at its left edge."""
    found = re.search(rf"^function {function} \{{\n(.*?)^\}}$", script, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""
