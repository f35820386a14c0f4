"""Choices that exclude each other: each rule names the field to change, and what to do instead."""

from ipaddress import ip_network
from typing import TYPE_CHECKING

from cdk.config_readers import ConfigError
from scanfleet.contract import Pool

if TYPE_CHECKING:
    from cdk.config import DeploymentConfig, PoolConfig


def refuse_conflicts(config: "DeploymentConfig") -> None:
    """Raise ConfigError for the first choice that cannot be had together with another."""
    if not config.retain_data and not config.is_local:
        _refuse(
            "retain_data",
            False,
            f"true: only the stage 'local' may destroy its data, this is {config.stage!r}",
        )
    _check_network(config)
    _check_api(config)
    for name, pool in config.pools.items():
        _check_pool(f"pools.{name}", pool)
    if Pool.LINUX_CPU in config.pools and not config.is_local:
        _refuse(
            f"pools.{Pool.LINUX_CPU}",
            "a fleet",
            f"leave it out: only the stage 'local' has machines for it; the reference processor then runs in"
            f" {Pool.WINDOWS_GPU}",
        )
    for index, schedule in enumerate(config.schedules):
        where = f"schedules.{index}"
        if schedule.pool not in config.pools:
            _refuse(f"{where}.pool", schedule.pool.value, "a pool of this deployment")
        if schedule.min_instances > schedule.max_instances:
            _refuse(f"{where}.min_instances", schedule.min_instances, "at most its max_instances")
    if config.medit.initial_version is not None and config.medit.release_bucket is None:
        _refuse(
            "medit.initial_version",
            config.medit.initial_version,
            "set medit.release_bucket too, or leave both out to run the reference processor",
        )
    _check_tenants(config)


def _check_network(config: "DeploymentConfig") -> None:
    network = config.network
    block = ip_network(network.vpc_cidr, strict=False)
    if str(block) != network.vpc_cidr:
        _refuse("network.vpc_cidr", network.vpc_cidr, f"the block's first address: {block}")
    if not 16 <= block.prefixlen <= 24:
        _refuse("network.vpc_cidr", network.vpc_cidr, "a block from /16 to /24")
    if network.vpc_id is None:
        for name in ("private_subnet_ids", "public_subnet_ids"):
            if getattr(network, name):
                _refuse(
                    f"network.{name}",
                    list(getattr(network, name)),
                    "set network.vpc_id too, or leave it out: a new VPC gets its own subnets",
                )
    else:
        if len(network.private_subnet_ids) < 2:
            _refuse(
                "network.private_subnet_ids",
                list(network.private_subnet_ids),
                "at least 2 private subnets of the existing VPC: the load balancer needs two zones",
            )
        if len(network.zones) != len(network.private_subnet_ids):
            _refuse(
                "network.zones",
                list(network.zones),
                "one zone for each of network.private_subnet_ids, in the same order",
            )
    if config.image.windows_updates and network.egress == "endpoints" and network.vpc_id is None:
        _refuse(
            "network.egress",
            "endpoints",
            "nat, or set image.windows_updates to false: Windows Update has no endpoint inside a VPC",
        )


def _check_api(config: "DeploymentConfig") -> None:
    api = config.api
    if api.auth == "jwt":
        if api.jwt_issuer is None:
            _refuse("api.jwt_issuer", None, "the issuer's https address, because api.auth is jwt")
        if not api.jwt_audience:
            _refuse("api.jwt_audience", [], "at least one audience, because api.auth is jwt")
    elif api.jwt_issuer is not None or api.jwt_audience:
        _refuse("api.auth", api.auth.value, "jwt, because api.jwt_issuer or api.jwt_audience is set")
    for index, cidr in enumerate(api.allowed_cidrs):
        block = ip_network(cidr, strict=False)
        if str(block) != cidr:
            _refuse(f"api.allowed_cidrs.{index}", cidr, f"the block's first address: {block}")
    if api.load_balancer != "internet-facing":
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
    if config.network.vpc_id is None and config.network.egress == "endpoints":
        _refuse(
            "network.egress",
            "endpoints",
            "nat, because api.load_balancer is internet-facing and needs public subnets",
        )


def _check_pool(where: str, pool: "PoolConfig") -> None:
    if pool.min_instances > pool.max_instances:
        _refuse(f"{where}.min_instances", pool.min_instances, f"at most max_instances ({pool.max_instances})")
    if pool.scale_to_zero and pool.min_instances > 0:
        _refuse(
            f"{where}.min_instances",
            pool.min_instances,
            "0, because scale_to_zero is true; or set scale_to_zero to false",
        )
    if not pool.scale_to_zero and pool.min_instances == 0:
        _refuse(f"{where}.min_instances", 0, "at least 1, because scale_to_zero is false; or set it to true")
    if pool.warm_instances > pool.max_instances:
        _refuse(
            f"{where}.warm_instances", pool.warm_instances, f"at most max_instances ({pool.max_instances})"
        )
    if pool.warm_instances and pool.spot_percent:
        _refuse(
            f"{where}.warm_instances",
            pool.warm_instances,
            "0, because spot_percent is set: a warm pool cannot hold spot instances; or spot_percent 0",
        )
    if pool.warm_instances and len(pool.instance_types) > 1:
        _refuse(
            f"{where}.instance_types",
            list(pool.instance_types),
            "one type, because warm_instances is set: a warm pool cannot have a mixed instances policy",
        )


def _check_tenants(config: "DeploymentConfig") -> None:
    seen: dict[str, str] = {}
    for name, tenant in config.tenants.items():
        for caller in tenant.callers:
            if caller in seen:
                _refuse(
                    f"tenants.{name}.callers",
                    caller,
                    f"each caller in one tenant; it is in {seen[caller]} too",
                )
            seen[caller] = name


def _refuse(field_name: str, got: object, allowed: str) -> None:
    raise ConfigError(field_name=field_name, got=got, allowed=allowed)
