"""Several stages live side by side in one account: what is named is named apart."""

import json
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from tests.support.template import Resource, StackTemplate


@pytest.fixture(scope="module")
def templates(assembly):
    """Every template of a stage, by its stack's name."""
    return lambda stage: {s.stack_name: StackTemplate(s.template) for s in assembly(stage).stacks}


def own_names(resource: Resource) -> set[str]:
    """Return the properties that identify a resource of this kind, if its author may write them.

    Source: CloudFormation CLI user guide, "Resource type definition schema": primaryIdentifier.
    """
    if not resource.kind.startswith("AWS::") or resource.kind == "AWS::IAM::Policy":  # part of its role
        return set()
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("us-east-1", resource.kind).schema
    names = {path.removeprefix("/properties/") for path in schema["primaryIdentifier"]}
    read_only = {path.removeprefix("/properties/") for path in schema.get("readOnlyProperties", [])}
    kind = resource.kind.rsplit("::", 1)[1]
    return (names - read_only) | ({"Name", f"{kind}Name"} & resource.properties.keys())


def fixed_names(template: StackTemplate) -> set[tuple[str, str]]:
    """Return (kind, identity) of each resource whose identity is written out in the template."""
    found = set()
    for resource in template.resources():
        values = {name: resource.properties.get(name) for name in own_names(resource)}
        values = {name: value for name, value in values.items() if value is not None}
        if values and not refers(values):
            found.add((resource.kind, json.dumps(values, sort_keys=True)))
    return found


def refers(value: Any) -> bool:
    """Whether the value depends on a resource, which CloudFormation names anew in each stack."""
    if isinstance(value, dict):
        if "Fn::GetAtt" in value or "Fn::ImportValue" in value:
            return True
        if "Ref" in value:
            return not str(value["Ref"]).startswith("AWS::")
        return any(refers(inner) for inner in value.values())
    return isinstance(value, list) and any(refers(inner) for inner in value)


def test_two_stages_share_no_stack_no_export_and_no_name_of_a_resource(templates):
    one, other = templates("dev"), templates("prod")

    names = [{n for t in stage.values() for n in fixed_names(t)} for stage in (one, other)]
    exports = [
        {
            json.dumps(o["Export"])
            for t in stage.values()
            for o in t.body.get("Outputs", {}).values()
            if "Export" in o
        }
        for stage in (one, other)
    ]
    assert len(names[0]) > 5  # parameters and log groups at least
    assert names[0] & names[1] == set()
    assert exports[0] & exports[1] == set()
    assert one.keys() & other.keys() == set()


def test_a_resource_with_the_same_name_in_both_would_be_seen():
    body = {"Resources": {"Q": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/scanfleet"}}}}

    assert fixed_names(StackTemplate(body)) == {("AWS::Logs::LogGroup", '{"LogGroupName": "/scanfleet"}')}


def test_the_fleet_comes_after_the_parameter_that_its_machines_boot_from(assembly):
    (fleet,) = [stack for stack in assembly("dev").stacks if stack.stack_name == "scanfleet-dev-fleet"]

    assert "FirstImage" in fleet.manifest.dependencies
