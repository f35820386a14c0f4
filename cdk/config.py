"""What one deployment looks like: read from the CDK context, typed, and checked before anything is built.

    cdk.json -> context -> "scanfleet": {"defaults": {...}, "stages": {"dev": {...}, ...}}

A stage's values replace the defaults'; objects are merged key by key, lists are replaced whole. `-c
stage=NAME` picks the stage. docs/configuration.md lists every setting; config_conflicts.py holds the rules
that span several.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType

from cdk.config_conflicts import refuse_conflicts
from cdk.config_readers import (
    ConfigError,
    Refused,
    boolean,
    choice,
    did_you_mean,
    list_of,
    nested,
    object_of,
    one_from,
    one_of,
    optional,
    read_object,
    setting,
    tags,
    text,
    whole,
)
from scanfleet.contract import PRODUCT, Pool

__all__ = ["ConfigError", "DeploymentConfig", "read_config"]

LOCAL_STAGE = "local"
"""The stage of the local mode: an emulator with a made-up account, whose data may be destroyed."""

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557)
"""Source: CloudWatch Logs API reference, PutRetentionPolicy (those up to 7 years)."""

_read_name = text(r"[a-z][a-z0-9-]{0,31}", "a lower-case letter, then up to 31 of a-z, 0-9 and -")
_read_bucket = text(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "an S3 bucket's name")
_read_prefix = text(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^,\s*?]+/)?", "s3://bucket/ or s3://bucket/folder/"
)
_read_cidr = text(
    r"((25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(25[0-5]|2[0-4]\d|1?\d?\d)/(3[0-2]|[12]?\d)",
    "an IPv4 CIDR block such as 10.0.0.0/16",
)
_read_schedule = text(
    r"cron\(\S+( \S+){5}\)", "an AWS cron expression of six fields such as cron(0 3 ? * SUN *)"
)
_read_version = text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 of letters, digits, '.', '_' and '-'")
_read_gpu_type = text(
    r"(g4dn|g5|g6|gr6)\.(\d*xlarge|metal)",
    "an x86 instance type with NVIDIA GPU and NVMe such as g4dn.xlarge",
)


class Egress(StrEnum):
    """How machines without public addresses reach AWS."""

    NAT = "nat"
    """One NAT gateway, and free gateway endpoints for S3 and DynamoDB."""
    ENDPOINTS = "endpoints"
    """No way out: an interface endpoint for each AWS service that is used."""


class Scheme(StrEnum):
    """Where the load balancer answers."""

    INTERNAL = "internal"
    INTERNET_FACING = "internet-facing"


class AuthMode(StrEnum):
    """Who may call the HTTP API."""

    IAM = "iam"
    """AWS principals, by SigV4."""
    JWT = "jwt"
    """Bearer tokens of an OpenID Connect issuer."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A VPC of its own, or an existing one by id, with its subnets named here: nothing is looked up."""

    vpc_cidr: str = setting(_read_cidr, default="10.64.0.0/16")
    """Address range of the new VPC; of the existing one when `vpc_id` is set."""
    availability_zones: int = setting(whole(2, 3), default=2)
    """How many of the region's first zones a new VPC spans, unless `zones` names them."""
    zones: tuple[str, ...] = setting(
        list_of(text(r"[a-z]{2}(-[a-z]+)+-\d[a-z]", "a zone such as eu-central-1a"), repeats=True), default=()
    )
    """Of a new VPC: zones that have the instance types. Of an existing one: those of its private subnets, in
    the same order."""
    egress: Egress = setting(choice(Egress), default=Egress.NAT)
    """Of a new VPC; an existing one keeps its own routes and endpoints."""
    nat_gateways: int = setting(whole(1, 3), default=1)
    """Of a new VPC with `egress` nat: one costs least; one for each zone outlives the loss of a zone."""
    close_default_security_group: bool = setting(boolean, default=True)
    """Of a new VPC: remove the rules that AWS gives its default security group, by a custom resource. Nothing
    here uses that group."""
    vpc_id: str | None = setting(optional(text(r"vpc-[0-9a-f]{8,17}", "vpc- and hex digits")), default=None)
    private_subnet_ids: tuple[str, ...] = setting(
        list_of(text(r"subnet-[0-9a-f]{8,17}", "subnet- and hex digits")), default=()
    )
    public_subnet_ids: tuple[str, ...] = setting(
        list_of(text(r"subnet-[0-9a-f]{8,17}", "subnet- and hex digits")), default=()
    )
    """Of an existing VPC; needed for an internet-facing load balancer only."""


