"""Faults of the boot script, as somebody could write them."""

from tests.support.mutations import Mutation, rewrite

SCRIPT = "user-data/WindowsGpuFleetLaunchTemplate"

MUTATIONS = [
    Mutation(
        fault="the script does not parse",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^    Update-Agent$", "    if ($wheelhouse -eq {"),
    ),
    Mutation(
        fault="the script goes on after an error",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^\$ErrorActionPreference = 'Stop'\n", ""),
    ),
    Mutation(
        fault="the script is longer than EC2 takes",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^</powershell>$", "Write-Warning '" + "x" * 16384 + "'\n</powershell>"),
    ),
    Mutation(
        fault="a program's exit code is looked at by nobody",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^    Update-Agent$", "    & $Python -m pip install scanfleet"),
    ),
    Mutation(
        fault="a variable's name has a typo",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"-LifecycleHookName \$LaunchHook", "-LifecycleHookName $LaunchHok"),
    ),
    Mutation(
        fault="a value without quotes is glued to a word",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^    Update-Agent$", "    Remove-Item -Recurse -Force C:\\ProgramData\\$State"),
    ),
    Mutation(
        fault="the script runs at the first boot only",
        where=SCRIPT,
        caught_by="user data",
        seed=rewrite(r"^<persist>true</persist>\n", ""),
    ),
    Mutation(
        fault="the launch hook's name has a typo",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"^\$LaunchHook = 'agent-ready'$", "$LaunchHook = 'agent-redy'"),
    ),
    Mutation(
        fault="a failed boot is counted where no alarm looks",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r'"Namespace":"Scanfleet/dev"', '"Namespace":"Scanfleet"'),
    ),
    Mutation(
        fault="the boot's log goes to a file that nothing ships",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"'userdata\.jsonl'", "'userdata.log'"),
    ),
    Mutation(
        fault="packages are installed whatever was downloaded",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"^    Assert-Sha256 -Path \$Archive .*\n", ""),
    ),
    Mutation(
        fault="a failed boot leaves the machine healthy",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"Set-ASInstanceHealth", "Get-ASAutoScalingInstance"),
    ),
    Mutation(
        fault="a failed boot keeps its launch hook waiting",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"Complete-ASLifecycleAction(?=.*LaunchHook)", "Write-ASLifecycleActionHeartbeat"),
    ),
    Mutation(
        fault="Windows' firewall keeps the load balancer's checks out",
        where=SCRIPT,
        caught_by="boot steps",
        seed=rewrite(r"New-NetFirewallRule", "Get-NetFirewallRule"),
    ),
]
