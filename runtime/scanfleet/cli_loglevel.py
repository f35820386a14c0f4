"""`scanfleet loglevel`: log levels of running processes, with the operator's own AWS credentials."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanfleet.cli_aws import aws_session
from scanfleet.cli_options import JsonOption, parse_duration
from scanfleet.cli_output import Output
from scanfleet.cli_session import output
from scanfleet.errors import InvalidRequest
from scanfleet.log_levels import COMPONENTS, LEVELS, Rule, Scope

if TYPE_CHECKING:
    from scanfleet.log_levels_store import LogLevelRules

LONGEST = timedelta(days=7)
DEFAULT = timedelta(hours=1)
MAX_NAME = 128

loglevel = typer.Typer(
    help="Make running processes log more or less for a while. Needs AWS credentials.",
    no_args_is_help=True,
)

StageOption = Annotated[str, typer.Option("--stage", metavar="STAGE", help="The deployment.")]
ComponentOption = Annotated[
    str | None,
    typer.Option(
        "--component",
        metavar="COMPONENT",
        help=f"Every process of it: {', '.join(COMPONENTS)}.",
        autocompletion=lambda: [str(component) for component in COMPONENTS],
    ),
]
MachineOption = Annotated[
    str | None,
    typer.Option("--machine", metavar="ID", help="One agent: its id, in a fleet the instance's."),
]
JobOption = Annotated[
    str | None, typer.Option("--job", metavar="JOB", help="Lines about this job only, wherever they are.")
]


@loglevel.command(name="set")
def set_(
    ctx: typer.Context,
    *,
    level: Annotated[
        str,
        typer.Argument(metavar="LEVEL", help=f"{', '.join(LEVELS)}.", autocompletion=lambda: list(LEVELS)),
    ],
    stage: StageOption,
    component: ComponentOption = None,
    machine: MachineOption = None,
    job: JobOption = None,
    lasts: Annotated[
        timedelta | None,
        typer.Option(
            "--for",
            parser=parse_duration,
            metavar="DURATION",
            show_default=False,
            help="15m, 1h30m; 168h at most. Default: 1h.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write lines of one component, machine or job from LEVEL up; running processes heed it within 30 s."""
    if level.upper() not in LEVELS:
        raise InvalidRequest.of("LEVEL", "is not a level", value=level, allowed=", ".join(LEVELS))
    duration = DEFAULT if lasts is None else lasts
    if not timedelta() < duration <= LONGEST:
        raise InvalidRequest.of("--for", "is too short or too long", value=duration, allowed="1s to 168h")
    scope, name = _target(component, machine, job)
    now = time.time()
    rule = Rule(scope, name, level.upper(), until=now + duration.total_seconds(), at=now)
    with _rules(stage) as rules:
        _show(output(ctx, as_json=as_json), rules.put([rule]))


@loglevel.command()
def show(ctx: typer.Context, *, stage: StageOption, as_json: JsonOption = False) -> None:
    """Show which levels are set now, and until when."""
    with _rules(stage) as rules:
        _show(output(ctx, as_json=as_json), rules.live())


@loglevel.command()
def clear(
    ctx: typer.Context,
    *,
    stage: StageOption,
    component: ComponentOption = None,
    machine: MachineOption = None,
    job: JobOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All levels that are set.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a level back before it expires."""
    with _rules(stage) as rules:
        live = rules.live()
        if everything:
            taken = list(live)
        else:
            target = _target(component, machine, job)
            taken = [rule for rule in live if rule.target == target]
        now = time.time()
        changes = [Rule(rule.scope, rule.name, None, until=rule.until, at=now) for rule in taken]
        left = rules.put(changes) if changes else live
        out = output(ctx, as_json=as_json)
        if not changes:
            out.note("nothing of that is set")
        _show(out, left)


def _target(component: str | None, machine: str | None, job: str | None) -> tuple[Scope, str]:
    """Return what is meant. Raises InvalidRequest unless exactly one thing is named, and could exist."""
    given = {Scope.COMPONENT: component, Scope.MACHINE: machine, Scope.JOB: job}
    named = [(scope, name) for scope, name in given.items() if name is not None]
    if len(named) != 1:
        raise InvalidRequest.of(
            "target", "is not one thing", allowed="one of --component, --machine and --job"
        )
    scope, name = named[0]
    if scope is Scope.COMPONENT and name not in COMPONENTS:
        known = ", ".join(COMPONENTS)
        raise InvalidRequest.of("--component", "is no component that logs so", value=name, allowed=known)
    if scope is Scope.JOB:
        from scanfleet.jobs import is_job_id  # noqa: PLC0415 - pydantic, which help need not pay for

        if not is_job_id(name):
            raise InvalidRequest.of("--job", "is not a job id", value=name, allowed="26 characters")
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidRequest.of(f"--{scope}", "is no name", value=name, allowed=f"1 to {MAX_NAME} characters")
    return scope, name


def _show(out: Output, rules: tuple[Rule, ...]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "scope": rule.scope.value,
            "name": rule.name,
            "level": rule.level,
            "until": datetime.fromtimestamp(rule.until, tz=UTC).isoformat(timespec="seconds"),
        }
        for rule in rules
    ]
    out.json({"levels": rows}) if out.as_json else out.rows("Log levels", rows)


@contextmanager
def _rules(stage: str) -> Iterator["LogLevelRules"]:
    from scanfleet.errors import Conflict  # noqa: PLC0415
    from scanfleet.log_levels_store import LogLevelRules  # noqa: PLC0415 - botocore, as above

    with aws_session() as session:
        try:
            yield LogLevelRules(lambda: session.client("ssm"), stage)
        except ValueError as error:  # somebody wrote something else there
            raise Conflict(f'{error}; write {{"rules":[]}} to the parameter to begin anew') from error