@dataclass(frozen=True, kw_only=True)
class ApiConfig:
    """The doors: a load balancer in the network, and an HTTP API for callers with AWS or JWT identities."""

    load_balancer: Scheme = setting(choice(Scheme), default=Scheme.INTERNAL)
    allowed_cidrs: tuple[str, ...] = setting(list_of(_read_cidr), default=())
    """Who may reach the load balancer; by default the VPC's own addresses."""
    certificate_arn: str | None = setting(
        optional(
            text(
                r"arn:aws(-[a-z]+)*:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]{36}",
                "the ARN of an ACM certificate",
            )
        ),
        default=None,
    )
    """TLS on the load balancer; without it, plain HTTP inside the network."""
    auth: AuthMode = setting(choice(AuthMode), default=AuthMode.IAM)
    jwt_issuer: str | None = setting(optional(text(r"https://\S+[^/\s]", "https://issuer")), default=None)
    jwt_audience: tuple[str, ...] = setting(list_of(text(r"\S+", "an audience")), default=())
    operators: tuple[str, ...] = setting(list_of(text(r"[^\s,]+", "an IAM ARN or a JWT subject")), default=())
    """Callers who see and may cancel every job: role or user ARNs (iam), subjects (jwt)."""
    web_acl: bool = setting(boolean, default=False)
    """AWS WAF with AWS's common rules and a rate limit in front of the load balancer."""
    requests_per_second: int = setting(whole(1, 10_000), default=100)
    """The HTTP API's steady limit; bursts may reach twice as much."""
    reserved_concurrency: int = setting(whole(1, 1000), default=50)
    """Requests that run at once, over both doors."""


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """One fleet."""

    instance_types: tuple[str, ...] = setting(list_of(_read_gpu_type, at_least=1), default=("g4dn.xlarge",))
    """In order of preference; the first is the one that images are tested on."""
    scale_to_zero: bool = setting(boolean, default=True)
    min_instances: int = setting(whole(0, 500), default=0)
    max_instances: int = setting(whole(1, 500), default=4)
    warm_instances: int = setting(whole(0, 500), default=0)
    """Stopped, prepared instances: they start in a fraction of a boot, and cost their volumes meanwhile."""
    slots_per_instance: int = setting(whole(1, 64), default=1)
    spot_percent: int = setting(whole(0, 100), default=0)
    """Share of spot instances above `min_instances`."""
    root_volume_gib: int = setting(whole(50, 16_384, "GiB"), default=100)
    root_volume_throughput_mibps: int = setting(whole(125, 1000, "MiB/s"), default=250)
    scratch_volume_gib: int = setting(whole(0, 16_384, "GiB"), default=0)
    """An EBS volume for workspaces; 0 uses the instance's own NVMe disk, which is free and faster."""


@dataclass(frozen=True, kw_only=True)
class MeditConfig:
    """The closed program. Without a release bucket the fleet runs the reference processor."""

    release_bucket: str | None = setting(optional(_read_bucket), default=None)
    """Existing bucket with `releases/<version>/manifest.json`."""
    initial_version: str | None = setting(optional(_read_version), default=None)
    """Seeds the active version; from then on `scanfleet release activate` sets it."""


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The machine image's pipeline."""

    schedule: str = setting(_read_schedule, default="cron(0 3 ? * SUN *)")
    """When an image is built without being asked: for Windows' updates."""
    windows_updates: bool = setting(boolean, default=True)
    kept_images: int = setting(whole(1, 100), default=3)
    """Older images and their snapshots are deleted."""
    fast_launch: bool = setting(boolean, default=True)
    """Windows Fast Launch: prepared snapshots, which cost storage, and faster boots."""
    golden_seconds_at_most: int = setting(whole(30, 7200, "seconds"), default=900)
    """The test phase fails an image that takes longer for the golden scan set."""
    golden_prefix: str | None = setting(optional(_read_prefix), default=None)
    """S3 folder of a golden scan set with `expected.json`; by default the generated sample."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A scheduled change of a pool's bounds."""

    pool: Pool = setting(choice(Pool))
    at: str = setting(text(r"\S+( \S+){4}", "a Unix cron expression of five fields such as 0 7 * * MON-FRI"))
    """Source: EC2 Auto Scaling guide, "Scheduled scaling": five fields."""
    time_zone: str = setting(text(r"[A-Za-z]+(/[A-Za-z_+-]+)*", "an IANA time zone"), default="Etc/UTC")
    min_instances: int = setting(whole(0, 500))
    max_instances: int = setting(whole(1, 500))


@dataclass(frozen=True, kw_only=True)
class TenantConfig:
    """Callers who share what they may read and write."""

    allowed_prefixes: tuple[str, ...] = setting(list_of(_read_prefix, at_least=1))
    callers: tuple[str, ...] = setting(list_of(text(r"[^\s,]+", "an IAM ARN or a JWT subject"), at_least=1))
    """Role or user ARNs (iam), subjects (jwt)."""


