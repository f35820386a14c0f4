"""Questions to a CloudFormation template, asked by meaning: no logical IDs in tests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from scanfleet.contract import Parameter

Properties = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """One resource of a template."""

    logical_id: str
    body: dict[str, Any]

    @property
    def kind(self) -> str:
        """Example: "AWS::SQS::Queue"."""
        return str(self.body["Type"])

    @property
    def properties(self) -> Properties:
        """The resource's properties, as in the template."""
        return dict(self.body.get("Properties", {}))

    @property
    def is_retained(self) -> bool:
        """Whether it outlives its stack, its replacement included."""
        return self.body.get("DeletionPolicy") == self.body.get("UpdateReplacePolicy") == "Retain"

    @property
    def tags(self) -> dict[str, str]:
        """Its tags, whichever way its type spells them."""
        tags = self.properties.get("Tags", {})
        return dict(tags) if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}


@dataclass(frozen=True)
class StackTemplate:
    """One stack's template."""

    body: dict[str, Any]

    def all(self, kind: str) -> list[Resource]:
        """Return the resources of a type."""
        return [resource for resource in self.resources() if resource.kind == kind]

    def resources(self) -> Iterator[Resource]:
        """Return every resource."""
        return (Resource(name, body) for name, body in self.body.get("Resources", {}).items())

    def only(self, kind: str) -> Resource:
        """Return the one resource of a type."""
        (resource,) = self.all(kind)
        return resource

    def named(self, parameter: Parameter) -> Resource:
        """Return the resource that an SSM parameter of the contract names."""
        reference = self.parameter_value(parameter)["Ref"]
        return Resource(reference, self.body["Resources"][reference])

    def parameter_value(self, parameter: Parameter) -> Any:
        """Return an SSM parameter's value, as in the template."""
        (found,) = [
            p.properties["Value"]
            for p in self.all("AWS::SSM::Parameter")
            if p.properties["Name"].endswith(f"/{parameter}")
        ]
        return found

    def parameter_text(self, parameter: Parameter) -> str:
        """Return an SSM parameter's value with each reference written as its logical ID."""
        return flat(self.parameter_value(parameter))

    def queues(self) -> dict[str, dict[str, Resource]]:
        """Return pool -> priority -> queue, as the parameter for machines says."""
        urls = json.loads(self.parameter_text(Parameter.QUEUES))
        return {
            pool: {
                priority: Resource(ref, self.body["Resources"][ref]) for priority, ref in by_priority.items()
            }
            for pool, by_priority in urls.items()
        }

    def dead_letters_of(self, queue: Resource) -> Resource:
        """Return a queue's dead-letter queue."""
        reference = queue.properties["RedrivePolicy"]["deadLetterTargetArn"]["Fn::GetAtt"][0]
        return Resource(reference, self.body["Resources"][reference])

    def refuses_plain_http(self, resource: Resource) -> bool:
        """Whether the resource's policy denies every action by everyone over plain HTTP."""
        kinds = {
            "AWS::S3::Bucket": ("AWS::S3::BucketPolicy", "Bucket"),
            "AWS::SQS::Queue": ("AWS::SQS::QueuePolicy", "Queues"),
        }
        policy_kind, target = kinds[resource.kind]
        statements = [
            statement
            for policy in self.all(policy_kind)
            if {"Ref": resource.logical_id} in _listed(policy.properties[target])
            for statement in policy.properties["PolicyDocument"]["Statement"]
        ]
        return any(
            s["Effect"] == "Deny"
            and s["Principal"] == {"AWS": "*"}
            and s["Action"] in {"s3:*", "sqs:*"}
            and s["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            for s in statements
        )


def flat(value: Any) -> str:
    """Return a text of the template with each reference written as its logical ID or its export's name."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return str(value["Ref"])
    if "Fn::ImportValue" in value:
        return str(value["Fn::ImportValue"])
    if "Fn::GetAtt" in value:
        return ".".join(value["Fn::GetAtt"])
    separator, parts = value["Fn::Join"]
    return str(separator).join(flat(part) for part in parts)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
