"""Choices that exclude each other: each rule names the field to change, and what to do instead."""

from ipaddress import ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Never

from cdk.config_readers import ConfigError
from cdk.config_sizes import refuse_too_much
from scanfleet.contract import Pool

if TYPE_CHECKING:
    from cdk.config import DeploymentConfig
    from cdk.config_sections import NetworkConfig, PoolConfig


def refuse_conflicts(config: "DeploymentConfig") -> None:
    """Raise ConfigError for the first choice that cannot be had together with another."""
    if not config.retain_data and not config.is_local:
        _refuse(
            "retain_data",
            False,
            f"true: only the stage 'local' may destroy its data, this is {config.stage!r}",
        )
    _check_network(config)
    _check_callers(config)
    _check_load_balancer(config)
    for name, pool in config.pools.items():
        _check_pool(f"pools.{name}", pool)
    _check_what_runs_where(config)
    _check_schedules(config)
    _check_tenants(config)
    refuse_too_much(config)


# --- The network -------------------------------------------------------------------------------------------


def _check_network(config: "DeploymentConfig") -> None:
    network = config.network
    if not 16 <= ip_network(network.vpc_cidr).prefixlen <= 24:
        _refuse("network.vpc_cidr", network.vpc_cidr, "a block from /16 to /24")
    for index, zone in enumerate(network.zones):
        if zone[:-1] != config.region:
            _refuse(f"network.zones.{index}", zone, f"a zone of the region {config.region}")
    if network.vpc_id is None:
        _check_new_vpc(config)
    else:
        _check_existing_vpc(network)


def _check_new_vpc(config: "DeploymentConfig") -> None:
    network = config.network
    for name in ("private_subnet_ids", "public_subnet_ids"):
        if subnets := getattr(network, name):
            _refuse(
                f"network.{name}",
                list(subnets),
                "set network.vpc_id too, or leave it out: a new VPC gets its own subnets",
            )
    if network.zones and not 2 <= len(set(network.zones)) == len(network.zones) <= 3:
        _refuse("network.zones", list(network.zones), "2 or 3 zones, each once; or none: the region's first")
    zones = len(network.zones) or network.availability_zones
    if network.nat_gateways > zones:
        _refuse("network.nat_gateways", network.nat_gateways, f"at most one for each of {zones} zones")
    if network.egress != "endpoints":
        return
    if config.image.windows_updates:
        _refuse(
            "network.egress",
            "endpoints",
            "nat, or set image.windows_updates to false: Windows Update has no endpoint inside a VPC",
        )
    if config.api.load_balancer == "internet-facing":
        _refuse(
            "network.egress",
            "endpoints",
            "nat, because api.load_balancer is internet-facing and needs public subnets",
        )
    if config.api.auth == "jwt":
        _refuse(
            "network.egress",
            "endpoints",
            "nat, because api.auth is jwt: the load balancer gets the issuer's keys over the internet",
        )


def _check_existing_vpc(network: "NetworkConfig") -> None:
    if len(network.private_subnet_ids) < 2:
        _refuse(
            "network.private_subnet_ids",
            list(network.private_subnet_ids),
            "at least 2 private subnets of the existing VPC: the load balancer needs two zones",
        )
    if len(network.zones) != len(network.private_subnet_ids) or len(set(network.zones)) < 2:
        _refuse(
            "network.zones",
            list(network.zones),
            "one zone for each of network.private_subnet_ids, in the same order, two different ones at least",
        )
    if both := set(network.private_subnet_ids) & set(network.public_subnet_ids):
        _refuse("network.public_subnet_ids", min(both), "subnets that are not private_subnet_ids, too")


# --- The doors ---------------------------------------------------------------------------------------------


def _check_callers(config: "DeploymentConfig") -> None:
    api = config.api
    if api.auth == "jwt":
        if api.jwt_issuer is None:
            _refuse("api.jwt_issuer", None, "the issuer's https address, because api.auth is jwt")
        if not api.jwt_audience:
            _refuse("api.jwt_audience", [], "at least one audience, because api.auth is jwt")
        return
    if api.jwt_issuer is not None or api.jwt_audience or api.jwt_keys_url is not None:
        _refuse("api.auth", api.auth.value, "jwt, because a setting api.jwt_... is set")
    named = [(f"api.operators.{n}", caller) for n, caller in enumerate(api.operators)]
    for name, tenant in config.tenants.items():
        named += [(f"tenants.{name}.callers.{n}", caller) for n, caller in enumerate(tenant.callers)]
    for where, caller in named:
        if not caller.startswith("arn:"):
            _refuse(where, caller, "the ARN of a role or user, because api.auth is iam")