@dataclass(frozen=True, kw_only=True)
class DeploymentConfig:
    """The facts of one deployment. `read_config` makes it; every value in it has been checked."""

    stage: str = setting(
        text(r"[a-z][a-z0-9-]{0,15}", "a lower-case letter, then up to 15 of a-z, 0-9 and -")
    )
    """Name of the deployment: part of stack and parameter names, and a tag."""
    region: str = setting(text(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as eu-central-1"))
    account: str | None = setting(optional(text(r"\d{12}", "12 digits, or left out")), default=None)
    """Unset: the account of whoever deploys. Synth never asks for it."""
    network: NetworkConfig = setting(nested(NetworkConfig), default=NetworkConfig())
    api: ApiConfig = setting(nested(ApiConfig), default=ApiConfig())
    pools: Mapping[Pool, PoolConfig] = setting(
        object_of(choice(Pool), nested(PoolConfig), at_least=1),
        default_factory=lambda: MappingProxyType({Pool.WINDOWS_GPU: PoolConfig()}),
    )
    """Each pool gets its queues, its fleet and its scaling; linux-cpu is served in the local stage only."""
    medit: MeditConfig = setting(nested(MeditConfig), default=MeditConfig())
    image: ImageConfig = setting(nested(ImageConfig), default=ImageConfig())
    schedules: tuple[ScheduleConfig, ...] = setting(list_of(nested(ScheduleConfig)), default=())
    allowed_prefixes: tuple[str, ...] = setting(list_of(_read_prefix), default=())
    """Where every caller's jobs may read and write besides the data bucket, which they always may."""
    tenants: Mapping[str, TenantConfig] = setting(
        object_of(_read_name, nested(TenantConfig)), default_factory=dict
    )
    """Prefixes that only these callers' jobs may read and write."""
    alarm_email: str | None = setting(
        optional(text(r"[^@\s]+@[^@\s]+\.[^@\s]+", "an e-mail address")), default=None
    )
    log_retention_days: int = setting(one_from(LOG_RETENTION_DAYS), default=90)
    monthly_budget_usd: int | None = setting(optional(whole(1, 10_000_000, "US dollars")), default=None)
    """Alarms at 80 % and 100 % of it, and when the forecast exceeds it. Counts what has the stage's tag."""
    retain_data: bool = setting(boolean, default=True)
    """Table and buckets outlive their stack and refuse deletion. Only the local stage may switch it off."""
    customer_managed_key: bool = setting(boolean, default=False)
    """Table and buckets use a KMS key of this deployment; by default keys that AWS owns."""
    noncurrent_versions_kept_days: int = setting(whole(1, 3650, "days"), default=30)
    """An overwritten or deleted object can be restored this long."""
    tags: Mapping[str, str] = setting(tags, default_factory=dict)
    """Tags on every resource, besides scanfleet:stage."""

    @property
    def is_local(self) -> bool:
        """Return whether this is the emulator's stage."""
        return self.stage == LOCAL_STAGE

    @property
    def reference_pool(self) -> Pool:
        """Return the pool that runs the reference processor."""
        return Pool.LINUX_CPU if Pool.LINUX_CPU in self.pools else Pool.WINDOWS_GPU

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Return every prefix besides the data bucket that some caller's jobs may read and write."""
        own = (p for tenant in self.tenants.values() for p in tenant.allowed_prefixes)
        return tuple(dict.fromkeys((*self.allowed_prefixes, *own)))


def read_config(*, stage: object, context: object) -> DeploymentConfig:
    """Return the checked configuration of one stage.

    `context` is what cdk.json holds under "scanfleet". Raises ConfigError.
    """
    tree = _mapping(PRODUCT, context)
    _refuse_unknown(tree, known=("defaults", "stages"), where=PRODUCT)
    defaults = _mapping(f"{PRODUCT}.defaults", tree.get("defaults", {}))
    stages = _mapping(f"{PRODUCT}.stages", tree.get("stages", {}))
    if not isinstance(stage, str) or stage not in stages:
        raise ConfigError(field_name="stage", got=stage, allowed=one_of(stages))
    own = _mapping(f"{PRODUCT}.stages.{stage}", stages[stage])
    known = [f.name for f in fields(DeploymentConfig) if f.name != "stage"]
    _refuse_unknown(defaults, known=known, where=f"{PRODUCT}.defaults")
    _refuse_unknown(own, known=known, where=f"{PRODUCT}.stages.{stage}")
    try:
        config = read_object(DeploymentConfig, {**_merged(defaults, own), "stage": stage})
    except Refused as refused:
        raise ConfigError(field_name=".".join(refused.path), got=refused.got, allowed=str(refused)) from None
    refuse_conflicts(config)
    return config


def _merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    result = dict(base)
    for name, value in over.items():
        under = result.get(name)
        both = isinstance(under, Mapping) and isinstance(value, Mapping)
        result[name] = _merged(under, value) if both else value  # type: ignore[arg-type]
    return result


def _mapping(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(field_name=name, got=value, allowed="an object")
    return value


def _refuse_unknown(values: Mapping[str, object], *, known: tuple[str, ...] | list[str], where: str) -> None:
    for name in values:
        if name not in known:
            raise ConfigError(
                field_name=f"{where}.{name}", got=name, allowed=one_of(known) + did_you_mean(name, known)
            )
