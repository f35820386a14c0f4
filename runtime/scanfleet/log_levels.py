"""Log levels set from outside: rules with an expiry, for a component, one machine or one job.

They are kept as one JSON document in an SSM parameter (log_levels_store.py), which every process looks at
(log_levels_keeper.py):

    {"rules": [{"job": "01J...", "level": "DEBUG", "until": 1800003600, "at": 1800000000.123}]}

A machine's rule goes before its component's, a job's before both. A rule that was taken back stays, without a
level, until it would have expired: so two documents can be merged, whoever wrote which of them first.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from scanfleet.contract import Component

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
COMPONENTS = tuple(sorted(set(Component) - {Component.JOBS, Component.PROCESSOR, Component.USERDATA}))
"""Those that are processes of ours, and stay long enough to be told."""


class Scope(StrEnum):
    """What a rule is about."""

    COMPONENT = "component"
    MACHINE = "machine"
    """An agent, by its id; in a fleet that is the instance's."""
    JOB = "job"
    """Every line of one job's attempts and requests, and no other."""


@dataclass(frozen=True)
class Rule:
    """From which level up lines are written. until, at: epoch seconds. level None: taken back."""

    scope: Scope
    name: str
    level: str | None
    until: float
    at: float
    """When it was set: of two rules about the same, the later one holds."""

    @property
    def target(self) -> tuple[Scope, str]:
        """Return what it is about."""
        return self.scope, self.name


@dataclass(frozen=True)
class Levels:
    """What holds for one process. own None: as it was started. expires: the next change by itself."""

    own: str | None
    jobs: Mapping[str, str]
    expires: float | None


def parse(document: str) -> tuple[Rule, ...]:
    """Return a document's rules. Raises ValueError for what is no document of ours."""
    try:
        return tuple(_rule(found) for found in json.loads(document)["rules"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not rules of log levels: {error!r}") from error


def dump(rules: Iterable[Rule]) -> str:
    """Return the document, as short as it can be."""
    listed: list[dict[str, Any]] = []
    for rule in rules:
        about = {rule.scope.value: rule.name} | ({"level": rule.level} if rule.level else {})
        listed.append(about | {"until": round(rule.until), "at": round(rule.at, 3)})
    return json.dumps({"rules": listed}, separators=(",", ":"))


def merge(*documents: Iterable[Rule], now: float) -> tuple[Rule, ...]:
    """Return the rules of all documents: of those about the same the latest, without those that are over.

    It does not matter in which order, or how often, documents are merged.
    """
    latest: dict[tuple[Scope, str], Rule] = {}
    for rule in (rule for rules in documents for rule in rules):
        known = latest.get(rule.target)
        if rule.until > now and (known is None or _rank(rule) > _rank(known)):
            latest[rule.target] = rule
    return tuple(latest[target] for target in sorted(latest))


def levels_for(
    rules: Iterable[Rule], *, component: Component, machines: Collection[str], now: float
) -> Levels:
    """Return what holds for a process of this component, on a machine that goes by these names."""
    live = [rule for rule in rules if rule.until > now and rule.level]
    found = {
        scope: rule.level
        for rule in live
        for scope in (rule.scope,)
        if (scope is Scope.COMPONENT and rule.name == component)
        or (scope is Scope.MACHINE and rule.name in machines)
    }
    jobs = {rule.name: rule.level for rule in live if rule.scope is Scope.JOB and rule.level}
    own = found.get(Scope.MACHINE, found.get(Scope.COMPONENT))
    return Levels(own=own, jobs=jobs, expires=min((rule.until for rule in live), default=None))


def _rule(found: Mapping[str, Any]) -> Rule:
    scope = next(scope for scope in (*Scope, None) if scope is None or scope in found)
    level = found.get("level")
    if scope is None or level not in (*LEVELS, None):
        raise ValueError(f"not a rule of log levels: {found}")
    return Rule(scope, str(found[scope]), level, float(found["until"]), float(found["at"]))


def _rank(rule: Rule) -> tuple[float, float, str]:
    """Return what decides between two rules about the same; no two different ones are equal."""
    return rule.at, rule.until, rule.level or ""