def _check_load_balancer(config: "DeploymentConfig") -> None:
    api = config.api
    if api.certificate_arn is not None and api.certificate_arn.split(":")[3] != config.region:
        _refuse("api.certificate_arn", api.certificate_arn, f"a certificate in the region {config.region}")
    if api.load_balancer != "internet-facing":
        if api.auth == "jwt" and api.certificate_arn is None:
            _refuse(
                "api.certificate_arn",
                None,
                "a certificate, because api.auth is jwt: the load balancer checks tokens over TLS only",
            )
        return
    if api.certificate_arn is None:
        _refuse(
            "api.certificate_arn",
            None,
            "a certificate, because api.load_balancer is internet-facing; or make it internal",
        )
    if api.auth != "jwt":
        _refuse(
            "api.auth",
            api.auth.value,
            "jwt, because api.load_balancer is internet-facing and a load balancer cannot check IAM"
            " signatures; or make it internal",
        )
    if not api.allowed_cidrs:
        _refuse("api.allowed_cidrs", [], "who may reach it, because api.load_balancer is internet-facing")
    if config.network.vpc_id is not None and len(config.network.public_subnet_ids) < 2:
        _refuse(
            "network.public_subnet_ids",
            list(config.network.public_subnet_ids),
            "at least 2, because api.load_balancer is internet-facing",
        )


# --- The fleets --------------------------------------------------------------------------------------------


def _check_pool(where: str, pool: "PoolConfig") -> None:
    low, high, warm = pool.min_instances, pool.max_instances, pool.warm_instances
    if low > high:
        _refuse(f"{where}.min_instances", low, f"at most max_instances ({high})")
    if pool.scale_to_zero and low > 0:
        _refuse(
            f"{where}.min_instances", low, "0, because scale_to_zero is true; or set scale_to_zero to false"
        )
    if not pool.scale_to_zero and low == 0:
        _refuse(f"{where}.min_instances", 0, "at least 1, because scale_to_zero is false; or set it to true")
    if warm > high:
        _refuse(f"{where}.warm_instances", warm, f"at most max_instances ({high})")
    if warm and pool.spot_percent:
        _refuse(
            f"{where}.warm_instances",
            warm,
            "0, because spot_percent is set: a warm pool cannot hold spot instances; or spot_percent 0",
        )
    if warm and len(pool.instance_types) > 1:
        _refuse(
            f"{where}.instance_types",
            list(pool.instance_types),
            "one type, because warm_instances is set: a warm pool cannot have a mixed instances policy",
        )


def _check_what_runs_where(config: "DeploymentConfig") -> None:
    if Pool.LINUX_CPU in config.pools and not config.is_local:
        _refuse(
            f"pools.{Pool.LINUX_CPU}",
            "a fleet",
            f"leave it out: only the stage 'local' has machines for it; the reference processor then runs in"
            f" {Pool.WINDOWS_GPU}",
        )
    medit = config.medit
    if medit.initial_version is not None and medit.release_bucket is None:
        _refuse(
            "medit.initial_version",
            medit.initial_version,
            "set medit.release_bucket too, or leave both out to run the reference processor",
        )


def _check_schedules(config: "DeploymentConfig") -> None:
    for index, schedule in enumerate(config.schedules):
        where = f"schedules.{index}"
        if schedule.pool not in config.pools:
            _refuse(f"{where}.pool", schedule.pool.value, "a pool of this deployment")
        if schedule.min_instances > schedule.max_instances:
            _refuse(f"{where}.min_instances", schedule.min_instances, "at most its max_instances")
    for (first, one), (second, other) in combinations(enumerate(config.schedules), 2):
        if (one.pool, one.at, one.time_zone) == (other.pool, other.at, other.time_zone):
            _refuse(f"schedules.{second}.at", other.at, f"another time than schedules.{first} of this pool")


# --- Tenants -----------------------------------------------------------------------------------------------


def _check_tenants(config: "DeploymentConfig") -> None:
    """Keep tenants apart: a folder inside another's folder would be read by both."""
    seen: dict[str, str] = {}
    for name, tenant in config.tenants.items():
        for caller in tenant.callers:
            if caller in seen:
                _refuse(
                    f"tenants.{name}.callers", caller, f"one tenant a caller; it is in {seen[caller]} too"
                )
            seen[caller] = name
    owned = [("every caller", prefix) for prefix in config.allowed_prefixes]
    for name, tenant in config.tenants.items():
        for prefix in tenant.allowed_prefixes:
            for owner, other in owned:
                if owner != name and (prefix.startswith(other) or other.startswith(prefix)):
                    where = f"tenants.{name}.allowed_prefixes"
                    _refuse(where, prefix, f"folders of this tenant alone; {owner} may use {other}")
            owned.append((name, prefix))


def _refuse(field_name: str, got: object, allowed: str) -> Never:
    raise ConfigError(field_name=field_name, got=got, allowed=allowed)
