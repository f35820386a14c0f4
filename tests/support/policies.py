"""Policy documents of templates, with each intrinsic function replaced by a sample of what it becomes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.findings import Finding

ACCOUNT = "123456789012"
REGION = "us-east-1"
PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": REGION,
    "AWS::Partition": "aws",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "scanfleet-dev-sample",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/scanfleet-dev-sample/1",
}
NAME = "Name"
"""Stands for the name that CloudFormation would choose."""


def _regional(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


ARNS = {
    "AWS::AutoScaling::AutoScalingGroup": _regional(
        "autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{NAME}"
    ),
    "AWS::ApiGatewayV2::Api": _regional("apigateway", f"/apis/{NAME}"),
    "AWS::CloudWatch::Alarm": _regional("cloudwatch", f"alarm:{NAME}"),
    "AWS::DynamoDB::Table": _regional("dynamodb", f"table/{NAME}"),
    "AWS::EC2::LaunchTemplate": _regional("ec2", f"launch-template/{NAME}"),
    "AWS::EC2::SecurityGroup": _regional("ec2", f"security-group/{NAME}"),
    "AWS::EC2::Subnet": _regional("ec2", f"subnet/{NAME}"),
    "AWS::EC2::VPC": _regional("ec2", f"vpc/{NAME}"),
    "AWS::Events::Rule": _regional("events", f"rule/{NAME}"),
    "AWS::IAM::InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/{NAME}",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{NAME}",
    "AWS::ImageBuilder::ImagePipeline": _regional("imagebuilder", f"image-pipeline/{NAME}"),
    "AWS::ImageBuilder::ImageRecipe": _regional("imagebuilder", f"image-recipe/{NAME}/1.0.0"),
    "AWS::KMS::Key": _regional("kms", "key/00000000-0000-0000-0000-000000000000"),
    "AWS::Lambda::Function": _regional("lambda", f"function:{NAME}"),
    "AWS::Logs::LogGroup": _regional("logs", f"log-group:{NAME}:*"),
    "AWS::S3::Bucket": "arn:aws:s3:::name",
    "AWS::SNS::Topic": _regional("sns", NAME),
    "AWS::SQS::Queue": _regional("sqs", NAME),
    "AWS::SSM::Parameter": _regional("ssm", f"parameter/{NAME}"),
    "AWS::Scheduler::Schedule": _regional("scheduler", f"schedule/default/{NAME}"),
    "AWS::Scheduler::ScheduleGroup": _regional("scheduler", f"schedule-group/{NAME}"),
}
"""Sources: Service Authorization Reference, "Resource types defined by ..."; Fn::GetAtt Arn of each type."""


@dataclass(frozen=True)
class Document:
    """One policy document."""

    where: str
    """Stage, stack and logical ID, and which of the resource's documents."""
    kind: str
    """identity: what a role may do; resource: who may do it to this; trust: who may be this role."""
    body: dict[str, Any]

    @property
    def statements(self) -> list[dict[str, Any]]:
        """The statements, whether the document has one or a list."""
        found = self.body["Statement"]
        return found if isinstance(found, list) else [found]


