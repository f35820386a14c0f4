"""`make up`: the whole system on this machine until Ctrl-C; its state is there again the next time."""

from pathlib import Path
from typing import NoReturn

from rich.console import Console

from scanfleet.local.deploy import operators_environment
from scanfleet.local.processes import LocalModeError
from scanfleet.local.system import LocalSystem, Plan

EMULATOR_PORT = 4566


def up(
    console: Console, *, repo_root: Path, state: Path, agents: int, port: int, emulator_port: int
) -> NoReturn:
    """Run until Ctrl-C (a KeyboardInterrupt) or until a part dies, which raises LocalModeError."""
    plan = Plan(
        repo_root=repo_root,
        state=state,
        logs=state / "logs",
        agents=agents,
        port=port,
        emulator_port=emulator_port,
        is_monitored=True,
    )
    with LocalSystem(plan, on_step=lambda step: console.print(f"starting: {step}")) as system:
        _show(console, system, plan)
        death = system.processes.wait_for_death()
        raise LocalModeError(str(death))


def _show(console: Console, system: LocalSystem, plan: Plan) -> None:
    deployed = system.deployed
    operators = operators_environment(deployed.endpoint_url)
    scanfleet = f".venv/bin/scanfleet --url {system.url}"
    lines = (
        f"console           {system.url}/   (open it in a browser)",
        f"API               {system.url}   (reference: {system.url}/docs)",
        f"S3 endpoint       {deployed.endpoint_url}   (bucket {deployed.data_bucket}, any credentials)",
        f"agents            {plan.agents}",
        f"logs, state       {plan.logs}, {plan.state}",
        "",
        "Try in another terminal:",
        f"  {scanfleet} sample /tmp/sample",
        f"  {scanfleet} submit /tmp/sample/scans /tmp/result --wait",
        f"  {scanfleet} jobs --status all",
        f"  {scanfleet} logs JOB --follow     (status, watch, receipt, evidence, cancel: the same way)",
        f"  {scanfleet} load",
        f"  curl {system.url}/status/health",
        "",
        "As an operator, whose verbs talk to AWS itself:",
        f"  export {' '.join(f'{name}={value}' for name, value in operators.items())}",
        f"  .venv/bin/scanfleet loglevel set DEBUG --stage {deployed.stage} --component agent --for 10m",
        "  make dashboards SINCE=15m    (what an operator sees on AWS, as pictures)",
        "",
        "Ctrl-C stops everything; the state stays.",
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
