"""The script that each Windows machine runs at boot, as the launch templates carry it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

from cdk.config import ConfigError
from cdk.user_data import BOOT, INSTALL_AGENT, LIMIT_BYTES, code_lines, plain, quoted
from scanfleet.contract import (
    AGENT_SERVICE,
    LAUNCH_HOOK,
    METRIC_FACTS,
    Env,
    Metric,
    WindowsPath,
    fleet_name,
    metric_namespace,
)
from tests.support.powershell import commands, findings, functions, variables

LONG = "x" * 60
"""For what only a deployment knows: names of tables, buckets and queues are about this long."""
MARGIN_BYTES = 2048
STAGES = ("dev", "prod", "local")
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "scratch volume": {"pools": {"windows-gpu": {"scratch_volume_gib": 500}}},
    "warm pool": {"pools": {"windows-gpu": {"warm_instances": 1}}},
    "many prefixes": {
        "allowed_prefixes": [f"s3://some-bucket-of-ours-{n}/with/a/folder/" for n in range(20)]
    },
}
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


def user_data(template: Any) -> str:
    (found,) = template.all("AWS::EC2::LaunchTemplate")
    return text_of(found.properties["LaunchTemplateData"]["UserData"])


def script(text: str) -> str:
    """What PowerShell gets: the part between the tags."""
    found = re.fullmatch(r"<powershell>\n(.*)</powershell>\n<persist>true</persist>\n", text, re.DOTALL)
    assert found, "EC2Launch runs what is between these tags, and with persist at each boot"
    return found[1]


def environment(text: str) -> Mapping[str, str]:
    block = re.search(r"^\$Environment = @'\n(.*?)\n'@$", text, re.DOTALL | re.MULTILINE)
    assert block
    return dict(line.split("=", 1) for line in block[1].splitlines())


def assigned(text: str, name: str) -> str:
    found = re.search(rf"^\${name} = '(.*)'$", text, re.MULTILINE)
    assert found, name
    return found[1].replace("''", "'")


@pytest.fixture(params=[(stage, name) for stage in STAGES[:2] for name in SETTINGS], ids=" ".join)
def variant(request, stack) -> str:
    """The user-data of each stage with each kind of settings."""
    stage, name = request.param
    return user_data(stack(stage, "fleet", **SETTINGS[name]))


@pytest.fixture
def dev_script(stack) -> str:
    return script(user_data(stack("dev", "fleet")))


# --- Every variant -----------------------------------------------------------------------------------------


def test_it_has_no_faults(variant):
    assert findings(script(variant)) == []


def test_it_fits_with_a_margin(variant):
    assert len(variant.encode()) <= LIMIT_BYTES - MARGIN_BYTES


def test_it_is_plain_ascii(variant):
    assert variant.isascii()


def test_every_variable_and_every_command_exists(variant):
    given, read = variables(script(variant))

    assert read - given - AUTOMATIC == set()
    assert set(commands(script(variant))) - functions(variant) - CMDLETS - AWS_CMDLETS.keys() == set()
    assert given >= {name.lower() for name in re.findall(r"^\$(\w+) = ", variant, re.MULTILINE)}


def test_every_function_is_called(variant):
    assert functions(variant) <= set(commands(script(variant)))


# --- What it says ------------------------------------------------------------------------------------------


def test_errors_end_it_and_misspelt_names_are_errors(dev_script):
    assert dev_script.splitlines()[:2] == ["$ErrorActionPreference = 'Stop'", "Set-StrictMode -Version 3.0"]


def test_it_names_what_the_rest_of_the_deployment_names(dev_script):
    assert assigned(dev_script, "Fleet") == fleet_name("dev", "windows-gpu")
    assert assigned(dev_script, "LaunchHook") == LAUNCH_HOOK
    assert assigned(dev_script, "ServiceName") == AGENT_SERVICE
    assert assigned(dev_script, "Mark") == WindowsPath.BUNDLE_MARK
    assert assigned(dev_script, "Logs") == WindowsPath.LOGS


def test_the_bundle_is_named_by_its_content(dev_script, stack):
    for part in ("Source", "Wheelhouse"):
        assert re.fullmatch(r"[0-9a-f]{64}", assigned(dev_script, f"{part}Sha256"))
        assert re.fullmatch(r"[0-9a-f]{64}\.(whl|zip)", assigned(dev_script, f"{part}Key"))
    assert re.fullmatch(r"scanfleet-[0-9.]+-py3-none-any\.whl", assigned(dev_script, "SourceName"))


def test_the_agent_finds_its_system_in_the_environment(dev_script):
    found = environment(dev_script)

    needed = {
        Env.STAGE,
        Env.JOB_TABLE,
        Env.ARTIFACTS_BUCKET,
        Env.ALLOWED_PREFIXES,
        Env.QUEUES,
        Env.POOL,
        Env.FLEET,
    }
    assert needed <= found.keys()
    assert found[Env.FLEET] == assigned(dev_script, "Fleet")
    assert json.loads(found[Env.QUEUES]).keys() == {"windows-gpu"}
    assert found["AWS_DEFAULT_REGION"] == assigned(dev_script, "Region")


def test_settings_that_it_adds_are_the_contract_s(dev_script):
    added = set(re.findall(r"(SCANFLEET_[A-Z_]+)=", "\n".join(code_lines(BOOT))))

    assert added == {Env.SCRATCH, Env.LOG_FOLDER, Env.STATUS_HOST, Env.MEDIT_RELEASE_FOLDER}
    assert added.isdisjoint(environment(dev_script))


def test_a_failed_boot_is_a_metric_that_alarms_find(dev_script):
    line = json.loads(assigned(dev_script, "BootFailed").replace('"@milliseconds@"', "1800000000000"))

    (directive,) = line["_aws"]["CloudWatchMetrics"]
    unit, dimensions = METRIC_FACTS[Metric.BOOT_FAILED]
    assert directive == {
        "Namespace": metric_namespace("dev"),
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": Metric.BOOT_FAILED, "Unit": unit}],
    }
    assert (line["_aws"]["Timestamp"], line["Pool"], line[Metric.BOOT_FAILED]) == (
        1_800_000_000_000,
        "windows-gpu",
        1,
    )


@pytest.mark.parametrize(("name", "is_volume"), [("as it is", "$false"), ("scratch volume", "$true")])
def test_workspaces_are_on_the_disk_that_was_configured(stack, name, is_volume):
    text = user_data(stack("dev", "fleet", **SETTINGS[name]))

    assert f"$ScratchVolume = {is_volume}\n" in text


def test_it_holds_no_secret(variant):
    assert not re.search(r"password|secret|AKIA|token *=[^=]*['\"][A-Za-z0-9]{16}", variant, re.IGNORECASE)


def test_the_machine_s_role_may_do_what_the_script_calls(stack):
    template = stack("dev", "fleet")
    statements = [
        statement
        for policy in template.all("AWS::IAM::Policy")
        for statement in policy.properties["PolicyDocument"]["Statement"]
    ]
    allowed = {
        a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }

    assert set(AWS_CMDLETS.values()) <= allowed


# --- How it goes -------------------------------------------------------------------------------------------


def test_it_logs_before_it_does_anything_that_can_fail(dev_script):
    main = dev_script[dev_script.index("\ntry {") :]

    assert commands(main)[:3] == ["New-Item", "Out-Null", "Write-Log"]
    assert main.index("AmazonCloudWatchAgent") < main.index("latest/api/token")


def test_steps_come_in_the_documented_order(dev_script, repo_root):
    main = dev_script[dev_script.index("\n$step = 'start'") :]
    steps = re.findall(r"\$step = '(\w+)'", main)
    documented = re.findall(r"^\| `(\w+)` \|", (repo_root / "docs" / "boot.md").read_text(), re.MULTILINE)

    assert steps == ["start", "logs", "identity", "scratch", "agent", "environment", "service"]
    assert documented[: len(steps)] == steps


def test_only_disks_that_windows_does_not_run_on_are_formatted():
    text = "\n".join(code_lines(BOOT))

    chosen = text[text.index("Get-Disk |") : text.index("Clear-Disk")]
    assert "-not $_.IsBoot -and -not $_.IsSystem" in chosen
    assert all(
        "$disk.Number" in line
        for line in text.splitlines()
        if "Clear-Disk" in line or "Initialize-Disk" in line
    )


def test_a_failed_boot_is_told_in_every_way_whatever_fails_on_the_way():
    text = "\n".join(code_lines(BOOT))
    giving_up = text[text.index("function Stop-Boot") : text.index("\n$step = 'start'")]

    called = commands(giving_up)
    assert called == ["Write-Log", "Add-LogLine", "Start-Sleep", *list(AWS_CMDLETS)[1:], "Write-Warning"]
    assert "try { & $attempt } catch" in giving_up
    assert "'ABANDON'" in giving_up
    assert "'Unhealthy'" in giving_up
    assert text.rstrip().endswith("exit 1\n}")
    assert "} catch {\n    Stop-Boot " in text


def test_packages_come_from_the_bundle_alone_and_are_checked():
    text = "\n".join(code_lines(INSTALL_AGENT))

    for install in re.findall(r"Invoke-Native -Name 'pip'.*?\)", text, re.DOTALL):
        assert "'--no-index'" in install
    assert text.count("Assert-Sha256 -Path") == 2
    assert "'--require-hashes'" in text


# --- Values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["it's", "$(Remove-Item C:\\)", "`n", '"', "$env:PATH", "@'"])
def test_a_value_stays_what_it_is(value):
    text = f"$ErrorActionPreference = 'Stop'\n$x = {quoted('x', value)}\n"

    assert findings(text) == []
    assert assigned(text, "x") == value
    assert variables(text)[1] - AUTOMATIC == set()


@pytest.mark.parametrize("value", ["two\nlines", "typographic ’ quote", "tab\t", "münchen"])
def test_a_value_that_a_script_cannot_hold_is_refused_by_its_name(value):
    with pytest.raises(ConfigError, match=r"SCANFLEET_IT.*printable ASCII"):
        plain("SCANFLEET_IT", value)


def test_comments_stay_at_home():
    for part in (INSTALL_AGENT, BOOT):
        assert not [line for line in code_lines(part) if line.lstrip().startswith("#")]
        assert findings("\n".join(code_lines(part)), is_whole=False) == []
        assert "@'" not in part.read_text(), "a text of several lines may hold a line that begins with #"
