"""The agent as machines install it: two content-addressed files in the bootstrap bucket.

    source       scanfleet-<version>-py3-none-any.whl: our own package, made at synth from runtime/
    wheelhouse   agent-wheels.zip: every package that it needs on Windows, and their lock, made by `make setup`

A new agent uploads some 200 kB, since the wheelhouse changes with requirements-agent.txt only. Whoever needs the
bundle makes one in its own stack: equal content has one key, so no stack refers to another's.
"""

from dataclasses import dataclass

from aws_cdk.aws_iam import IGrantable
from constructs import Construct


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
    """The files in S3. Raises BundleMissing while `make setup` has not made the wheelhouse."""

    source: BundlePart
    wheelhouse: BundlePart

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)

    def grant_read(self, grantee: IGrantable) -> None:
        """Let the grantee read these two objects and no others."""
