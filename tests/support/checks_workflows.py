"""Checks of what GitHub runs.

Sources: GitHub documentation, "Security hardening for GitHub Actions", "Configuring OpenID Connect in
Amazon Web Services", "Events that trigger workflows" (pull_request_target).
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.deployment import Deployment
from tests.support.findings import Finding

PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
USES = re.compile(r"^\s*(?:- )?uses: *(.+?)\s*$", re.MULTILINE)
FOR_STRANGERS = {"pull_request_target", "workflow_run", "issue_comment"}
"""They run with this repository's rights on what somebody else wrote."""
CREDENTIALS = "aws-actions/configure-aws-credentials"


def unpinned(text: str) -> list[str]:
    """Return the actions of a workflow's text that no commit pins with its version beside it."""
    return [action for action in USES.findall(text) if not PINNED.fullmatch(action)]


def workflows(deployment: Deployment) -> Iterator[Finding]:
    """Actions are pinned by commit, strangers start nothing, rights are named, keys are not stored."""
    for name, text in deployment.workflows.items():
        for rule, detail in _refused(text):
            yield Finding(tool="workflows", rule=rule, where=f"workflow/{name}", detail=detail)


def _refused(text: str) -> Iterator[tuple[str, str]]:
    workflow = yaml.safe_load(text)
    for action in unpinned(text):
        yield "UNPINNED", action
    started_by = workflow[True]  # YAML 1.1 reads the key "on" so
    for event in set(started_by if isinstance(started_by, (dict, list)) else [started_by]) & FOR_STRANGERS:
        yield "STRANGERS", event
    if workflow.get("permissions") != {"contents": "read"}:
        yield "RIGHTS", str(workflow.get("permissions", "all that the repository gives"))
    if "secrets." in text:
        yield "SECRET", "a stored key; roles are taken by token"
    for name, job in workflow["jobs"].items():
        for rule, detail in _refused_job(job):
            yield rule, f"{name}: {detail}"


def _refused_job(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    rights = job.get("permissions", {})
    takes_role = any(step.get("uses", "").startswith(CREDENTIALS) for step in job["steps"])
    if takes_role is not (rights.get("id-token") == "write"):
        yield "TOKEN", f"takes a role: {takes_role}, may ask for a token: {rights.get('id-token', 'none')}"
    if set(rights) - {"contents", "id-token"} or rights.get("contents", "read") != "read":
        yield "RIGHTS", str(rights)
    if "timeout-minutes" not in job:
        yield "ENDLESS", "no timeout-minutes"
    for step in job["steps"]:
        if "${{" in step.get("run", ""):
            yield "INJECTION", step["run"]
