"""The Universal Scalability Law, fitted to throughputs.

    X(n) = rate * n / (1 + contention * (n - 1) + crosstalk * n * (n - 1))

Source: N. J. Gunther, "Guerrilla Capacity Planning" (Springer, 2007), chapters 4 and 5: `contention` is the
share of the work that waits in line, `crosstalk` the cost of each pair that gets in each other's way.

n / X(n) is linear in 1 / rate, contention / rate and crosstalk / rate, so least squares finds them without
a search. An error of a throughput is about a share of it; hence the weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt


@dataclass(frozen=True)
class ScalabilityFit:
    """The law's parameters. rate: jobs an hour with one slot."""

    rate: float
    contention: float
    crosstalk: float

    def throughput(self, slots: float) -> float:
        """Return jobs an hour."""
        waiting = self.contention * (slots - 1) + self.crosstalk * slots * (slots - 1)
        return self.rate * slots / (1 + waiting)

    @property
    def peak(self) -> float:
        """Return the slots beyond which throughput falls; infinite without crosstalk."""
        if self.crosstalk <= 0:
            return inf
        return sqrt(max(0.0, 1 - self.contention) / self.crosstalk)


def fit_scalability(throughputs: Mapping[int, float]) -> ScalabilityFit | None:
    """Return the law that fits best, its parameters not negative; None for fewer than three points.

    throughputs: slots -> jobs an hour, above zero.
    """
    if len(throughputs) < 3:
        return None
    rows = [(n, n / x) for n, x in sorted(throughputs.items())]
    # Rows are divided by what they should give: each residual is then a share of it.
    design = [(1 / y, (n - 1) / y, n * (n - 1) / y) for n, y in rows]
    best, least = None, inf
    for size in (3, 2, 1):
        for used in combinations(range(3), size):
            if 0 not in used:
                continue  # without a rate there is no law
            found = _least_squares([[row[i] for i in used] for row in design])
            if found is None or min(found) < 0:
                continue
            whole = [0.0, 0.0, 0.0]
            for i, value in zip(used, found, strict=True):
                whole[i] = value
            error = sum((sum(w * v for w, v in zip(whole, row, strict=True)) - 1) ** 2 for row in design)
            if error < least and whole[0] > 0:
                best, least = whole, error
    if best is None:
        return None
    return ScalabilityFit(rate=1 / best[0], contention=best[1] / best[0], crosstalk=best[2] / best[0])


def _least_squares(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Return x with the least sum of (row * x - 1)^2; None when the normal equations are singular."""
    size = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)]
        for i in range(size)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(matrix[i][column]))
        if abs(matrix[pivot][column]) < 1e-12:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        for i in range(size):
            if i != column:
                share = matrix[i][column] / matrix[column][column]
                matrix[i] = [a - share * b for a, b in zip(matrix[i], matrix[column], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]
