"""Checks of the image's pipeline: what is built, when, and where the result is written."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from scanfleet import contract
from tests.support import awstoe
from tests.support.deployment import COMPONENT, Deployment
from tests.support.findings import Finding
from tests.support.template import Resource

RECIPE, PIPELINE = "AWS::ImageBuilder::ImageRecipe", "AWS::ImageBuilder::ImagePipeline"
DISTRIBUTION = "AWS::ImageBuilder::DistributionConfiguration"
VERSION = re.compile(r"\d+\.\d+\.\d+")
DIGEST = re.compile(r"[0-9a-f]{64}")
SIGNED = {"NvidiaDriver"}
"""Components whose digest may be unknown: they check the publisher's signature and the version besides."""


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="image", rule=rule, where=where, detail=detail)


def recipe(deployment: Deployment) -> Iterator[Finding]:
    """A recipe names every component once and no other; versions are numbers, volumes encrypted."""
    made = {r.logical_id: r for _, r in deployment.everywhere(COMPONENT)}
    used: list[str] = []
    for where, found in deployment.everywhere(RECIPE):
        for configured in found.properties["Components"]:
            name = _component(configured)
            used.append(name)
            if name not in made:
                yield _found("NO_COMPONENT", where, name)
        for device in found.properties.get("BlockDeviceMappings", []):
            if device["Ebs"].get("Encrypted") is not True:
                yield _found("PLAIN_VOLUME", where, device["DeviceName"])
        if not VERSION.fullmatch(str(found.properties["Version"])):
            yield _found("VERSION", where, str(found.properties["Version"]))
    for name, component in made.items():
        if used.count(name) != 1:
            yield _found("NOT_BUILT", f"image/{name}", f"in {used.count(name)} recipes")
        if not VERSION.fullmatch(str(component.properties["Version"])):
            yield _found("VERSION", f"image/{name}", str(component.properties["Version"]))


def pinned(deployment: Deployment) -> Iterator[Finding]:
    """What a build downloads has a version in its address, a digest, and never the name latest."""
    for where, found in deployment.everywhere(RECIPE):
        for configured in found.properties["Components"]:
            name = _component(configured)
            values = {p["Name"]: str(p["Value"][0]) for p in configured.get("Parameters", [])}
            for parameter, value in values.items():
                if parameter.endswith("Url") and not re.search(r"\d+\.\d+", value):
                    yield _found("NO_VERSION", where, f"{parameter} {value}")
                if re.search(r"\blatest\b", value, re.IGNORECASE):
                    yield _found("LATEST", where, f"{parameter} {value}")
                if parameter.endswith("Sha256") and not (
                    DIGEST.fullmatch(value) or (value == "unknown" and any(s in name for s in SIGNED))
                ):
                    yield _found("DIGEST", where, f"{parameter} {value}")
    for name, text in deployment.components.items():
        for line in text.splitlines():
            if re.search(r"https?://\S*\blatest\b", line, re.IGNORECASE):
                yield _found("LATEST", f"component/{name}", line.strip())


def components(deployment: Deployment) -> Iterator[Finding]:
    """Documents have known actions, all phases, limits, checked downloads; parameters have values."""
    declared: dict[str, set[str]] = {}
    for name, text in deployment.components.items():
        for sentence in awstoe.findings(text):
            yield _found("DOCUMENT", f"component/{name}", sentence)
        declared[name] = set(awstoe.parameters(yaml.safe_load(text)))
    for where, found in deployment.everywhere(RECIPE):
        for configured in found.properties["Components"]:
            name = _component(configured)
            given = {p["Name"] for p in configured.get("Parameters", [])}
            if name in declared and given != declared[name]:
                yield _found("VALUES", where, f"{name}: {sorted(given ^ declared[name])}")


def shipped_logs(deployment: Deployment) -> Iterator[Finding]:
    """Images ship the files that boots and agents write, each to its own log group."""
    stage = deployment.config.stage
    wanted = {
        f"{component.title()}LogGroup": contract.log_group_name(stage, component)
        for component in (contract.Component.USERDATA, contract.Component.AGENT, contract.Component.JOBS)
    }
    for where, found in deployment.everywhere(RECIPE):
        given = {
            p["Name"]: p["Value"][0]
            for configured in found.properties["Components"]
            for p in configured.get("Parameters", [])
        }
        for name, group in wanted.items():
            if given.get(name) != group:
                yield _found("LOG_GROUP", where, f"{name} {given.get(name)}, not {group}")
        folder = str(given.get("LogFolder", "")).replace("\\\\", "\\")
        if folder != contract.WindowsPath.LOGS:
            yield _found("LOG_FOLDER", where, f"{folder}, not {contract.WindowsPath.LOGS}")


def _component(configured: dict[str, Any]) -> str:
    """Return the logical ID of a recipe's component."""
    arn = configured["ComponentArn"]
    return str(arn.get("Fn::GetAtt", [arn])[0] if isinstance(arn, dict) else arn)


def pipeline(deployment: Deployment) -> Iterator[Finding]:
    """The pipeline is on, starts when configured and on a new release, and tests what it built."""
    config = deployment.config
    for where, found in deployment.everywhere(PIPELINE):
        properties = found.properties
        if properties.get("Status") != "ENABLED":
            yield _found("OFF", where, str(properties.get("Status")))
        if properties.get("Schedule", {}).get("ScheduleExpression") != config.image.schedule:
            yield _found("SCHEDULE", where, str(properties.get("Schedule")))
        if properties.get("ImageTestsConfiguration", {}).get("ImageTestsEnabled") is not True:
            yield _found("UNTESTED", where)
        yield from _starts(deployment, found)


def results(deployment: Deployment) -> Iterator[Finding]:
    """An image's id is written where the fleet reads it, in its region; old images go."""
    config = deployment.config
    wanted = contract.parameter_name(config.stage, contract.Parameter.AMI_WINDOWS_GPU)
    for where, found in deployment.everywhere(DISTRIBUTION):
        for distribution in found.properties["Distributions"]:
            written = [p["ParameterName"] for p in distribution.get("SsmParameterConfigurations", [])]
            if written != [wanted] or distribution["Region"] != config.region:
                yield _found("PARAMETER", where, f"{written} in {distribution['Region']}, not {wanted}")
    for where, found in deployment.everywhere("AWS::ImageBuilder::LifecyclePolicy"):
        if found.properties.get("Status", "ENABLED") != "ENABLED":
            yield _found("KEEPS_ALL", where, "old images are not removed")


def _starts(deployment: Deployment, pipeline_: Resource) -> Iterator[Finding]:
    """Yield a finding unless an enabled rule starts the pipeline when the active release changes."""
    wanted = contract.parameter_name(deployment.config.stage, contract.Parameter.MEDIT_RELEASE)
    rules = [
        rule
        for _, rule in deployment.everywhere("AWS::Events::Rule")
        if {"Fn::GetAtt": [pipeline_.logical_id, "Arn"]}
        in [t["Arn"] for t in rule.properties.get("Targets", [])]
    ]
    names = [r.properties["EventPattern"].get("detail", {}).get("name") for r in rules]
    if names != [[wanted]] or any(r.properties.get("State", "ENABLED") != "ENABLED" for r in rules):
        yield _found("NOT_ON_RELEASE", f"image/{pipeline_.logical_id}", f"{names}, not {wanted}")