class Samples:
    """Replaces intrinsic functions by samples; `templates` is stack -> template of one stage."""

    def __init__(self, templates: Mapping[str, Mapping[str, Any]]) -> None:
        self._templates = templates
        self._exports = {
            self.text(output["Export"]["Name"], stack): (output["Value"], stack)
            for stack, body in templates.items()
            for output in body.get("Outputs", {}).values()
            if "Export" in output
        }

    def text(self, value: Any, stack: str) -> str:
        """Return a text for a value that is one on AWS. Raises LookupError for what has no sample."""
        if not isinstance(value, dict):
            return str(value)
        ((function, argument),) = value.items()
        if function == "Ref":
            return self._ref(argument, stack)
        if function == "Fn::GetAtt":
            return self._attribute(argument, stack)
        if function == "Fn::Join":
            separator, parts = argument
            return str(separator).join(self.text(part, stack) for part in parts)
        if function == "Fn::Sub":
            return self._substituted(argument, stack)
        if function == "Fn::ImportValue":
            exported, of_stack = self._exports[self.text(argument, stack)]
            return self.text(exported, of_stack)
        if function == "Fn::Select":
            index, parts = argument
            found = self._list(parts, stack)
            return found[int(index)] if int(index) < len(found) else NAME
        raise LookupError(f"no sample for {function}: {argument}")

    def resolved(self, value: Any, stack: str) -> Any:
        """Return a policy document with every intrinsic function replaced."""
        if isinstance(value, list):
            return [self.resolved(item, stack) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and next(iter(value)).startswith(("Ref", "Fn::")):
            return self.text(value, stack)
        return {name: self.resolved(item, stack) for name, item in value.items()}

    def _ref(self, name: str, stack: str) -> str:
        if name in PSEUDO:
            return PSEUDO[name]
        body = self._templates[stack]
        if name in body.get("Parameters", {}):
            return NAME
        resource = body["Resources"][name]
        kind = str(resource["Type"])
        if kind.startswith(("AWS::ImageBuilder::", "AWS::SNS::Topic", "AWS::ElasticLoadBalancingV2::")):
            return ARNS.get(kind, NAME)
        written = resource.get("Properties", {}).get(f"{kind.rsplit('::', 1)[1]}Name")
        written = written or resource.get("Properties", {}).get("Name")
        return self.text(written, stack) if written else "name" if kind == "AWS::S3::Bucket" else NAME

    def _attribute(self, argument: Any, stack: str) -> str:
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
        kind = str(self._templates[stack]["Resources"][name]["Type"])
        if not attribute.endswith("Arn"):
            return NAME
        if kind not in ARNS:
            raise LookupError(f"no sample ARN for {kind}")
        if attribute == "StreamArn":
            return f"{ARNS[kind]}/stream/2026-01-01"
        return ARNS[kind]

    def _substituted(self, argument: Any, stack: str) -> str:
        pattern, values = argument if isinstance(argument, list) else (argument, {})

        def value_of(found: re.Match[str]) -> str:
            name = found[1]
            if name in values:
                return self.text(values[name], stack)
            return self._attribute(name, stack) if "." in name else self._ref(name, stack)

        return re.sub(r"\$\{([^!}]+)\}", value_of, pattern)

    def _list(self, value: Any, stack: str) -> list[str]:
        if isinstance(value, dict) and "Fn::Split" in value:
            separator, text = value["Fn::Split"]
            return self.text(text, stack).split(separator)
        if isinstance(value, dict) and "Fn::GetAZs" in value:
            return [f"{REGION}{letter}" for letter in "abc"]
        return [self.text(item, stack) for item in value]


IDENTITY = {"AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"}
RESOURCE = {
    "AWS::S3::BucketPolicy": "PolicyDocument",
    "AWS::SQS::QueuePolicy": "PolicyDocument",
    "AWS::SNS::TopicPolicy": "PolicyDocument",
    "AWS::KMS::Key": "KeyPolicy",
    "AWS::EC2::VPCEndpoint": "PolicyDocument",
    "AWS::Logs::ResourcePolicy": "PolicyDocument",
}


def documents(templates: Mapping[str, Mapping[str, Any]]) -> Iterator[Document]:
    """Yield every policy document of a stage's templates (stack -> template), resolved."""
    samples = Samples(templates)
    for stack, body in templates.items():
        for name, resource in body.get("Resources", {}).items():
            where = f"{stack}/{name}"
            for suffix, kind, found in _raw(resource["Type"], resource.get("Properties", {})):
                resolved = samples.resolved(found, stack)
                yield Document(where + suffix, kind, resolved)


def _raw(kind: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    if kind in IDENTITY:
        yield "", "identity", properties["PolicyDocument"]
    if kind == "AWS::IAM::Role":
        yield "#trust", "trust", properties["AssumeRolePolicyDocument"]
        for policy in properties.get("Policies", []):
            yield f"#{policy['PolicyName']}", "identity", policy["PolicyDocument"]
    if kind in RESOURCE and RESOURCE[kind] in properties:
        yield "", "resource", properties[RESOURCE[kind]]


def listed(value: Any) -> list[Any]:
    """Return a policy's value as a list: one may stand alone."""
    return value if isinstance(value, list) else [value]


def guard(document: Document) -> Iterator[Finding]:
    """Yield what our own rules refuse in a document, besides what parliament sees."""
    for statement in document.statements:
        if statement["Effect"] != "Allow":
            continue
        for rule, detail in _refused(document.kind, statement):
            yield Finding(tool="guard", rule=rule, where=document.where, detail=detail)


def _refused(kind: str, statement: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("NotAction", "NotResource", "NotPrincipal"):
        if name in statement:
            yield "NOT", name
    for action in listed(statement.get("Action", [])):
        if kind != "trust" and "*" in action:
            yield "ACTION_WILDCARD", action
    principal = statement.get("Principal")
    if principal is not None and "*" in listed(
        principal.get("AWS", "") if isinstance(principal, dict) else principal
    ):
        yield "ANYONE", ",".join(sorted(listed(statement["Action"])))
    if kind == "trust" and isinstance(principal, dict) and "Service" not in principal:
        yield "TRUST", str(principal)
