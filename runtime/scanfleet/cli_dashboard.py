"""`scanfleet dashboard`: a deployment's CloudWatch dashboards as pictures, with the caller's credentials."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanfleet.cli_options import JsonOption, parse_duration
from scanfleet.cli_session import output
from scanfleet.errors import ConfigurationError, NotFound, Unavailable

if TYPE_CHECKING:
    import boto3

    from scanfleet.cli_output import Output
    from scanfleet.dashboards.body import Dashboard
    from scanfleet.dashboards.render import Report

LOCAL_STAGE = "local"
LOCAL_ENDPOINT = "http://127.0.0.1:4566"
"""Of `make up`."""
LOCAL_REGION = "us-east-1"

dashboard = typer.Typer(
    help="Look at the deployment's dashboards without the AWS console. Needs AWS credentials.",
    no_args_is_help=True,
)


@dashboard.callback()
def _group() -> None:
    """Keep `render` a verb of its own: one more will come."""


@dashboard.command()
def render(
    ctx: typer.Context,
    *,
    stage: Annotated[
        str, typer.Option("--stage", metavar="STAGE", help="The deployment; local is that of make up.")
    ] = LOCAL_STAGE,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", file_okay=False, help="Where the pictures go.")
    ] = Path("build/dashboards"),
    since: Annotated[
        str, typer.Option("--since", metavar="DURATION", help="How far back: 15m, 3h, 1h30m.")
    ] = "3h",
    names: Annotated[
        list[str] | None,
        typer.Option("--dashboard", metavar="NAME", help="Only this one, as fleet or jobs; may be repeated."),
    ] = None,
    assembly: Annotated[
        Path | None,
        typer.Option(
            "--assembly",
            metavar="FOLDER",
            file_okay=False,
            help="Draw the dashboards of this CDK assembly (cdk synth) instead of those deployed.",
        ),
    ] = None,
    period: Annotated[
        int | None,
        typer.Option("--period", metavar="SECONDS", min=1, help="Instead of the graphs' own periods."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="URL", help="Of CloudWatch; default: AWS's own.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 if a metric that should have data has none.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw each dashboard as a PNG and list the metrics that have no data."""
    end = datetime.now(tz=UTC)
    start = end - parse_duration(since)
    printed = output(ctx, as_json=as_json)
    with _tools():
        from scanfleet.dashboards import gaps  # noqa: PLC0415 - matplotlib: a second
        from scanfleet.dashboards import render as drawing  # noqa: PLC0415

        session, url = _session(stage, endpoint)
        client = _client(session, "cloudwatch", url)
        found = _dashboards(session, url, stage, assembly, names)
        report = drawing.render(
            found,
            client,
            folder=out,
            start=start,
            end=end,
            period=period,
            reason=gaps.reason_on_one_machine if stage == LOCAL_STAGE else lambda _: None,
        )
    _print(printed, report)
    if strict and report.without_data:
        raise typer.Exit(1)


def _dashboards(
    session: "boto3.Session", url: str | None, stage: str, assembly: Path | None, names: list[str] | None
) -> "list[Dashboard]":
    """Return the wanted dashboards, by name. Raises NotFound."""
    from scanfleet.dashboards import sources  # noqa: PLC0415 - as above

    if assembly is None:
        bodies = dict(sources.deployed(_client(session, "cloudwatch", url), stage))
        where = "no dashboard of this stage is deployed; --assembly FOLDER draws those of a CDK assembly"
    else:
        clients = [_client(session, name, url) for name in ("cloudformation", "sts")]
        bodies = dict(sources.synthesized(assembly, *clients, stage=stage))
        where = "the assembly has no dashboard of this stage: synthesize it with -c stage=STAGE"
    if not bodies:
        raise NotFound(f"{where} (stage {stage})")
    return sources.chosen(bodies, stage, names or [])


def _session(stage: str, endpoint: str | None) -> "tuple[boto3.Session, str | None]":
    """Return a session and CloudWatch's address; the local stage's unless the environment names another."""
    import boto3  # noqa: PLC0415 - a fifth of a second

    session = boto3.Session()
    if stage != LOCAL_STAGE:
        return session, endpoint
    local = boto3.Session(
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - the emulator takes any
        region_name=LOCAL_REGION,
    )
    default = local.client("cloudwatch").meta.endpoint_url  # AWS_ENDPOINT_URL, if that is set
    return local, endpoint or (LOCAL_ENDPOINT if "amazonaws.com" in default else default)


def _client(session: "boto3.Session", service: Any, url: str | None) -> Any:
    return session.client(service, endpoint_url=url)


def _print(out: "Output", report: "Report") -> None:
    if out.as_json:
        out.json(report.document())
        return
    for file in report.files.values():
        out.text(file)
    for line in report.without_data:
        out.text(f"no data: {line.dashboard}, {line.widget}: {line.metric}")
    out.text(
        f"{sum(bool(line.points) for line in report.lines)} of {len(report.lines)} lines have data,"
        f" {len(report.excused)} can have none here, {len(report.without_data)} should have"
    )


@contextmanager
def _tools() -> Iterator[None]:
    """Turn missing packages, credentials and services into errors of the command line."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise Unavailable(f"AWS did not answer: {error}") from error
    except ImportError as error:
        raise ConfigurationError(
            f"drawing dashboards needs {error.name or 'more packages'}: pip install 'scanfleet[plots]'"
        ) from error
