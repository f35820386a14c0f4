"""What a change does to the templates is read by people: snapshots are part of the change."""

import difflib

import pytest

from tests.support.deployment import STACKS
from tests.support.snapshots import FOLDER, snapshot, snapshots

LONGEST_KB = 300


@pytest.fixture(scope="module")
def made(deployment) -> dict[str, str]:
    return snapshots(deployment)


@pytest.mark.parametrize("stack", STACKS)
def test_the_snapshot_is_the_template_of_this_checkout(made, stack):
    path = FOLDER / f"{stack}.yaml"
    kept = path.read_text(encoding="utf-8") if path.exists() else ""

    changed = difflib.unified_diff(
        kept.splitlines(), made[stack].splitlines(), "snapshot", "this checkout", n=2, lineterm=""
    )
    if text := "\n".join(changed):
        pytest.fail(f"{stack} has changed; when that is meant: make snapshots\n{text}", pytrace=False)


def test_there_is_no_snapshot_of_a_stack_that_is_gone():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(STACKS)


def test_snapshots_can_be_read_by_people(made):
    assert sum(len(text) for text in made.values()) < LONGEST_KB * 1024


def queue(**properties: object) -> dict:
    return {"Resources": {"Queue1234": {"Type": "AWS::SQS::Queue", "Properties": properties}}}


def test_a_new_asset_alone_changes_no_snapshot():
    one, other = (queue(Key=f"{digit * 64}.zip") for digit in "ab")

    assert snapshot(one) == snapshot(other)


def test_every_other_value_changes_the_snapshot():
    assert snapshot(queue(VisibilityTimeout=35)) != snapshot(queue(VisibilityTimeout=36))
    assert snapshot(queue()) != snapshot({"Resources": {}})


def test_joins_and_json_are_shown_as_what_they_mean():
    join = {"Fn::Join": ["", ['{"queue":"', {"Ref": "Queue1234"}, '"}']]}

    assert "Body: {queue: '${Queue1234}'}" in snapshot(queue(Body=join))


def test_another_agent_changes_no_snapshot():
    def made(content: str, *keys: str) -> str:
        recipe = {"Name": "it", "SemanticVersion": f"1.0.{content}"}
        properties = {"Recipes": [recipe], "Resource": [f"arn:{key}" for key in keys]}
        return snapshot({"Resources": {"It": {"Type": "AWS::It", "Properties": properties}}})

    first, second = "a" * 64, "b" * 64
    assert made("1", f"{first}.whl", f"{second}.zip") == made("2", f"{first}.zip", f"{second}.whl")
