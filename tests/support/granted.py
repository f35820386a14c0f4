"""What templates allow: each role's permissions, and what others may do to a resource.

`templates` is stage -> stack -> template everywhere. Resources are named without the CDK's hash.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from scanfleet import contract
from tests.support.policies import ACCOUNT, Document, Samples, documents, listed

Templates = dict[str, dict[str, Any]]
OWN_ACCOUNTS = {ACCOUNT, "000000000000"}
FOLDERS = {
    contract.LOGS_PREFIX,
    contract.EVIDENCE_PREFIX,
    contract.MANIFESTS_PREFIX,
    contract.STAGING_PREFIX,
    contract.UPLOADS_PREFIX,
    contract.RELEASES_PREFIX,
    contract.RELEASE_OBJECTS_PREFIX,
}
WHOLE_BUCKET = "the data bucket"
OUR_BUCKET = "name"
"""What tests.support.policies writes for a bucket of the stacks."""
ON_OBJECTS = {"s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"}


class Permission(NamedTuple):
    """One action of one statement. who: a role's place, or a resource's and who acts on it."""

    who: str
    action: str
    everything: bool
    """The statement's resource is "*"."""
    conditions: frozenset[str]


def place(stack: str, logical_id: str) -> str:
    """Return a resource's name without the hash that the CDK ends it with."""
    return f"{stack}/{re.sub(r'[0-9A-F]{8}$', '', logical_id)}"


def roles_of(policy: dict[str, Any]) -> list[str]:
    return [reference["Ref"] for reference in policy["Properties"]["Roles"]]


def conditions_of(statement: dict[str, Any]) -> frozenset[str]:
    return frozenset(key for test in statement.get("Condition", {}).values() for key in test)


def allowed(document: Document, who: str) -> Iterator[Permission]:
    for statement in document.statements:
        assert statement["Effect"] == "Allow", f"{document.where} denies: the page has no column for it"
        for action in listed(statement["Action"]):
            everything = "*" in listed(statement["Resource"])
            yield Permission(who, action, everything, conditions_of(statement))


def identity_documents(templates: Templates) -> Iterator[tuple[str, Document]]:
    """Yield (role, policy document) of every role."""
    for stacks in templates.values():
        for document in documents(stacks):
            if document.kind != "identity":
                continue
            stack, logical_id = document.where.partition("#")[0].split("/")
            resource = stacks[stack]["Resources"][logical_id]
            roles = [logical_id] if resource["Type"] == "AWS::IAM::Role" else roles_of(resource)
            for role in roles:
                yield place(stack, role), document


def deployed_roles(templates: Templates) -> set[Permission]:
    return {
        permission
        for role, document in identity_documents(templates)
        for permission in allowed(document, role)
    }


def deployed_folders(templates: Templates) -> set[tuple[str, str, str]]:
    """Return what `documented_folders` returns, of our own buckets and of the release bucket."""
    return {
        (role, action, folder)
        for role, document in identity_documents(templates)
        for statement in document.statements
        for action in listed(statement["Action"])
        if action in ON_OBJECTS
        for resource in listed(statement["Resource"])
        if (folder := folder_of(resource)) is not None
    }


def folder_of(resource: str) -> str | None:
    bucket, _, key = resource.removeprefix("arn:aws:s3:::").partition("/")
    if bucket == OUR_BUCKET and key == "*":
        return WHOLE_BUCKET
    folder = key.removesuffix("*")
    return folder if folder in FOLDERS else None


def deployed_trust(templates: Templates) -> set[tuple[str, str, frozenset[str]]]:
    return {
        (place(*document.where.removesuffix("#trust").split("/")), service, conditions_of(statement))
        for stacks in templates.values()
        for document in documents(stacks)
        if document.kind == "trust"
        for statement in document.statements
        for service in listed(statement["Principal"]["Service"])
    }


def managed_policies(templates: Templates) -> set[tuple[str, str]]:
    """Return (role, name of an AWS managed policy)."""
    return {
        (place(stack, name), Samples(stacks).text(arn, stack).rpartition("/")[2])
        for stacks in templates.values()
        for stack, template in stacks.items()
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::IAM::Role"
        for arn in resource["Properties"].get("ManagedPolicyArns", [])
    }


def principals(principal: Any) -> Iterator[str]:
    """Yield who a resource's policy allows, as the page calls them."""
    assert isinstance(principal, dict), f"{principal} is everybody"
    for kind, names in principal.items():
        for name in listed(names):
            if kind == "Service":
                yield name
            else:
                yield "this account" if name.split(":")[4] in OWN_ACCOUNTS else "another account"


def deployed_grants(templates: Templates) -> set[tuple[str, str, str, frozenset[str]]]:
    """Return (resource or its policy, who, action, condition keys): what others may do to it."""
    found = set()
    for stacks in templates.values():
        for document in documents(stacks):
            for statement in document.statements if document.kind == "resource" else ():
                if statement["Effect"] == "Allow":
                    found |= {
                        (place(*document.where.split("/")), who, action, conditions_of(statement))
                        for who in principals(statement["Principal"])
                        for action in listed(statement["Action"])
                    }
        for stack, template in stacks.items():
            for name, resource in template["Resources"].items():
                if resource["Type"] == "AWS::Lambda::Permission":
                    found.add(lambda_permission(place(stack, name), resource["Properties"]))
    return found


def lambda_permission(where: str, properties: dict[str, Any]) -> tuple[str, str, str, frozenset[str]]:
    keys = {"SourceArn": "aws:SourceArn", "SourceAccount": "aws:SourceAccount"}
    conditions = frozenset(key for name, key in keys.items() if name in properties)
    return where, properties["Principal"], properties["Action"], conditions
