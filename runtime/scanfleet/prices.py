"""What an hour of an instance costs with Windows, on demand; spot, Savings Plans and volumes do not count."""

from collections.abc import Mapping

from scanfleet.price_table import LINUX_US_EAST_1, REGION_FACTORS, WINDOWS_LICENCE_USD_PER_VCPU_HOUR


def windows_prices(region: str, *, own: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return instance type -> US dollars per hour in this region.

    A type or a region that the pinned table does not have is left out. `own`: the operator's prices, which
    replace or add to the table's. Example: windows_prices("us-east-1")["g4dn.xlarge"] -> 0.71.
    """
    prices = {}
    for kind, (linux, vcpus) in LINUX_US_EAST_1.items():
        factor = REGION_FACTORS[kind.partition(".")[0]].get(region)
        if factor is not None:
            prices[kind] = round(linux * factor + vcpus * WINDOWS_LICENCE_USD_PER_VCPU_HOUR, 4)
    return prices | dict(own or {})
