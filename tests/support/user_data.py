"""User-data of a launch template: as text, its parts, and what is wrong with it."""

import re
from collections.abc import Mapping
from typing import Any

from cdk.user_data import LIMIT_BYTES
from scanfleet.contract import Env
from tests.support.powershell import commands, findings, functions, variables
from tests.support.template import StackTemplate

LONG = "x" * 60
"""For what only a deployment knows: names of tables, buckets and queues are about this long."""
MARGIN_BYTES = 2048
AUTOMATIC = {"_", "true", "false", "null", "lastexitcode", "erroractionpreference", "progresspreference"}
"""Source: PowerShell reference, about_Automatic_Variables, about_Preference_Variables."""
CMDLETS = {
    *("Add-Type", "ConvertTo-Json", "ForEach-Object", "Get-Content", "Get-FileHash", "Get-Service"),
    *("Invoke-RestMethod", "Join-Path", "New-Item", "New-Object", "Out-Null", "Remove-Item", "Select-Object"),
    *("Set-StrictMode", "Sort-Object", "Start-Service", "Start-Sleep", "Test-Path", "Where-Object"),
    *(
        "Write-Warning",
        "Clear-Disk",
        "Format-Volume",
        "Get-Disk",
        "Initialize-Disk",
        "New-Partition",
        "Set-Disk",
    ),
    *("Get-NetFirewallRule", "New-NetFirewallRule"),
}
"""Windows PowerShell 5.1's own, storage module included. A name that is not here was misspelt, or is new."""
AWS_CMDLETS = {
    "Read-S3Object": "s3:GetObject",
    "Complete-ASLifecycleAction": "autoscaling:CompleteLifecycleAction",
    "Set-ASInstanceHealth": "autoscaling:SetInstanceHealth",
}
"""AWS Tools for Windows PowerShell, which AWS's Windows images have; the action that each calls.
Source: AWS Tools for PowerShell cmdlet reference."""


def text_of(value: Any) -> str:
    """A text of the template, with long names for what only a deployment knows."""
    if isinstance(value, str):
        return value
    ((kind, inner),) = value.items()
    if kind == "Fn::Join":
        return str(inner[0]).join(map(text_of, inner[1]))
    return text_of(inner) if kind == "Fn::Base64" else LONG


def user_data(template: StackTemplate) -> str:
    """The one launch template's user-data, as text."""
    (found,) = template.all("AWS::EC2::LaunchTemplate")
    return text_of(found.properties["LaunchTemplateData"]["UserData"])


def script(text: str) -> str:
    """What PowerShell gets: the part between the tags."""
    found = re.fullmatch(r"<powershell>\n(.*)</powershell>\n<persist>true</persist>\n", text, re.DOTALL)
    assert found, "EC2Launch runs what is between these tags, and with persist at each boot"
    return found[1]


def environment(text: str) -> Mapping[str, str]:
    """The agent's environment, as far as it is known before the boot."""
    block = re.search(r"^\$Environment = @'\n(.*?)\n'@$", text, re.DOTALL | re.MULTILINE)
    assert block
    return dict(line.split("=", 1) for line in block[1].splitlines())


def assigned(text: str, name: str) -> str:
    """The value that a script's variable begins with."""
    found = re.search(rf"^\${name} = '(.*)'$", text, re.MULTILINE)
    assert found, name
    return found[1].replace("''", "'")


def faults(text: str) -> list[str]:
    """Return what is wrong with user-data, by which check; nothing for a good one."""
    if len(text.encode()) > LIMIT_BYTES - MARGIN_BYTES:
        return [f"size: {len(text.encode())} bytes"]
    try:
        code = script(text)
    except AssertionError as error:
        return [f"tags: {error}"]
    found = [f"powershell: {finding}" for finding in findings(code)]
    given, read = variables(code)
    called, defined = set(commands(code)), functions(code)
    found += [f"variable: ${name} is never set" for name in sorted(read - given - AUTOMATIC)]
    found += [f"variable: ${name} is never read" for name in sorted(_values(code) - read)]
    found += [
        f"command: there is no {name}" for name in sorted(called - defined - CMDLETS - AWS_CMDLETS.keys())
    ]
    found += [f"command: {name} is never called" for name in sorted(defined - called)]
    found += [f"value: {name} is not the contract's" for name in sorted(_settings(code) - set(Env))]
    found += [f"order: {problem}" for problem in _order(code)]
    return found


def _values(code: str) -> set[str]:
    """The values that the deployment hands to the script, lower case."""
    return {name.lower() for name in re.findall(r"^\$(\w+) = '", code, re.MULTILINE)} - AUTOMATIC


def _settings(code: str) -> set[str]:
    return set(re.findall(r"(SCANFLEET_[A-Z_]+)=", code))


def _order(code: str) -> list[str]:
    """What a machine's boot would do too early, or not at all."""
    main = code[code.find("\ntry {") :]
    marks = ["Write-Log", "'AmazonCloudWatchAgent'", "latest/api/token", "Initialize-Scratch", "Update-Agent"]
    marks += [
        "$EnvironmentFile",
        "New-NetFirewallRule",
        "scanfleet.agent.boot",
        "} catch {",
        "Stop-Boot",
        "exit 1",
    ]
    places = [main.find(mark) for mark in marks]
    missing = [f"{mark} is missing" for mark, place in zip(marks, places, strict=True) if place < 0]
    return missing or ([] if places == sorted(places) else [f"{marks} come otherwise"])
