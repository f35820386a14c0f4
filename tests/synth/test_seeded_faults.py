"""No fault passes unseen: each, seeded into what is deployed, is seen by the check that is named for it."""

from collections import Counter

import pytest

from tests.support.checks import CHECKS
from tests.support.deployment import Deployment
from tests.support.findings import Finding
from tests.support.full_stage import CLOSED_SETTINGS, SETTINGS
from tests.support.mutations import Mutation, Seedless, change, rewrite
from tests.support.seeded_faults import MUTATIONS, tables
from tests.support.snapshots import BEGIN, END

STAGES = {"dev": {}, "prod": {}, "full": SETTINGS, "closed": CLOSED_SETTINGS}
"""As cdk.json has them, with every option, and with what excludes those."""


@pytest.fixture(scope="module")
def found(deployment) -> dict[str, list[Finding]]:
    """What each check finds in the deployment as it is."""
    return {name: list(check(deployment)) for name, check in CHECKS.items()}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("stage", STAGES)
def test_a_check_finds_nothing_in_what_is_deployed(deployed, stage, check):
    assert list(CHECKS[check](deployed(stage, **STAGES[stage]))) == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.where}: {m.fault}")
def test_a_seeded_fault_is_seen_where_it_is(deployment: Deployment, found, mutation: Mutation):
    wrong = mutation.applied(deployment)

    new = [
        finding for finding in CHECKS[mutation.caught_by](wrong) if finding not in found[mutation.caught_by]
    ]

    place = mutation.says or mutation.place(deployment)
    assert [f for f in new if place in f"{f.where} {f.detail}"], new or "nothing was seen"


def test_there_are_enough_faults_and_none_twice():
    twice = [name for name, count in Counter((m.where, m.fault) for m in MUTATIONS).items() if count > 1]

    assert twice == []
    assert len(MUTATIONS) >= 25


@pytest.mark.parametrize(
    ("where", "seed"),
    [
        ("data/JobsTable", change(lambda p: p.update(BillingMode="PAY_PER_REQUEST"))),
        ("data/JobTable", change(dict.clear)),
        ("workflow/deploy.yml", rewrite(r"^no such line$", "")),
    ],
)
def test_a_fault_that_changes_nothing_proves_nothing(deployment, where, seed):
    idle = Mutation(fault="nothing is wrong", where=where, caught_by="at rest", seed=seed)

    with pytest.raises(Seedless):
        idle.applied(deployment)


def test_a_seeded_fault_leaves_what_is_deployed_as_it_is(deployment):
    before = deployment.copied()

    for mutation in MUTATIONS:
        mutation.applied(deployment)

    assert deployment == before


def test_every_check_has_a_fault_that_only_a_working_check_sees():
    assert {m.caught_by for m in MUTATIONS} == set(CHECKS)


def test_the_table_of_the_docs_is_the_one_of_the_code(repo_root):
    page = (repo_root / "docs" / "infrastructure-tests.md").read_text(encoding="utf-8")

    assert page.partition(BEGIN)[2].partition(END)[0] == tables(), "run make snapshots"
