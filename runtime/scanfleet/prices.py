"""What an hour of an instance costs, on demand; spot, Savings Plans and volumes do not count."""

from collections.abc import Mapping
from dataclasses import dataclass

from scanfleet.attempts import Machine
from scanfleet.price_table import AS_OF, LINUX_US_EAST_1, REGION_FACTORS, WINDOWS_LICENCE_USD_PER_VCPU_HOUR


def windows_prices(region: str, *, own: Mapping[str, float] | None = None) -> dict[str, float]:
    """Return instance type -> US dollars per hour in this region.

    A type or a region that the pinned table does not have is left out. `own`: the operator's prices, which
    replace or add to the table's. Example: windows_prices("us-east-1")["g4dn.xlarge"] -> 0.71.
    """
    listed = {kind: list_price(kind, region, windows=True) for kind in LINUX_US_EAST_1}
    return {kind: price for kind, price in listed.items() if price is not None} | dict(own or {})


def list_price(kind: str, region: str, *, windows: bool) -> float | None:
    """Return the pinned table's US dollars per hour of an instance type; None when it has none."""
    if kind not in LINUX_US_EAST_1:
        return None
    linux, vcpus = LINUX_US_EAST_1[kind]
    factor = REGION_FACTORS[kind.partition(".")[0]].get(region)
    if factor is None:
        return None
    return round(linux * factor + (vcpus * WINDOWS_LICENCE_USD_PER_VCPU_HOUR if windows else 0.0), 4)


@dataclass(frozen=True)
class Price:
    """What an hour costs. as_of: the date of the list price; None: the operator's own."""

    hourly_usd: float
    as_of: str | None


def price_of(machine: Machine, own: Mapping[str, float]) -> Price | str:
    """Return the price of a machine, or a sentence that says why there is none."""
    kind = machine.instance_type
    if not kind:
        return "the machine is no EC2 instance"
    if kind in own:
        return Price(own[kind], None)
    listed = list_price(kind, machine.region, windows=machine.system == "windows")
    return f"there is no price of {kind} in {machine.region}" if listed is None else Price(listed, AS_OF)
