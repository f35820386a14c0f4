"""The rules for PowerShell find what they are for, and nothing in a script that keeps them."""

import pytest

from tests.support.powershell import commands, findings, functions, variables

GOOD = r"""
$ErrorActionPreference = 'Stop'
function Get-It {
    param([string]$Path, [scriptblock]$Then)
    # a comment between a program and the look at its exit code
    & 'C:\Program Files\it\it.exe' --path $Path
    # is one
    if ($LASTEXITCODE -ne 0) { throw "it failed with ${LASTEXITCODE}" }
    & $Then 'done'
}
$process = Start-Process -FilePath 'msi.exe' -Wait -PassThru
if ($process.ExitCode -ne 0) { throw "msi failed with $($process.ExitCode)" }
foreach ($block in @({ 1 }, { 2 })) { & $block }
$text = @'
& never.exe
'@
"""


def test_a_good_script_has_no_findings():
    assert findings(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("syntax", "function Get-It {", "function Get-It {{"),
        ("syntax", "{ throw", "{ throw ("),
        ("syntax", "--path $Path", "--path $Path/$name'"),
        ("stop", "'Stop'", "'Continue'"),
        ("stop", "$ErrorActionPreference = 'Stop'", ""),
        ("exit code", 'if ($LASTEXITCODE -ne 0) { throw "it failed with ${LASTEXITCODE}" }', "Get-Date"),
        ("exit code", "'C:\\Program Files\\it\\it.exe' --path", "$Program --path"),
        ("exit code", "$process.ExitCode -ne 0", "$process"),
        ("exit code", "& $Then 'done'", "msiexec /i it.msi"),
        ("exit code", "& $Then 'done'", "python -m pip install it"),
        ("text as code", "& $Then 'done'", "Invoke-Expression $Path"),
        ("text as code", "& $Then 'done'", "cmd.exe /c dir"),
    ],
)
def test_a_fault_is_found(rule, old, new):
    assert old in GOOD
    faulty = GOOD.replace(old, new)
    if rule == "exit code" and "throw" not in new:
        faulty = faulty.replace('throw "msi failed with $($process.ExitCode)"', "throw 'msi failed'")
        faulty = faulty.replace(
            'if ($LASTEXITCODE -ne 0) { throw "it failed with ${LASTEXITCODE}" }', "Get-Date"
        )

    assert any(f": {rule}: " in found for found in findings(faulty)), findings(faulty)


def test_a_file_of_functions_need_not_say_how_errors_are_met():
    assert findings("function Get-It { Get-Date }", is_whole=False) == []


def test_names_are_found():
    assigned, read = variables(
        '$a = $b\nforeach ($c in $d) { "$e ${f}" }\nfunction g { param($h) $i.j = $k }'
    )

    assert {"a", "c", "h"} <= assigned
    assert {"b", "d", "e", "f", "k"} <= read
    assert functions("function Get-It { 1 }") == {"Get-It"}
    assert commands("Get-It | Out-Null\n& 'C:\\it.exe' x\n& $y") == ["Get-It", "Out-Null", "it.exe"]
