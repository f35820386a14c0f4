"""SEARCH expressions, evaluated here: by ListMetrics, which every CloudWatch has; the emulator has no SEARCH.

Only what our dashboards use: all dimensions in the schema, and terms Name="value" with or without NOT.
Source: CloudWatch user guide, "CloudWatch search expression syntax".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SEARCH = re.compile(
    r"SEARCH\('\{(?P<schema>[^{}]+)\} (?P<terms>[^']+)', '(?P<statistic>[^']+)', (?P<period>\d+)\)"
)
_TERM = re.compile(r'(?P<negated>NOT )?(?P<name>[A-Za-z]+)="(?P<value>[^"]+)"')


@dataclass(frozen=True)
class Search:
    """Metrics of one name that have exactly these dimensions, some with wanted or unwanted values."""

    namespace: str
    name: str
    dimensions: tuple[str, ...]
    wanted: Mapping[str, str]
    unwanted: frozenset[tuple[str, str]]
    statistic: str
    period: int

    def finds(self, dimensions: Mapping[str, str]) -> bool:
        """Return whether a metric of this name with these dimensions is found."""
        if set(dimensions) != set(self.dimensions):
            return False
        if any(dimensions[name] != value for name, value in self.wanted.items()):
            return False
        return not any(dimensions[name] == value for name, value in self.unwanted)

    def told_apart_by(self, dimensions: Mapping[str, str]) -> str:
        """Return the values of the dimensions that the search leaves open."""
        return " ".join(dimensions[name] for name in self.dimensions if name not in self.wanted)


def parse_search(expression: str) -> Search | None:
    """Return the search, or None for any other expression."""
    found = _SEARCH.fullmatch(expression)
    if found is None:
        return None
    terms = list(_TERM.finditer(found["terms"]))
    if " ".join(term[0] for term in terms) != found["terms"]:
        return None
    namespace, *dimensions = (part.strip('"') for part in found["schema"].split(","))
    wanted = {term["name"]: term["value"] for term in terms if not term["negated"]}
    name = wanted.pop("MetricName", None)
    if name is None:
        return None
    return Search(
        namespace=namespace,
        name=name,
        dimensions=tuple(dimensions),
        wanted=wanted,
        unwanted=frozenset((term["name"], term["value"]) for term in terms if term["negated"]),
        statistic=found["statistic"],
        period=int(found["period"]),
    )
