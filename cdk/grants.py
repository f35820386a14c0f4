"""Permissions, written out: each statement by action and resource, each wildcard with its reason."""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Acknowledgment, Reference, Stack, Tokenization, Validations
from aws_cdk.aws_iam import PolicyStatement, Role
from aws_cdk.aws_kms import IKey

Conditions = Mapping[str, Mapping[str, str | list[str]]]


def allow(
    role: Role,
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    *,
    conditions: Conditions | None = None,
    wildcard: str | None = None,
) -> None:
    """Let the role do this, in a statement of its own that `sid` names.

    `wildcard` says why a resource with "*" cannot be named; cdk-nag's finding is acknowledged with it, for
    these resources only. Raises ValueError for a wildcard without a reason, and for any in an action.
    """
    if stars := [action for action in actions if "*" in action]:
        raise ValueError(f"{sid} allows {stars}; write the actions out")
    open_ended = [resource for resource in resources if "*" in resource]
    if open_ended and not wildcard:
        raise ValueError(f"{sid} allows {open_ended}; name the resources, or say why they cannot be named")
    role.add_to_policy(
        PolicyStatement(
            sid=sid,
            actions=list(actions),
            resources=list(resources),
            conditions={key: dict(value) for key, value in conditions.items()} if conditions else None,
        )
    )
    accept_wildcards(role, open_ended, f"{sid}: {wildcard}")


def allow_own_key(role: Role, sid: str, key: IKey | None, *services: str) -> None:
    """Let these services ("dynamodb", "s3") use the deployment's own key for the role, which alone cannot.

    Does nothing without a key of its own. Whoever writes needs more than Decrypt, so all roles get the same.
    Source: DynamoDB developer guide, "DynamoDB encryption at rest: usage notes".
    """
    if key is None:
        return
    via = [f"{service}.{Stack.of(role).region}.amazonaws.com" for service in services]
    allow(
        role,
        sid,
        ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"],
        [key.key_arn],
        conditions={"StringEquals": {"kms:ViaService": via if len(via) > 1 else via[0]}},
    )


def accept_wildcards(role: Role, resources: Sequence[str], reason: str) -> None:
    """Acknowledge cdk-nag's finding for those of these resources that have a wildcard, and for no others."""
    for resource in resources:
        if "*" in resource:
            finding = f"AwsSolutions-IAM5[Resource::{_as_found(Stack.of(role), resource)}]"
            Validations.of(role).acknowledge(Acknowledgment(id=finding, reason=reason))


def _as_found(stack: Stack, resource: str) -> str:
    """Return the resource as cdk-nag prints it: references as <LogicalId.Attribute>, imports by name."""
    text = resource
    for token in Tokenization.reverse_string(resource).tokens:
        if isinstance(token, Reference) and (producer := Stack.of(token.target)) is not stack:
            # The name that the reference itself will get, when the CDK finds that it crosses stacks.
            name = _flat(producer.resolve(producer.export_value(token)))
            text = text.replace(token.to_string(), name)
    return _flat(stack.resolve(text))


def _flat(value: Any) -> str:
    """Return a resolved text of a template in one piece."""
    match value:
        case str():
            return value
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_flat(part) for part in parts)
        case {"Ref": name}:
            return f"<{name}>"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"<{name}.{attribute}>"
        case {"Fn::ImportValue": name}:
            return _flat(name)
    raise ValueError(f"no resource that cdk-nag would print: {value!r}")
