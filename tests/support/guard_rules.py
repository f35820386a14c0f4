"""Our own rules about machines and networks, over one template: what general checkers do not know of us."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.findings import Finding

EVERYONE = {"0.0.0.0/0", "::/0"}


def guard_template(stack: str, template: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield each thing in the template that the house rules refuse."""
    for name, resource in template.get("Resources", {}).items():
        properties = resource.get("Properties", {})
        for rule, detail in _refused(resource["Type"], properties):
            yield Finding(tool="guard", rule=rule, where=f"{stack}/{name}", detail=detail)


def _refused(kind: str, properties: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if kind == "AWS::EC2::SecurityGroup":
        for rule in properties.get("SecurityGroupIngress", []):
            yield from _open(rule)
    if kind == "AWS::EC2::SecurityGroupIngress":
        yield from _open(properties)
    if kind == "AWS::EC2::Subnet" and properties.get("MapPublicIpOnLaunch"):
        yield "PUBLIC_ADDRESS", "MapPublicIpOnLaunch"
    if kind == "AWS::EC2::LaunchTemplate":
        yield from _machine(properties["LaunchTemplateData"], "MetadataOptions")
    if kind == "AWS::ImageBuilder::InfrastructureConfiguration":
        yield from _machine(properties, "InstanceMetadataOptions")
    if kind in {"AWS::EC2::Instance", "AWS::AutoScaling::LaunchConfiguration"}:
        yield "OLD_MACHINE", "machines come from launch templates only"


def _open(rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if {rule.get("CidrIp"), rule.get("CidrIpv6")} & EVERYONE:
        yield "OPEN_TO_EVERYONE", f"{rule.get('FromPort')}-{rule.get('ToPort')}"
    if rule.get("IpProtocol") == "-1":
        yield "EVERY_PORT", "all protocols"


def _machine(data: Mapping[str, Any], options: str) -> Iterator[tuple[str, str]]:
    metadata = data.get(options, {})
    if metadata.get("HttpTokens") != "required":
        yield "IMDSV1", "HttpTokens"
    if metadata.get("HttpPutResponseHopLimit") != 1:
        yield "IMDS_HOPS", str(metadata.get("HttpPutResponseHopLimit"))
    if "KeyName" in data or "KeyPair" in data:
        yield "KEY_PAIR", "a session is opened through Systems Manager"
    for interface in data.get("NetworkInterfaces", []):
        if interface.get("AssociatePublicIpAddress"):
            yield "PUBLIC_ADDRESS", "AssociatePublicIpAddress"
    for device in data.get("BlockDeviceMappings", []):
        if "Ebs" in device and device["Ebs"].get("Encrypted") is not True:
            yield "PLAIN_VOLUME", str(device.get("DeviceName"))
