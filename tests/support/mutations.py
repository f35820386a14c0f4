"""Seeded faults: one change each of something that is deployed, and the check that has to see it.

Each is named by a sentence. Where: "<stack>/<construct path>" for a resource (its logical ID without the
hash), or "user-data", "component", "workflow" and a name for a document.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.deployment import Deployment

HASH = "([0-9A-F]{8})?"
Properties = dict[str, Any]


class Seedless(AssertionError):
    """What a fault is about is not there, or the fault changed nothing: it proves nothing."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One fault."""

    fault: str
    """A sentence: what is wrong now."""
    where: str
    caught_by: str
    """Name of the check that has to see it."""
    seed: Callable[[Deployment, str], None]
    """Changes the deployment at the place, given with its hash."""
    says: str | None = None
    """What the finding has to mention; the place, when left out."""

    def applied(self, deployment: Deployment) -> Deployment:
        """Return a deployment with this fault. Raises Seedless."""
        wrong = deployment.copied()
        self.seed(wrong, self.place(wrong))
        if wrong == deployment:
            raise Seedless(f"{self.fault}: nothing changed at {self.where}")
        return wrong

    def place(self, deployment: Deployment) -> str:
        """Return the one place that `where` names, with its hash. Raises Seedless."""
        pattern = re.compile(re.escape(self.where) + HASH)
        found = [place for place in places(deployment) if pattern.fullmatch(place)]
        if len(found) != 1:
            raise Seedless(f"{self.fault}: {self.where} is {found or 'nowhere'}")
        return found[0]


def places(deployment: Deployment) -> list[str]:
    """Return every place where a fault can be seeded."""
    return [
        *(
            f"{stack}/{name}"
            for stack, body in deployment.templates.items()
            for name in body.get("Resources", {})
        ),
        *(f"component/{name}" for name in deployment.components),
        *(f"user-data/{name}" for name in deployment.user_data),
        *(f"workflow/{name}" for name in deployment.workflows),
    ]


def change(edit: Callable[[Properties], Any]) -> Callable[[Deployment, str], None]:
    """Edit a resource's properties in place."""

    def seed(deployment: Deployment, place: str) -> None:
        stack, name = place.split("/", 1)
        edit(deployment.templates[stack]["Resources"][name].setdefault("Properties", {}))

    return seed


def change_resource(edit: Callable[[Properties], Any]) -> Callable[[Deployment, str], None]:
    """Edit a whole resource in place: its deletion policy, for one."""

    def seed(deployment: Deployment, place: str) -> None:
        stack, name = place.split("/", 1)
        edit(deployment.templates[stack]["Resources"][name])

    return seed


def remove(deployment: Deployment, place: str) -> None:
    """Take a resource out."""
    stack, name = place.split("/", 1)
    del deployment.templates[stack]["Resources"][name]


def rewrite(pattern: str, by: str) -> Callable[[Deployment, str], None]:
    """Replace the first match of a pattern (re, multi-line) in a document. Raises Seedless."""

    def seed(deployment: Deployment, place: str) -> None:
        kind, name = place.split("/", 1)
        documents = {
            "component": deployment.components,
            "user-data": deployment.user_data,
            "workflow": deployment.workflows,
        }[kind]
        documents[name], count = re.subn(pattern, lambda _: by, documents[name], count=1, flags=re.MULTILINE)
        if not count:
            raise Seedless(f"{place} has nothing like {pattern}")

    return seed
