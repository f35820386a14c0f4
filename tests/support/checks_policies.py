"""Checks of who may do what."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from tests.support.deployment import Deployment
from tests.support.findings import Finding, not_agreed, read_agreed
from tests.support.policies import documents, guard, listed
from tests.support.static_checks import parliament

_agreed = cache(read_agreed)
NEEDED_BY_TAKERS = {"sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:SendMessage"}


def disagreed(deployment: Deployment, found: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings that nobody agreed on; agreements name the stage before the stack."""
    stage = deployment.config.stage
    for finding in found:
        if not_agreed([replace(finding, where=f"{stage}/{finding.where}")], _agreed()):
            yield finding


def policies(deployment: Deployment) -> Iterator[Finding]:
    """No wildcard action, nobody trusted but services, nothing by Not...; less what was agreed on."""
    found = [finding for document in documents(deployment.templates) for finding in guard(document)]
    yield from disagreed(deployment, found)


def policy_resources(deployment: Deployment) -> Iterator[Finding]:
    """Actions exist, fit their resources, and name one where they can; less what was agreed on."""
    identity = [d for d in documents(deployment.templates) if d.kind == "identity"]
    known, bodies = _analyzed(), {d.where: d.body for d in identity}
    new = {where: body for where, body in bodies.items() if _key(body) not in known}
    for finding in parliament(new) if new else []:
        known.setdefault(_key(bodies[finding.where]), []).append(finding)
    for body in new.values():
        known.setdefault(_key(body), [])
    found = [finding for body in bodies.values() for finding in known[_key(body)]]
    yield from disagreed(deployment, found)


def takers_of_messages(deployment: Deployment) -> Iterator[Finding]:
    """Machines that take messages may also hide, delete and replace them: a retry is a fresh message."""
    for document in documents(deployment.templates):
        is_machines = document.kind == "identity" and document.where.startswith("fleet/")
        for statement in document.statements if is_machines else ():
            actions = set(listed(statement["Action"]))  # of one statement: samples of queues are all alike
            if "sqs:ReceiveMessage" in actions and (lacking := NEEDED_BY_TAKERS - actions):
                detail = f"lacks {', '.join(sorted(lacking))}"
                yield Finding(tool="policies", rule="TAKER", where=document.where, detail=detail)


@cache
def _analyzed() -> dict[str, list[Finding]]:
    """Return what parliament said about documents of this process: a fault changes one of them."""
    return {}


def _key(body: Any) -> str:
    return repr(body)
