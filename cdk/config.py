"""What one deployment looks like: read from the CDK context, typed, and checked before anything is built.

    cdk.json -> context -> "scanfleet": {"defaults": {...}, "stages": {"dev": {...}, ...}}

A stage's values replace the defaults'; objects are merged key by key, lists are replaced whole. `-c
stage=NAME` picks the stage. docs/configuration.md lists every setting; config_conflicts.py holds the rules
that span several.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

from aws_cdk.region_info import RegionInfo

from cdk.config_conflicts import refuse_conflicts
from cdk.config_readers import (
    ConfigError,
    Refused,
    amount,
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
from cdk.config_sections import (
    ApiConfig,
    AuthMode,
    Egress,
    ImageConfig,
    MeditConfig,
    NetworkConfig,
    PoolConfig,
    ScheduleConfig,
    Scheme,
    TenantConfig,
    read_prefix,
)
from scanfleet.contract import PRODUCT, Pool

__all__ = [
    "ApiConfig",
    "AuthMode",
    "ConfigError",
    "DeploymentConfig",
    "Egress",
    "ImageConfig",
    "MeditConfig",
    "NetworkConfig",
    "PoolConfig",
    "ScheduleConfig",
    "Scheme",
    "TenantConfig",
    "read_config",
]

LOCAL_STAGE = "local"
"""The stage of the local mode: an emulator with a made-up account, whose data may be destroyed."""

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557)
"""Source: CloudWatch Logs API reference, PutRetentionPolicy (those up to 7 years)."""

_read_region_name = text(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as eu-central-1")


def _read_region(value: object) -> str:
    """Read a region that the pinned CDK knows, of the partition `aws`: others lack some of the services."""
    name = _read_region_name(value)
    known = [region.name for region in RegionInfo.regions if region.partition == "aws"]
    if name not in known:
        raise Refused("a region of AWS, China and government clouds aside" + did_you_mean(name, known))
    return name


_read_name = text(r"[a-z][a-z0-9-]{0,31}", "a lower-case letter, then up to 31 of a-z, 0-9 and -")


@dataclass(frozen=True, kw_only=True)
class DeploymentConfig:
    """The facts of one deployment. `read_config` makes it; every value in it has been checked."""

    stage: str = setting(
        text(r"[a-z][a-z0-9-]{0,15}", "a lower-case letter, then up to 15 of a-z, 0-9 and -")
    )
    """Name of the deployment: part of stack and parameter names, and a tag."""
    region: str = setting(_read_region)
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
    allowed_prefixes: tuple[str, ...] = setting(list_of(read_prefix), default=())
    """Where every caller's jobs may read and write besides the caller's own folder of the data bucket."""
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
    hourly_prices_usd: Mapping[str, float] = setting(
        object_of(
            text(r"[a-z0-9-]+\.[a-z0-9]+", "an instance type such as g4dn.xlarge"),
            amount(0.001, 1000, "US dollars"),
        ),
        default_factory=dict,
    )
    """What an hour of an instance type costs you, instead of its list price: for FleetCostPerHour, and for
    receipts."""
    retain_data: bool = setting(boolean, default=True)
    """Table and buckets outlive their stack and refuse deletion. Only the local stage may switch it off."""
    customer_managed_key: bool = setting(boolean, default=False)
    """Table and buckets use a KMS key of this deployment; by default AWS's own keys."""
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
