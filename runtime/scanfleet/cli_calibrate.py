"""`scanfleet calibrate`: how many jobs this machine should run side by side."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanfleet.cli_aws import aws_session
from scanfleet.cli_options import JsonOption, parse_duration, parse_settings
from scanfleet.cli_output import ExitCode, Output
from scanfleet.cli_session import output
from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from scanfleet.calibration.calibrate import Request, Result
    from scanfleet.calibration.records import Calibration, CalibrationStore
    from scanfleet.processors.base import Processor

GENERATED = "generated"
NO_PICTURE = "none"
GIB = 2**30


def calibrate(
    ctx: typer.Context,
    *,
    processor: Annotated[str, typer.Option("--processor", metavar="NAME", help="The program.")] = "reference",
    sample: Annotated[
        str,
        typer.Option(
            metavar="FOLDER", help='A folder of typical inputs, or "generated": the product\'s own.'
        ),
    ] = GENERATED,
    slots: Annotated[str, typer.Option(metavar="1..N", help="Concurrencies: 1..4, or 1,2,4,8.")] = "1..4",
    budget: Annotated[str, typer.Option(metavar="DURATION", help="Take this long at most.")] = "10m",
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Measure each concurrency so often.")] = 4,
    within: Annotated[
        float, typer.Option(min=0, max=50, metavar="PERCENT", help="Throughput that fewer slots may cost.")
    ] = 5,
    max_p95: Annotated[
        str | None, typer.Option(metavar="DURATION", help="95 % of the jobs end within this.")
    ] = None,
    max_memory: Annotated[
        float, typer.Option(min=1, max=100, metavar="PERCENT", help="Of this machine's, for all programs.")
    ] = 85,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the processor.")
    ] = None,
    pool: Annotated[Pool | None, typer.Option(help="Default: the processor's own.")] = None,
    machine: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Default: the EC2 instance type, elsewhere cores and memory."),
    ] = None,
    release_folder: Annotated[
        Path | None, typer.Option(file_okay=False, help="The closed program's release.")
    ] = None,
    scratch: Annotated[
        Path | None, typer.Option(file_okay=False, help="Where workspaces go. Default: the temporary folder.")
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help='PNG of the curve. Default: beside you; "none" draws nothing.'),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Keep the result: machines of this kind follow it.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Print what is kept; measure nothing.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Take back what is kept; measure nothing.")
    ] = False,
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="The deployment, for --store, --show, --forget.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="Its job table. Default: asked of the stage.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how many jobs this machine should run side by side. Changes nothing without --store."""
    out = output(ctx, as_json=as_json)
    if show + forget + store > 1:
        raise InvalidRequest.of("--show", "give one of --store, --show and --forget")
    if show or forget:
        program = _program(processor, pool, release_folder)
        with _store(stage, table) as kept:
            if show:
                _show(kept, [pool] if pool else list(Pool), out)
            else:
                _forget(kept, program, pool or program.pool, machine or _this_machine(), out)
        return
    if store:
        with _store(stage, table) as kept:  # before the work, not after it
            kept.of(pool or _program(processor, pool, release_folder).pool)
    with tempfile.TemporaryDirectory(prefix="scanfleet-calibrate-", dir=scratch) as folder:
        request = _request(
            program=_program(processor, pool, release_folder),
            pool=pool,
            machine=machine,
            sample=sample,
            folder=Path(folder),
            settings=parse_settings(set_ or []),
            release=release_folder.name if release_folder else None,
            plan={"slots": slots, "rounds": rounds, "budget": parse_duration(budget).total_seconds()},
            within=within,
            max_memory=max_memory,
            max_p95=parse_duration(max_p95).total_seconds() if max_p95 else None,
        )
        result = _measure(request, out)
    if result.calibration is not None:
        _tell(result.calibration, plot, out)
        if store and not result.was_interrupted:
            with _store(stage, table) as kept:
                kept.put(result.calibration)
            out.note(
                f"stored: agents of {request.pool} on {request.machine} with SLOTS auto take"
                f" {result.calibration.slots} slots from their next start"
            )
    if result.was_interrupted:
        out.note("interrupted: nothing was stored, and no program is left")
        raise typer.Exit(ExitCode.INTERRUPTED)
    if result.calibration is None:
        raise InvalidRequest.of("--budget", "nothing was measured within it; more is needed", value=budget)


def _request(
    *,
    program: "Processor",
    pool: Pool | None,
    machine: str | None,
    sample: str,
    folder: Path,
    settings: dict[str, Any],
    release: str | None,
    plan: dict[str, Any],
    within: float,
    max_memory: float,
    max_p95: float | None,
) -> "Request":
    from scanfleet.calibration.calibrate import Request  # noqa: PLC0415 - help need not pay for it
    from scanfleet.calibration.plan import Plan, parse_slots  # noqa: PLC0415

    return Request(
        processor=program,
        pool=pool or program.pool,
        machine=machine or _this_machine(),
        plan=Plan(slots=parse_slots(plan["slots"]), rounds=plan["rounds"], budget_seconds=plan["budget"]),
        sample=_sample(sample, folder),
        sample_name=sample,
        scratch=folder / "scratch",
        tolerance=within / 100,
        memory_share=max_memory / 100,
        p95_seconds=max_p95,
        settings=settings,
        release=release,
    )


