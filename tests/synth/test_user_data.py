"""The script that each Windows machine runs at boot, as the launch templates carry it."""

import json
import re
from typing import Any

import pytest

from cdk.config import ConfigError
from cdk.user_data import BOOT, INSTALL_AGENT, code_lines, plain, quoted
from scanfleet.contract import (
    AGENT_SERVICE,
    AGENT_STATUS_PORT,
    LAUNCH_HOOK,
    METRIC_FACTS,
    Env,
    Metric,
    WindowsPath,
    fleet_name,
    metric_namespace,
)
from tests.support.powershell import commands, findings, variables
from tests.support.user_data import (
    AUTOMATIC,
    AWS_CMDLETS,
    assigned,
    environment,
    faults,
    script,
    user_data,
)

LARGE: dict[str, Any] = {
    "pools": {"windows-gpu": {"scratch_volume_gib": 500, "warm_instances": 1, "slots_per_instance": 4}},
    "allowed_prefixes": [f"s3://some-bucket-of-ours-{n}/with/a/folder/" for n in range(12)],
}
"""What makes the script longest."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "dev": ("dev", {}),
    "prod": ("prod", {}),
    "large": ("dev", LARGE),
}


@pytest.fixture(params=VARIANTS)
def variant(request, stack) -> str:
    """The user-data of each stage, and of the most that may be configured."""
    stage, settings = VARIANTS[request.param]
    return user_data(stack(stage, "fleet", **settings))


@pytest.fixture
def dev_script(stack) -> str:
    return script(user_data(stack("dev", "fleet")))


# --- Every variant -----------------------------------------------------------------------------------------


def test_it_has_no_faults(variant):
    assert faults(variant) == []


def test_it_is_plain_ascii_without_blanks_after_a_line_s_end(variant):
    # a backtick continues a line only as its last character
    assert variant.isascii()
    assert not re.search(r"`[ \t]+$", variant, re.MULTILINE)


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
        Env.DEAD_LETTERS,
        Env.POOL,
        Env.FLEET,
    }
    assert needed <= found.keys()
    assert found[Env.FLEET] == assigned(dev_script, "Fleet")
    assert json.loads(found[Env.QUEUES]).keys() == {"windows-gpu"}
    assert found["AWS_DEFAULT_REGION"] == assigned(dev_script, "Region")


def test_settings_that_it_adds_are_the_contract_s(dev_script):
    added = set(re.findall(r"(SCANFLEET_[A-Z_]+)=", "\n".join(code_lines(BOOT))))

    assert added == {Env.SCRATCH, Env.LOG_FOLDER, Env.STATUS_HOST}
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


@pytest.mark.parametrize(("settings", "is_volume"), [({}, "$false"), (LARGE, "$true")])
def test_workspaces_are_on_the_disk_that_was_configured(stack, settings, is_volume):
    text = user_data(stack("dev", "fleet", **settings))

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

    assert steps == ["start", "logs", "identity", "scratch", "agent", "environment", "firewall", "service"]
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
    told = ["Write-Log", "Add-LogLine", "Start-Sleep", *list(AWS_CMDLETS)[1:], "Complete-TerminateHook"]
    assert called == [*told, "Write-Warning"]
    assert "try { & $attempt } catch" in giving_up
    assert "'ABANDON'" in giving_up
    assert "'Unhealthy'" in giving_up
    assert text.rstrip().endswith("exit 1\n}")
    assert "} catch {\n    Stop-Boot " in text


def test_the_load_balancer_is_let_in_where_the_agent_answers(dev_script):
    opened = dev_script[dev_script.index("New-NetFirewallRule") : dev_script.index("$step = 'service'")]

    assert assigned(dev_script, "StatusPort") == str(AGENT_STATUS_PORT)
    for part in ("-Direction Inbound", "-Action Allow", "-Protocol TCP", "-LocalPort $StatusPort"):
        assert part in opened
    assert "-Program $Python" in opened, "no other program is let in"


def test_a_machine_without_an_agent_does_not_wait_for_one_to_drain():
    text = "\n".join(code_lines(BOOT))
    leaving = text[text.index("function Complete-TerminateHook") : text.index("function Stop-Boot")]

    assert "-LifecycleHookName $TerminateHook" in leaving
    assert "'CONTINUE'" in leaving
    running = leaving.index("if (-not $service -or $service.Status -eq 'Stopped') {")
    assert running < leaving.index("Complete-ASLifecycleAction"), "a running agent drains first"


def test_credentials_are_asked_for_with_patience(dev_script):
    found = environment(dev_script)

    assert float(found["AWS_METADATA_SERVICE_TIMEOUT"]) >= 5
    assert int(found["AWS_METADATA_SERVICE_NUM_ATTEMPTS"]) >= 3


def test_packages_come_from_the_bundle_alone_and_are_checked():
    text = "\n".join(code_lines(INSTALL_AGENT))

    for install in re.findall(r"Invoke-Native -Name 'pip'.*?\)", text, re.DOTALL):
        assert "'--no-index'" in install
    assert text.count("Assert-Sha256 -Path") == 2
    assert "'--require-hashes'" in text


# --- Seeded faults -----------------------------------------------------------------------------------------


FAULTS = [
    ("powershell", "$ErrorActionPreference = 'Stop'\n", "$ErrorActionPreference = 'Continue'\n"),
    ("powershell", "if ($LASTEXITCODE -ne 0) {", "if ($true) {"),
    ("powershell", "} catch {\n    Stop-Boot", "} catch\n    Stop-Boot"),
    (
        "powershell",
        "Get-FileHash -LiteralPath $Path",
        "Invoke-Expression $Path; Get-FileHash -LiteralPath $Path",
    ),
    ("powershell", "Start-Sleep -Seconds 20", "shutdown /r"),
    ("variable", "$wheelhouse -eq $WheelhouseSha256", "$wheelhouse -eq $WheelhouseSha265"),
    ("variable", "-Key $SourceKey", "-Key $SourceName"),
    ("variable", "-LifecycleHookName $LaunchHook", "-LifecycleHookName 'ready'"),
    ("command", "Complete-ASLifecycleAction", "Complete-ASLifeCycleHook"),
    ("command", "Assert-Sha256 -Path", "Test-Path -Path"),
    ("command", "    Update-Agent\n", ""),
    ("value", "SCANFLEET_SCRATCH=$", "SCANFLEET_SCRATCHS=$"),
    ("order", "'AmazonCloudWatchAgent'", "'Spooler'"),
    ("order", "New-NetFirewallRule -Name", "Get-NetFirewallRule -Name"),
    ("order", "    exit 1\n", ""),
    ("tags", "<persist>true</persist>", ""),
    ("tags", "</powershell>", "</script>"),
    ("size", "<powershell>\n", "<powershell>\n" + "# a comment that belongs into the repository\n" * 200),
]


@pytest.mark.parametrize(("check", "old", "new"), FAULTS)
def test_a_seeded_fault_is_found(stack, check, old, new):
    text = user_data(stack("dev", "fleet"))
    assert old in text

    found = faults(text.replace(old, new))

    assert any(fault.startswith(f"{check}: ") for fault in found), found


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
