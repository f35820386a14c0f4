"""The two buckets: what clients put in and get out (data), and what the system keeps (artifacts)."""

from collections.abc import Sequence
from datetime import timedelta

from aws_cdk import Acknowledgment, Duration, RemovalPolicy, Validations
from aws_cdk.aws_iam import IGrantable
from aws_cdk.aws_kms import IKey
from aws_cdk.aws_s3 import (
    BlockPublicAccess,
    Bucket,
    BucketEncryption,
    CorsRule,
    HttpMethods,
    LifecycleRule,
    ObjectOwnership,
)
from constructs import Construct

from scanfleet.contract import (
    EVIDENCE_KEPT,
    EVIDENCE_PREFIX,
    LOGS_KEPT,
    LOGS_PREFIX,
    STAGING_KEPT,
    STAGING_PREFIX,
)

ABANDONED_UPLOADS_KEPT = timedelta(days=2)
"""Parts of an upload that nobody completed cost money and are invisible. Two days outlast any job."""
ACCESS_LOGS_KEPT = timedelta(days=90)
BROWSERS_REMEMBER = timedelta(hours=1)
"""How long a browser may upload without asking whether it may."""


class Buckets(Construct):
    """The data and the artifacts bucket, and the bucket that records who read and wrote them.

    All are versioned but the last, encrypted, closed to the public and to plain HTTP. By default they are
    retained with everything in them. Nothing empties a bucket on removal: that would need a custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        noncurrent_versions_kept: timedelta,
        console_origins: Sequence[str] = (),
        retain: bool = True,
        key: IKey | None = None,
    ) -> None:
        super().__init__(scope, construct_id)
        self._kept = noncurrent_versions_kept
        self._removal = RemovalPolicy.RETAIN if retain else RemovalPolicy.DESTROY
        self._key = key
        self.access_logs = self._make_access_logs()
        self.data = self._make("Data", rules=[], cors=_console_rules(console_origins))
        self.artifacts = self._make(
            "Artifacts",
            rules=[
                _expire("abandoned-results", prefix=STAGING_PREFIX, after=STAGING_KEPT),
                _expire("old-program-logs", prefix=LOGS_PREFIX, after=LOGS_KEPT),
                _expire("old-evidence", prefix=EVIDENCE_PREFIX, after=EVIDENCE_KEPT),
            ],
        )

    def _make(
        self, construct_id: str, *, rules: list[LifecycleRule], cors: list[CorsRule] | None = None
    ) -> Bucket:
        return Bucket(
            self,
            construct_id,
            versioned=True,
            encryption=BucketEncryption.KMS if self._key else BucketEncryption.S3_MANAGED,
            encryption_key=self._key,
            bucket_key_enabled=True if self._key else None,
            enforce_ssl=True,
            block_public_access=BlockPublicAccess.BLOCK_ALL,
            object_ownership=ObjectOwnership.BUCKET_OWNER_ENFORCED,
            server_access_logs_bucket=self.access_logs,
            server_access_logs_prefix=f"{construct_id.lower()}/",
            removal_policy=self._removal,
            cors=cors,
            lifecycle_rules=[
                LifecycleRule(
                    id="abandoned-uploads",
                    abort_incomplete_multipart_upload_after=_days(ABANDONED_UPLOADS_KEPT),
                ),
                LifecycleRule(id="old-versions", noncurrent_version_expiration=_days(self._kept)),
                *rules,
            ],
        )

    def _make_access_logs(self) -> Bucket:
        """Source: S3 user guide, "Enabling server access logging": the target may not use SSE-KMS."""
        bucket = Bucket(
            self,
            "AccessLogs",
            encryption=BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            block_public_access=BlockPublicAccess.BLOCK_ALL,
            object_ownership=ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal,
            lifecycle_rules=[_expire("old-access-logs", prefix="", after=ACCESS_LOGS_KEPT)],
        )
        Validations.of(bucket).acknowledge(
            Acknowledgment(
                id="AwsSolutions-S1",
                reason="The bucket that receives access logs would log its own deliveries.",
            )
        )
        return bucket

    def grant_read_write(self, grantee: IGrantable) -> None:
        """Let the grantee read and write objects of both buckets; it cannot change the buckets."""
        self.data.grant_read_write(grantee)
        self.artifacts.grant_read_write(grantee)


def _console_rules(origins: Sequence[str]) -> list[CorsRule] | None:
    """Return what pages of the console may do with a presigned URL: send a file, and read one for the viewer.

    Who may do it, the URL's signature says. Without origins no page may: downloads by a link need no rule.
    Source: S3 user guide, "Using cross-origin resource sharing (CORS)".
    """
    if not origins:
        return None
    return [
        CorsRule(
            id="console",
            allowed_origins=list(origins),
            allowed_methods=[HttpMethods.GET, HttpMethods.PUT],
            allowed_headers=["content-type"],
            max_age=int(BROWSERS_REMEMBER.total_seconds()),
        )
    ]


def _days(duration: timedelta) -> Duration:
    return Duration.days(duration.days)


def _expire(rule_id: str, *, prefix: str, after: timedelta) -> LifecycleRule:
    return LifecycleRule(id=rule_id, prefix=prefix or None, expiration=_days(after))
