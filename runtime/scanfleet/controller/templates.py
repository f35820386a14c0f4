"""Launch template versions with a numbered image, derived from the stack's own (docs/decisions/0034-*.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from scanfleet.controller.snapshot import answering
from scanfleet.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import LaunchTemplateVersionTypeDef

PIN_MARK = "scanfleet pin"
"""Descriptions of the controller's own versions start with this; the stack's never do."""

SETTLES_AFTER = timedelta(minutes=5)
"""A version of the stack's counts from then on: the deploy that made it may go on to change the group, which
AWS refuses while a refresh to another configuration runs. Source: EC2 Auto Scaling guide, "How an instance
refresh works in an Auto Scaling group"."""


@dataclass(frozen=True)
class TemplateVersion:
    """A launch template at a numbered version. version: as Auto Scaling spells it, "7"."""

    template_id: str
    version: str


def pin_description(*, base: int, ami_id: str) -> str:
    """Return the description by which a pinned version is found again."""
    return f"{PIN_MARK}: base {base}, {ami_id}"


def template_of(group: Mapping[str, Any]) -> TemplateVersion:
    """Return what a group, or a desired configuration, launches. Raises Unavailable without a template."""
    mixed = group.get("MixedInstancesPolicy")
    chosen = mixed["LaunchTemplate"]["LaunchTemplateSpecification"] if mixed else group.get("LaunchTemplate")
    if not chosen:
        raise Unavailable("the group has no launch template")
    return TemplateVersion(chosen["LaunchTemplateId"], str(chosen.get("Version", "$Default")))


class Templates:
    """Finds and makes versions."""

    def __init__(self, client: "EC2Client") -> None:
        self._client = client

    def wanted(self, template_id: str, *, ami_id: str, now: float) -> TemplateVersion:
        """Return the version of the stack's newest settled one with this image, made if it is not there yet.

        now: epoch seconds. Raises Unavailable.
        """
        with answering(f"describe the versions of {template_id}"):
            pages = self._client.get_paginator("describe_launch_template_versions").paginate(
                LaunchTemplateId=template_id
            )
            described = [version for page in pages for version in page["LaunchTemplateVersions"]]
        by_number = {
            version["VersionNumber"]: version.get("VersionDescription") or "" for version in described
        }
        base = _base(described, now=now)
        if base is None:
            raise Unavailable(f"the launch template {template_id} has no version of the stack's")
        description = pin_description(base=base, ami_id=ami_id)
        pinned = [number for number, text in by_number.items() if text == description]
        number = max(pinned) if pinned else self._pin(template_id, base, ami_id, description)
        return TemplateVersion(template_id, str(number))

    def has_numbered_image(self, template: TemplateVersion) -> bool:
        """Return whether AWS could roll back to this version: it is a numbered one whose image is one, too.

        Source: EC2 Auto Scaling guide, "Undo changes with a manual or auto rollback". Raises Unavailable.
        """
        if not template.version.isdigit():
            return False
        with answering(f"describe version {template.version} of {template.template_id}"):
            found = self._client.describe_launch_template_versions(
                LaunchTemplateId=template.template_id, Versions=[template.version]
            )["LaunchTemplateVersions"]
        return bool(found) and found[0]["LaunchTemplateData"].get("ImageId", "").startswith("ami-")

    def _pin(self, template_id: str, base: int, ami_id: str, description: str) -> int:
        with answering(f"create a version of {template_id}"):
            made = self._client.create_launch_template_version(
                LaunchTemplateId=template_id,
                SourceVersion=str(base),
                VersionDescription=description,
                LaunchTemplateData={"ImageId": ami_id},
                ClientToken=f"pin-{base}-{ami_id}",
            )
        return made["LaunchTemplateVersion"]["VersionNumber"]


def _base(described: "Sequence[LaunchTemplateVersionTypeDef]", *, now: float) -> int | None:
    """Return the newest settled version of the stack's; the first counts at once, there is no other."""
    own = [v for v in described if not (v.get("VersionDescription") or "").startswith(PIN_MARK)]
    settled = [v for v in own if now - v["CreateTime"].timestamp() >= SETTLES_AFTER.total_seconds()]
    if settled:
        return max(version["VersionNumber"] for version in settled)
    return min((version["VersionNumber"] for version in own), default=None)