def _measure(request: "Request", out: Output) -> "Result":
    from scanfleet.calibration.calibrate import calibrate as measure  # noqa: PLC0415

    plan = request.plan
    out.note(
        f"calibrates {request.processor.name} for {request.pool} on this machine ({request.machine}):"
        f" {', '.join(map(str, plan.slots))} side by side, {plan.rounds} rounds, {plan.budget_seconds:.0f} s"
        " at most; first one job alone, to learn how long the rest takes. Ctrl-C ends it and shows what is"
        " known. Anything else that runs here spoils it."
    )
    return measure(request, say=out.note)


def _program(name: str, pool: Pool | None, release_folder: Path | None) -> "Processor":
    from scanfleet.processors.medit_autotest import MeditAutoTest  # noqa: PLC0415
    from scanfleet.processors.reference import ReferenceProcessor  # noqa: PLC0415
    from scanfleet.processors.release_source import FixedRelease  # noqa: PLC0415

    known: dict[str, Processor] = {
        ReferenceProcessor.name: ReferenceProcessor(pool=pool or Pool.LINUX_CPU),
        MeditAutoTest.name: MeditAutoTest(releases=FixedRelease(release_folder) if release_folder else None),
    }
    if name not in known:
        raise InvalidRequest.of("--processor", f"allowed: {', '.join(known)}", value=name)
    return known[name]


def _sample(given: str, folder: Path) -> Path:
    if given == GENERATED:
        try:
            from scanfleet.sample import make_sample  # noqa: PLC0415 - numpy, and only with this extra
        except ImportError as error:
            raise ConfigurationError(
                f"the generated sample needs {error.name or 'more packages'}: pip install"
                " 'scanfleet[reference]'"
            ) from error
        return make_sample(folder / "sample").scans_folder
    if not Path(given).is_dir():
        raise InvalidRequest.of("--sample", 'a folder of inputs is needed, or "generated"', value=given)
    return Path(given).resolve()


def _this_machine() -> str:
    """Return the kind of machine. Off EC2 the metadata service does not answer: that takes a moment."""
    from scanfleet.agent.instance import METADATA_URL, InstanceMetadata  # noqa: PLC0415
    from scanfleet.calibration.machine import kind_of_machine  # noqa: PLC0415
    from scanfleet.errors import Unavailable  # noqa: PLC0415

    try:
        return kind_of_machine(InstanceMetadata(METADATA_URL).instance().instance_type)
    except Unavailable:
        return kind_of_machine()


@contextmanager
def _store(stage: str | None, table: str | None) -> Iterator["CalibrationStore"]:
    """Give the store of a stage's job table."""
    from scanfleet.calibration.records import CalibrationStore  # noqa: PLC0415
    from scanfleet.contract import Parameter, parameter_name  # noqa: PLC0415

    if stage is None and table is None:
        raise InvalidRequest.of("--stage", "is needed to know whose calibrations: --stage STAGE, or --table")
    with aws_session() as session:
        if table is None:
            name = parameter_name(str(stage), Parameter.JOB_TABLE)
            table = session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        yield CalibrationStore(session.client("dynamodb"), table)


def _show(kept: "CalibrationStore", pools: list[Pool], out: Output) -> None:
    found = [calibration for pool in pools for calibration in kept.of(pool)]
    if out.as_json:
        out.json({"calibrations": [calibration.model_dump(mode="json") for calibration in found]})
        return
    from scanfleet.calibration.report import kept_row, lines  # noqa: PLC0415

    out.rows("Calibrations", map(kept_row, found))
    for calibration in found:
        for line in lines(calibration):
            out.text(line)


def _forget(kept: "CalibrationStore", program: "Processor", pool: Pool, machine: str, out: Output) -> None:
    was_there = kept.remove(pool, machine, program.name)
    if out.as_json:
        out.json({"forgotten": was_there, "pool": pool, "machine": machine, "processor": program.name})
    else:
        out.text(f"{'forgotten' if was_there else 'nothing is kept'}: {program.name} on {machine} in {pool}")


def _tell(calibration: "Calibration", plot: str | None, out: Output) -> None:
    from scanfleet.calibration.report import lines, point_rows  # noqa: PLC0415

    picture = _draw(calibration, plot, out)
    if out.as_json:
        out.json(calibration.model_dump(mode="json") | {"picture": picture})
        return
    out.rows(f"{calibration.processor} on {calibration.machine}", point_rows(calibration))
    for line in lines(calibration):
        out.text(line)
    if picture:
        out.note(f"the curve: {picture}")


def _draw(calibration: "Calibration", plot: str | None, out: Output) -> str | None:
    if plot == NO_PICTURE:
        return None
    file = Path(plot or f"calibration-{calibration.processor}-{calibration.machine}.png")
    try:
        from scanfleet.calibration.plot import draw  # noqa: PLC0415 - a second, and only with this extra
    except ImportError:
        out.note("no picture: that needs pip install 'scanfleet[plots]'")
        return None
    try:
        draw(calibration, file)
    except OSError as error:
        raise InvalidRequest.of("--plot", error.strerror or str(error), value=file) from error
    return str(file)
