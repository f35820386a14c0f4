"""What `variance.py` found, in sentences for people."""

from collections.abc import Iterator

from scanfleet.variance import FEWEST_RUNS, Explained, Variance

NAMES = {
    "machine": "the machine",
    "instance_type": "the instance type",
    "ami": "the machine image",
    "driver": "the GPU's driver",
    "release": "the program's release",
    "settings": "the jobs' settings",
    "neighbours": "the number of jobs beside it on its machine",
}
SLOW = 1.25
"""A machine that takes so many times as long as all is worth a word of its own."""


def sentences(found: Variance | None, *, runs: int) -> tuple[str, ...]:
    """Return what the figures mean. runs: how many there were to look at."""
    if found is None:
        return (f"There are {runs} runs to look at; below {FEWEST_RUNS} nothing can be told from chance.",)
    return tuple(_sentences(found))


def _sentences(found: Variance) -> Iterator[str]:
    yield (
        f"Of {found.runs} runs, their inputs' size taken into account, eight in ten lie within a factor of"
        f" {found.spread:.2f}."
    )
    against = found.against_predictions
    if against is not None:
        yield (
            f"Of {against.runs} runs with a prediction, {against.held:.0%} ended within its range (80 %"
            f" should); half of them took more than {against.ratio:.2f} times what was predicted."
        )
    for one in found.explained:
        yield _sentence(one)
    if not found.explained:
        yield _nothing(found)
    elif found.unexplained >= 0.01:
        yield (
            f"{found.unexplained:.0%} of the spread is left when that is taken out (a factor of"
            f" {found.unexplained_spread:.2f}): what the inputs hold, and chance."
        )
    unnamed = all(one.factor != "machine" for one in found.explained)
    slow = [machine for machine in found.worst_machines if machine.ratio >= SLOW]
    if unnamed and slow:
        worst = slow[0]
        yield (
            f"The slowest machine is {worst.name}: {worst.ratio:.2f} times as long as all, in {worst.runs}"
            " runs; that may be chance."
        )


def _sentence(one: Explained) -> str:
    first, last = one.groups[0], one.groups[-1]
    name = NAMES[one.factor]
    slow, quick = f"{first.ratio:.2f} times as long as all", f"{last.ratio:.2f} times"
    return (
        f"{name[0].upper()}{name[1:]} explains {one.share:.0%} of the spread: with {first.name} runs take"
        f" {slow} ({first.runs} runs), with {last.name} {quick} ({last.runs} runs)."
    )


def _nothing(found: Variance) -> str:
    if not found.looked_at:
        return "All of them ran alike (one machine, one release, the same settings): nothing to compare."
    looked_at = ", ".join(NAMES[name] for name in found.looked_at)
    return f"None of these explains more of the spread than chance would: {looked_at}."
