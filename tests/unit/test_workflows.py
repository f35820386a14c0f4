"""What GitHub runs for users of this repository: the Makefile's commands, pinned actions, few rights."""

import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.checks_workflows import unpinned

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def named(name):
    return read(ROOT / ".github" / "workflows" / name)


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads the key "on" so


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_there_is_one_workflow_for_pull_requests_and_one_that_deploys():
    assert [path.name for path in WORKFLOWS] == ["deploy.yml", "pull-request.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it(path):
    text = path.read_text(encoding="utf-8")

    assert text.count("uses:") >= len(steps(read(path))) / 2
    assert unpinned(text) == []


@pytest.mark.parametrize(
    "careless",
    [
        "actions/checkout@v5",
        "actions/checkout@main",
        "actions/checkout",
        "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8",
        "./local-action",
    ],
)
def test_an_action_that_is_not_pinned_would_be_refused(careless):
    assert unpinned(f"steps:\n  - uses: {careless}\n") == [careless]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_is_one_of_the_makefiles(path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [step["run"] for step in steps(read(path)) if "run" in step]

    assert commands
    for command in commands:
        word, target, *_ = command.split()
        assert word == "make"
        assert target in targets


def test_a_pull_request_is_linted_typed_tested_synthesized_and_compared():
    commands = {step["run"].split()[1] for step in steps(named("pull-request.yml")) if "run" in step}
    prerequisites = re.search(r"^check: (.*?)(?: ##|$)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[
        1
    ]

    assert commands == {"check", "test-system", "test-browser", "diff"}
    assert {"lint", "types", "synth", "test-fast"} <= set(prerequisites.split())


def test_a_pull_request_gets_no_rights_and_no_secrets():
    workflow = named("pull-request.yml")
    text = (ROOT / ".github" / "workflows" / "pull-request.yml").read_text(encoding="utf-8")

    assert set(triggers(workflow)) == {"pull_request", "push"}
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert "secrets." not in text


def test_only_a_version_tag_deploys_and_only_after_the_checks():
    workflow = named("deploy.yml")

    assert triggers(workflow) == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    assert workflow["jobs"]["deploy"]["needs"] == "check"
    assert workflow["concurrency"]["cancel-in-progress"] is False


def test_the_deployment_takes_its_role_by_a_token_and_stores_no_key():
    workflow = named("deploy.yml")
    text = (ROOT / ".github" / "workflows" / "deploy.yml").read_text(encoding="utf-8")
    (credentials,) = [s for s in steps(workflow) if "configure-aws-credentials" in s.get("uses", "")]

    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["deploy"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert set(credentials["with"]) == {"role-to-assume", "aws-region"}
    assert "secrets." not in text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_ends_some_time_runs_on_a_named_system_and_keeps_no_git_credentials(path):
    for job in read(path)["jobs"].values():
        assert job["timeout-minutes"] <= 120
        assert re.fullmatch(r"ubuntu-\d+\.\d+", job["runs-on"])
        (checkout,) = [s for s in job["steps"] if "actions/checkout" in s.get("uses", "")]
        assert checkout["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_command_is_written_by_whoever_names_a_branch(path):
    for step in steps(read(path)):
        assert "${{" not in step.get("run", "")
