"""`scanfleet release`: releases of the closed program, with the operator's own AWS credentials."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scanfleet.cli_aws import aws_session
from scanfleet.cli_options import JsonOption
from scanfleet.cli_session import output
from scanfleet.errors import InvalidRequest

if TYPE_CHECKING:
    from scanfleet.releases import Release, ReleaseStore
    from scanfleet.releases_active import ActiveRelease

release = typer.Typer(
    help="Publish releases of the closed program, and choose the active one. Needs AWS credentials.",
    no_args_is_help=True,
)

StageOption = Annotated[str, typer.Option("--stage", metavar="STAGE", help="The deployment.")]
MaybeStageOption = Annotated[
    str | None, typer.Option("--stage", metavar="STAGE", help="The deployment whose bucket it is.")
]
BucketOption = Annotated[
    str | None,
    typer.Option("--bucket", metavar="BUCKET", help="The release bucket. Default: the stage's own."),
]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="The release's version.")]


@release.command()
def publish(
    ctx: typer.Context,
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", file_okay=False, exists=True, help="The release's files.")
    ],
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="Its name for ever.")],
    bucket: BucketOption = None,
    stage: MaybeStageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a folder as a release; only objects that the bucket has not travel. It is not active yet."""
    out = output(ctx, as_json=as_json)
    with aws_session() as session:
        store = _store(session, bucket, _active(session, stage) if stage else None)
        published = store.publish(
            folder,
            version,
            progress=lambda file: out.note(f"uploaded {file.path} ({file.size_bytes:,} bytes)"),
        )
    facts = _facts(published.release) | {
        "uploaded_objects": published.uploaded,
        "uploaded_bytes": published.uploaded_bytes,
    }
    out.json(facts) if out.as_json else out.text(published.release.version)


@release.command()
def activate(
    ctx: typer.Context,
    *,
    version: VersionArgument,
    stage: StageOption,
    bucket: BucketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a release the active one, after every file of it was seen in the bucket; builds a new image."""
    with aws_session() as session:
        active = _active(session, stage)
        made = active.activate(_store(session, bucket, active), version)
    out = output(ctx, as_json=as_json)
    out.json(_facts(made)) if out.as_json else out.text(made.version)


@release.command()
def rollback(
    ctx: typer.Context, *, stage: StageOption, bucket: BucketOption = None, as_json: JsonOption = False
) -> None:
    """Activate the release that was active before; once more goes forward again."""
    with aws_session() as session:
        active = _active(session, stage)
        made = active.activate(_store(session, bucket, active), active.previous())
    out = output(ctx, as_json=as_json)
    out.json(_facts(made)) if out.as_json else out.text(made.version)


@release.command(name="list")
def list_(
    ctx: typer.Context,
    *,
    bucket: BucketOption = None,
    stage: MaybeStageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the bucket's releases; with a stage, also which one is active there."""
    with aws_session() as session:
        active = _active(session, stage) if stage else None
        store = _store(session, bucket, active)
        present = active.version() if active else None
        rows = [_facts(store.read(version)) | {"active": version == present} for version in store.versions()]
    out = output(ctx, as_json=as_json)
    if out.as_json:
        out.json({"releases": rows})
    else:
        out.rows("Releases", rows)


def _facts(made: "Release") -> dict[str, Any]:
    return {
        "version": made.version,
        "created": made.created.isoformat(),
        "files": len(made.files),
        "size_bytes": made.size_bytes,
    }


def _store(session: Any, bucket: str | None, active: "ActiveRelease | None") -> "ReleaseStore":
    from scanfleet.releases import ReleaseStore  # noqa: PLC0415 - help and completion need not pay for it

    if bucket is None and active is None:
        raise InvalidRequest.of("--bucket", "is needed when there is no --stage to ask for it")
    return ReleaseStore(session.client("s3"), bucket or active.bucket())  # type: ignore[union-attr]


def _active(session: Any, stage: str) -> "ActiveRelease":
    from scanfleet.releases_active import ActiveRelease  # noqa: PLC0415 - as above

    return ActiveRelease(session.client("ssm"), stage)
