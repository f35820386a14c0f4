"""The parts of a deployment's configuration, each with its settings, their defaults and what they may be."""

from dataclasses import dataclass
from enum import StrEnum

from cdk.config_cron import aws_cron, unix_cron
from cdk.config_readers import boolean, choice, cidr, list_of, optional, setting, slots, text, whole
from scanfleet.contract import Pool

_read_bucket = text(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "an S3 bucket's name")
read_prefix = text(
    # They are resources of policies, where "$" begins a variable, and elements of a list with commas.
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([!#%&'()+./0-9:;<=>@A-Z\[\]^_a-z{}~-]+/)?",
    's3://bucket/ or s3://bucket/folder/ in ASCII, without blanks and , * ? $ | " \\ `',
)
_read_schedule = aws_cron("an AWS cron expression of six fields such as cron(0 3 ? * SUN *)")
_read_version = text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 of letters, digits, '.', '_' and '-'")
_read_gpu_type = text(
    r"g4dn\.((2|4|8|12|16)?xlarge|metal)|g[56]\.(2|4|8|12|16|24|48)?xlarge|gr6\.[48]xlarge",
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

    vpc_cidr: str = setting(cidr, default="10.64.0.0/16")
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
    allowed_cidrs: tuple[str, ...] = setting(list_of(cidr), default=())
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
    jwt_audience: tuple[str, ...] = setting(list_of(text(r"[^\s,]+", "an audience")), default=())
    jwt_keys_url: str | None = setting(
        optional(text(r"https://\S{1,248}", "the https address of a JSON Web Key Set")), default=None
    )
    """Where the load balancer gets the issuer's keys; by default `<issuer>/.well-known/jwks.json`."""
    operators: tuple[str, ...] = setting(list_of(text(r"[^\s,]+", "an IAM ARN or a JWT subject")), default=())
    """Callers who see and may cancel every job: role or user ARNs (iam), subjects (jwt)."""
    console_origins: tuple[str, ...] = setting(
        list_of(
            text(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?", "an origin such as https://host")
        ),
        default=(),
    )
    """Where browsers see the console: its pages may send files to the data bucket and read them."""
    web_acl: bool = setting(boolean, default=False)
    """AWS WAF with AWS's common rules and a rate limit in front of the load balancer."""
    requests_per_second: int = setting(whole(1, 10_000), default=100)
    """The HTTP API's steady limit; bursts may reach twice as much."""
    live_events: bool = setting(boolean, default=True)
    """A WebSocket API that pushes changes of jobs, and its function; without it clients ask now and then."""
    reserved_concurrency: int = setting(whole(0, 1000), default=50)
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
    slots_per_instance: int = setting(slots, default=1)
    """0 ("auto"): machines and scaling follow the calibration of the instance type."""
    spot_percent: int = setting(whole(0, 100), default=0)
    """Share of spot instances above `min_instances`."""
    idle_minutes: int = setting(whole(0, 1440, "minutes"), default=0)
    """A machine without a job for so long ends itself; 0 leaves that to scale-in alone."""
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
    golden_prefix: str | None = setting(optional(read_prefix), default=None)
    """S3 folder of a golden scan set with `expected.json`; by default the generated sample."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """A scheduled change of a pool's bounds."""

    pool: Pool = setting(choice(Pool))
    at: str = setting(unix_cron("a Unix cron expression of five fields such as 0 7 * * MON-FRI"))
    time_zone: str = setting(
        text(r"[A-Za-z]+(/[A-Za-z0-9_+-]+)*", "an IANA time zone such as Europe/Berlin"), default="Etc/UTC"
    )
    min_instances: int = setting(whole(0, 500))
    max_instances: int = setting(whole(1, 500))


@dataclass(frozen=True, kw_only=True)
class TenantConfig:
    """Callers who share what they may read and write."""

    allowed_prefixes: tuple[str, ...] = setting(list_of(read_prefix, at_least=1))
    callers: tuple[str, ...] = setting(list_of(text(r"[^\s,]+", "an IAM ARN or a JWT subject"), at_least=1))
    """Role or user ARNs (iam), subjects (jwt)."""
