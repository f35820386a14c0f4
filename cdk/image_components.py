"""Image Builder components: documents of ami_pipeline/components/, and the values of their parameters.

A document says `{{ Name }}` for each of its parameters, and AWSTOE puts the value in: no other text is
replaced on the way, so what is reviewed is what runs. A line `# include: <path>` stands for that file, at the
line's indent; with names after the path, for these PowerShell functions of it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aws_cdk import Stack
from aws_cdk.aws_imagebuilder import CfnComponent, CfnImageRecipe
from constructs import Construct

from cdk.agent_bundle import AgentBundle
from cdk.config import ConfigError, DeploymentConfig
from cdk.image_versions import IMAGES, ImageVersions
from scanfleet.contract import PRODUCT, Component, Parameter, WindowsPath, log_group_name, parameter_name

COMPONENTS = IMAGES / "components"
MAX_INLINE_CHARACTERS = 16_000
"""Of a component's data in a template. Source: Image Builder API reference, CreateComponent: data."""
MAX_VERSION_NODE = 2**30 - 1
"""Source: Image Builder API reference, CreateComponent: semanticVersion."""
NO_SET = "none"
"""The golden set's URI when none is configured; scanfleet/golden.py knows it, too."""

_INCLUDE = re.compile(r"^(?P<indent> *)# include: (?P<path>\S+)(?P<names>( \S+)*)$", re.MULTILINE)
Values = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One component of an image, in its order, with the values of its parameters (tokens allowed)."""

    name: str
    values: Values


def image_parts(
    stack: Stack, *, config: DeploymentConfig, versions: ImageVersions, bundle: AgentBundle
) -> list[Part]:
    """Return what an image is made of, first to last: the only place where components get their values."""
    python = {"Python": WindowsPath.PYTHON.value}
    region = {"Region": stack.region}
    releases = {"Releases": WindowsPath.MEDIT_RELEASES.value}
    driver, installer, agent = versions.nvidia_driver, versions.python, versions.cloudwatch_agent
    parts = [Part(name="windows-updates", values={})] if config.image.windows_updates else []
    parts += [
        Part(
            name="nvidia-driver",
            values={
                "Url": driver.url,
                "Version": driver.version,
                "Sha256": driver.sha256,
                "Publisher": driver.publisher,
            },
        ),
        Part(
            name="python",
            values={
                "Url": installer.url,
                "Sha256": installer.sha256,
                "Version": installer.version,
                "Folder": WindowsPath.PYTHON.value,
            },
        ),
        Part(name="cloudwatch-agent", values={"Url": agent.url, "Sha256": agent.sha256, **_logs(config)}),
        Part(name="scanfleet-agent", values={**_bundle(bundle), **python, **region}),
    ]
    if config.medit.release_bucket is not None:
        parts.append(
            Part(
                name="medit-release",
                values={
                    "Bucket": config.medit.release_bucket,
                    "VersionParameter": parameter_name(config.stage, Parameter.MEDIT_RELEASE),
                    **python,
                    **region,
                    **releases,
                },
            )
        )
    golden = {
        "Set": config.image.golden_prefix or NO_SET,
        "SecondsAtMost": str(config.image.golden_seconds_at_most),
    }
    return [*parts, Part(name="golden-test", values={**golden, **python, **region, **releases})]


def make_component(scope: Construct, name: str, *, stage: str, versions: ImageVersions) -> CfnComponent:
    """Make a component of its document; changed content makes a new version of it."""
    data = read_document(name)
    return CfnComponent(
        scope,
        name.title().replace("-", ""),
        name=f"{PRODUCT}-{stage}-{name}",
        platform="Windows",
        version=content_version(versions.components[name], data),
        data=data,
    )


def component_configuration(
    component: CfnComponent, values: Values
) -> CfnImageRecipe.ComponentConfigurationProperty:
    """Return a component as a recipe names it."""
    parameters = [
        CfnImageRecipe.ComponentParameterProperty(name=name, value=[value])
        for name, value in sorted(values.items())
    ]
    return CfnImageRecipe.ComponentConfigurationProperty(
        component_arn=component.attr_arn, parameters=parameters or None
    )


def read_document(name: str, folder: Path = COMPONENTS) -> str:
    """Return a component's document with all that it includes. Raises ConfigError when it is too long."""
    path = folder / f"{name}.yaml"
    data = _INCLUDE.sub(_included, path.read_text(encoding="utf-8"))
    if len(data) > MAX_INLINE_CHARACTERS:
        raise ConfigError(
            field_name=f"ami_pipeline/components/{name}.yaml",
            got=f"{len(data)} characters",
            allowed=f"{MAX_INLINE_CHARACTERS} with what it includes",
        )
    return data


def content_version(major_minor: str, content: str) -> str:
    """Return major.minor.<30 bits of the content's SHA-256>: versions never change what they hold.

    Example: ("1.0", "...") -> "1.0.683415917". docs/decisions/0031-image-versions.md has the reasons.
    """
    digest = int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big")
    return f"{major_minor}.{digest & MAX_VERSION_NODE}"


def recipe_content(stack: Stack, facts: Mapping[str, Any]) -> str:
    """Return the facts of a recipe as text, tokens as the template has them."""
    return json.dumps(stack.resolve(facts), sort_keys=True)


def _included(match: re.Match[str]) -> str:
    text = (IMAGES.parent / match["path"]).read_text(encoding="utf-8")
    if names := match["names"].split():
        text = "\n".join(_function(text, name, match["path"]) for name in names)
    return "\n".join(match["indent"] + line if line else "" for line in text.splitlines())


def _function(text: str, name: str, path: str) -> str:
    found = re.search(rf"^function {re.escape(name)} \{{\n.*?^\}}$", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ConfigError(field_name=f"# include: {path}", got=name, allowed="a function of that file")
    return found[0]


def _logs(config: DeploymentConfig) -> Values:
    groups = {
        "UserdataLogGroup": Component.USERDATA,
        "AgentLogGroup": Component.AGENT,
        "JobsLogGroup": Component.JOBS,
    }
    folder = {"LogFolder": WindowsPath.LOGS.replace("\\", "\\\\")}
    return folder | {name: log_group_name(config.stage, component) for name, component in groups.items()}


def _bundle(bundle: AgentBundle) -> Values:
    return {
        "Bucket": bundle.source.bucket_name,
        "WheelhouseKey": bundle.wheelhouse.object_key,
        "WheelhouseSha256": bundle.wheelhouse.sha256,
        "SourceKey": bundle.source.object_key,
        "SourceName": bundle.source.file_name,
        "SourceSha256": bundle.source.sha256,
        "Mark": WindowsPath.BUNDLE_MARK.value,
    }
