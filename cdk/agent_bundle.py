"""The agent as machines install it: two content-addressed files in the bootstrap bucket.

    source       scanfleet-<version>-py3-none-any.whl: our own package, made at synth from runtime/
    wheelhouse   agent-wheels.zip: every package that it needs on Windows, and their lock (agent_wheels.py)

A new agent uploads a few hundred kB, because the wheelhouse changes with requirements-agent.txt only. Whoever
needs the bundle makes one in its own stack: equal content has one key, so no stack refers to another's.
"""

import base64
import hashlib
import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED

from aws_cdk import AssetHashType, Stage
from aws_cdk.aws_iam import IGrantable, PolicyStatement
from aws_cdk.aws_s3_assets import Asset
from constructs import Construct

from cdk.agent_wheels import BUILD, ROOT, digest_file, wheelhouse, write_archive
from cdk.config import ConfigError
from scanfleet.contract import PRODUCT

SOURCE = ROOT / "runtime" / PRODUCT
LEFT_OUT = (SOURCE / "api" / "console", SOURCE / "api" / "pages")
"""Machines show no pages; a new console gives them no new package."""
WHEELHOUSE_NAME = "agent-wheels.zip"


@dataclass(frozen=True, kw_only=True)
class BundlePart:
    """One file of the bundle. `bucket_name` and `s3_uri` may hold tokens; the digest never does."""

    bucket_name: str
    object_key: str
    sha256: str
    """Hex digest of the file's content."""
    file_name: str
    """What it must be called on the machine: pip reads wheels' names."""

    @property
    def s3_uri(self) -> str:
        """Return where it lies. Example: "s3://cdk-hnb659fds-assets-.../<hash>.whl"."""
        return f"s3://{self.bucket_name}/{self.object_key}"


class AgentBundle(Construct):
    """The files in S3. Raises ConfigError while `make setup` has not made the wheelhouse."""

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self._assets: list[Asset] = []
        wheel = agent_wheel()
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.source = self._part("Source", wheel, digest=digest, file_name=wheel.name)
        archive, digest = built_wheelhouse()
        self.wheelhouse = self._part("Wheelhouse", archive, digest=digest, file_name=WHEELHOUSE_NAME)

    def grant_read(self, grantee: IGrantable) -> None:
        """Let the grantee read these two objects and no others."""
        grantee.grant_principal.add_to_principal_policy(
            PolicyStatement(
                sid="AgentBundle",
                actions=["s3:GetObject"],
                resources=[asset.bucket.arn_for_objects(asset.s3_object_key) for asset in self._assets],
            )
        )

    def _part(self, construct_id: str, path: Path, *, digest: str, file_name: str) -> BundlePart:
        self._link_into_output(path, digest)
        # The digest is the asset's name, so the CDK need not read the file to find one.
        asset = Asset(
            self, construct_id, path=str(path), asset_hash=digest, asset_hash_type=AssetHashType.CUSTOM
        )
        self._assets.append(asset)
        return BundlePart(
            bucket_name=asset.s3_bucket_name,
            object_key=asset.s3_object_key,
            sha256=digest,
            file_name=file_name,
        )

    def _link_into_output(self, path: Path, digest: str) -> None:
        """Leave the asset in the output under the name that the CDK gives it: it then copies no 80 MB.

        Where the file system cannot link, the CDK copies. Source: aws-cdk-lib, core/lib/asset-staging.ts.
        """
        hashed = hashlib.sha256(digest.encode()).hexdigest()
        stage = Stage.of(self)
        assert stage is not None, "every construct of an app has a stage"
        try:
            os.link(path, Path(stage.asset_outdir, f"asset.{hashed}{path.suffix}"))
        except OSError:
            return


def built_wheelhouse() -> tuple[Path, str]:
    """Return the zip of the present lock, and its digest. Raises ConfigError when there is none."""
    archive = wheelhouse()
    digest = digest_file(archive)
    if not (archive.is_file() and digest.is_file()):
        raise ConfigError(
            field_name=str(archive.relative_to(ROOT)),
            got="no such file",
            allowed="the agent's packages, which `make setup` collects",
        )
    return archive, digest.read_text().strip()


def agent_wheel(folder: Path = BUILD) -> Path:
    """Return our package as a wheel in `folder`; equal sources make equal bytes.

    Source: Python packaging user guide, "Binary distribution format".
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = [(p.relative_to(SOURCE.parent).as_posix(), p.read_bytes()) for p in _source_files()]
    information = f"{PRODUCT}-{project['version']}.dist-info"
    entries += [(f"{information}/{name}", text.encode()) for name, text in _metadata(project)]
    listed = [f"{name},sha256={_record_hash(content)},{len(content)}" for name, content in entries]
    record = "\n".join([*sorted(listed), f"{information}/RECORD,,", ""])
    entries.append((f"{information}/RECORD", record.encode()))
    # One folder a content: a synth never changes a file under another synth's link.
    place = folder / hashlib.sha256(record.encode()).hexdigest()[:16]
    wheel = place / f"{PRODUCT}-{project['version']}-py3-none-any.whl"
    if not wheel.is_file():
        place.mkdir(parents=True, exist_ok=True)
        write_archive(wheel, entries, compression=ZIP_DEFLATED)
    return wheel


def _source_files() -> Iterator[Path]:
    for path in sorted(SOURCE.rglob("*")):
        is_wanted = "__pycache__" not in path.parts and not any(folder in path.parents for folder in LEFT_OUT)
        if path.is_file() and is_wanted:
            yield path


def _metadata(project: dict[str, object]) -> Iterator[tuple[str, str]]:
    yield "WHEEL", "Wheel-Version: 1.0\nGenerator: scanfleet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    dependencies = project["dependencies"]
    assert isinstance(dependencies, list)
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Python: {project['requires-python']}"]
    yield "METADATA", "\n".join([*lines, *(f"Requires-Dist: {name}" for name in dependencies), ""])


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
