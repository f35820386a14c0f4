"""All seeded faults, and their table in docs/infrastructure-tests.md."""

from collections.abc import Iterable

from tests.support import (
    mutations_api,
    mutations_boot,
    mutations_fleet,
    mutations_image,
    mutations_monitoring,
    mutations_state,
)
from tests.support.checks import CHECKS, demands
from tests.support.mutations import Mutation

MUTATIONS: tuple[Mutation, ...] = (
    *mutations_state.MUTATIONS,
    *mutations_fleet.MUTATIONS,
    *mutations_image.MUTATIONS,
    *mutations_api.MUTATIONS,
    *mutations_monitoring.MUTATIONS,
    *mutations_boot.MUTATIONS,
)


def tables() -> str:
    """Return the generated part of the page: the checks, then each fault with its check."""
    checks = _table(("Check", "What it demands"), ((f"`{name}`", demands(name)) for name in CHECKS))
    faults = _table(
        ("Fault", "Seeded in", "Check that sees it"),
        ((m.fault, f"`{m.where}`", f"`{m.caught_by}`") for m in MUTATIONS),
    )
    return f"### The checks\n\n{checks}\n### The faults\n\n{faults}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
