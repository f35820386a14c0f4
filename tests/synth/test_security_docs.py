"""docs/security.md says what each role may do, who may act on what, and which findings are acknowledged.

Compared with the templates of every kind of stage, both ways: nothing is missing, nothing is made up.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App

from app import build
from tests.support.full_stage import CLOSED_SETTINGS, SETTINGS
from tests.support.granted import (
    FOLDERS,
    deployed_folders,
    deployed_grants,
    deployed_roles,
    deployed_trust,
    managed_policies,
)
from tests.support.security_page import (
    FINDINGS,
    RESOURCES,
    ROLES,
    Row,
    body,
    documented_folders,
    documented_grants,
    documented_roles,
    documented_trust,
    quoted,
    read_rows,
)

STAGES: dict[str, dict[str, Any]] = {
    "dev": {},
    "prod": {},
    "local": {},
    "full": SETTINGS,
    "closed": CLOSED_SETTINGS,
}
"""As cdk.json has them, with every option, and with what excludes those."""
FEWEST_WORDS = 3
"""A reason that a reader can check is a sentence."""


@pytest.fixture(scope="module")
def page(repo_root: Path) -> str:
    return (repo_root / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page: str) -> list[Row]:
    return list(read_rows(page))


@pytest.fixture(scope="module")
def templates(assembly) -> dict[str, dict[str, Any]]:
    """Stage -> stack -> template."""
    return {
        stage: {
            made.stack_name.rpartition("-")[2]: made.template
            for made in assembly(stage, **settings).stacks
            if "Resources" in made.template
        }
        for stage, settings in STAGES.items()
    }


@pytest.fixture(scope="module")
def acknowledged(context) -> set[tuple[str, str, str]]:
    """(rule, construct, reason) of each cdk-nag finding that the source acknowledges."""
    found = set()
    for stage, settings in STAGES.items():
        tree = dict(context["scanfleet"])
        own = tree["stages"].get(stage, {}) | settings
        tree["stages"] = {**tree["stages"], stage: own}
        app = App(context=context | {"stage": stage, "scanfleet": tree}, analytics_reporting=False)
        build(app)
        for construct in app.node.find_all():
            for entry in construct.node.metadata:
                if entry.type == "aws:cdk:acknowledged-rules":
                    found |= {
                        (rule.partition("[")[0].removeprefix("Annotation::"), construct.node.path, reason)
                        for rule, reason in entry.data.items()
                        if "AwsSolutions" in rule
                    }
    return found


# --- Both ways ---------------------------------------------------------------------------------------------


def test_every_permission_of_every_role_is_in_the_table_and_none_besides(rows, templates):
    documented, deployed = documented_roles(rows), deployed_roles(templates)

    assert sorted(deployed - documented, key=str) == []
    assert sorted(documented - deployed, key=str) == []


def test_the_folders_of_buckets_that_a_role_may_touch_are_named(rows, templates):
    documented, deployed = documented_folders(rows), deployed_folders(templates)

    assert len(deployed) > len(FOLDERS)
    assert sorted(deployed - documented) == []
    assert sorted(documented - deployed) == []


def test_the_page_says_who_takes_on_each_role_and_when(page, templates):
    documented, deployed = documented_trust(page), deployed_trust(templates)

    assert sorted(deployed - documented, key=str) == []
    assert sorted(documented - deployed, key=str) == []


def test_every_managed_policy_is_named_under_its_role(rows, templates):
    named = {
        (quoted(row.title), name)
        for row in body(rows, ROLES)
        for name in re.findall(r"managed policy `([^`]+)`", row.cells[0])
    }

    assert named == managed_policies(templates)


def test_who_else_may_act_on_a_resource_is_in_the_table_and_nobody_besides(rows, templates):
    documented, deployed = documented_grants(rows), deployed_grants(templates)

    assert sorted(deployed - documented, key=str) == []
    assert sorted(documented - deployed, key=str) == []


def test_every_acknowledged_finding_is_in_the_table_and_none_besides(rows, acknowledged):
    documented = {(quoted(row.cells[0]), quoted(row.cells[1])) for row in body(rows, FINDINGS)}

    assert documented == {(rule, construct) for rule, construct, _ in acknowledged}


def test_the_table_of_findings_gives_the_reasons_of_the_source(rows, acknowledged):
    table = {(quoted(row.cells[0]), quoted(row.cells[1])): row.cells[2] for row in body(rows, FINDINGS)}

    for rule, construct, reason in acknowledged:
        sentence = re.sub(r"^[A-Za-z]+\d*: ", "", reason)  # the statement's name, which the tables above tell
        assert sentence in table[rule, construct], f"{rule} {construct}: {sentence}"


def test_every_row_says_why(rows):
    sections = (ROLES, RESOURCES, FINDINGS)
    unexplained = [
        row for name in sections for row in body(rows, name) if len(row.cells[-1].split()) < FEWEST_WORDS
    ]

    assert unexplained == []


def test_the_reporting_page_leads_here(repo_root):
    assert "docs/security.md" in (repo_root / "SECURITY.md").read_text(encoding="utf-8")
