"""How much fits: what synthesizes, and what IAM or Lambda would then refuse to take."""

from typing import TYPE_CHECKING, Never

from cdk.config_readers import ConfigError

if TYPE_CHECKING:
    from cdk.config import DeploymentConfig

STATEMENTS_OF_A_PREFIX = 240
"""Characters that the API's role spends on a prefix besides its own text, which it has twice; machines' roles
spend less (cdk/api_function.py, cdk/fleet_role.py)."""
MOST_POLICY_OF_PREFIXES = 4200
"""Of the 10,240 that a role's inline policies may have together. Source: IAM user guide, "IAM and AWS STS
quotas". The CDK moves what it takes for too much into managed policies, but leaves out names and conditions
when it counts, so that those come out above their own limit of 6,144."""
KEYS_OF_A_TENANT = 40
"""Bytes of JSON around a tenant's lists."""
MOST_NAMES_FOR_THE_API = 2800
"""Of 4 KB for all environment variables of a function. Source: Lambda developer guide, "Lambda quotas"."""


def refuse_too_much(config: "DeploymentConfig") -> None:
    """Raise ConfigError for what IAM or Lambda would refuse in the middle of a deployment."""
    sizes = _sizes_of_names(config)
    if (needed := sum(sizes.values())) > MOST_NAMES_FOR_THE_API:
        field_name = max(sizes, key=lambda name: sizes[name])
        _refuse(
            field_name,
            f"{sizes[field_name]:,} bytes; with tenants, operators, prefixes and prices {needed:,}",
            f"at most {MOST_NAMES_FOR_THE_API:,} bytes: they reach the API's function as environment"
            " variables; name roles instead of users, give tenants a stage of their own, and prices only to"
            " types that are used",
        )
    prefixes = config.prefixes
    needed = sum(STATEMENTS_OF_A_PREFIX + 2 * len(prefix) for prefix in prefixes)
    if needed > MOST_POLICY_OF_PREFIXES:
        _refuse(
            "allowed_prefixes",
            f"{len(prefixes)} with those of tenants, {needed:,} characters of policy",
            f"at most {MOST_POLICY_OF_PREFIXES:,} characters, {STATEMENTS_OF_A_PREFIX} and twice its own"
            " length for each; name a folder above several, or give tenants a stage of their own",
        )


def _sizes_of_names(config: "DeploymentConfig") -> dict[str, int]:
    """Return how many bytes of the function's environment each setting takes, quotes and commas included."""
    tenants = config.tenants.items()
    texts = {
        "allowed_prefixes": config.allowed_prefixes,
        "api.operators": config.api.operators,
        "api.jwt_audience": config.api.jwt_audience,
        "hourly_prices_usd": [f"{name}: {price}" for name, price in config.hourly_prices_usd.items()],
        "tenants": [text for name, t in tenants for text in (name, *t.callers, *t.allowed_prefixes)],
    }
    sizes = {name: sum(len(text.encode()) + 3 for text in found) for name, found in texts.items()}
    sizes["tenants"] += KEYS_OF_A_TENANT * len(tenants)
    return sizes


def _refuse(field_name: str, got: str, allowed: str) -> Never:
    raise ConfigError(field_name=field_name, got=got, allowed=allowed)
