"""Everything that one stage deploys, as data: what checks read and what seeded faults change."""

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cdk.config import DeploymentConfig
from tests.support.policies import Samples
from tests.support.template import Resource, StackTemplate

STACKS = ("network", "data", "firstimage", "image", "api", "fleet", "monitoring")
COMPONENT = "AWS::ImageBuilder::Component"
LAUNCH_TEMPLATE = "AWS::EC2::LaunchTemplate"
VERSIONS_FILE = Path("ami_pipeline", "versions.yaml")
WORKFLOWS_FOLDER = Path(".github", "workflows")


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One stage's templates, and the documents inside them and beside them.

    Documents are taken out once: who changes a template does not change them, and the other way round.
    """

    config: DeploymentConfig
    templates: dict[str, dict[str, Any]]
    """Stack -> template."""
    components: dict[str, str]
    """Logical ID in the image stack -> AWSTOE document, as Image Builder gets it."""
    user_data: dict[str, str]
    """Logical ID of a launch template -> its script, decoded; references are sample values."""
    versions: dict[str, Any]
    """What ami_pipeline/versions.yaml pins."""
    workflows: dict[str, str]
    """File name -> text of each GitHub workflow."""

    def stack(self, name: str) -> StackTemplate:
        """Return a stack's template."""
        return StackTemplate(self.templates[name])

    def everywhere(self, *kinds: str) -> Iterator[tuple[str, Resource]]:
        """Yield (place, resource) of every stack's resources of these types. Place: "fleet/Group12345678"."""
        for name in self.templates:
            for resource in self.stack(name).resources():
                if resource.kind in kinds:
                    yield f"{name}/{resource.logical_id}", resource

    def samples(self) -> Samples:
        """Return what replaces references by sample values."""
        return Samples(self.templates)

    def copied(self) -> "Deployment":
        """Return a copy that shares nothing that changes."""
        return Deployment(
            config=self.config,
            templates=copy.deepcopy(self.templates),
            components=dict(self.components),
            user_data=dict(self.user_data),
            versions=copy.deepcopy(self.versions),
            workflows=dict(self.workflows),
        )


def read_deployment(assembly: Any, *, config: DeploymentConfig, repo_root: Path) -> Deployment:
    """Return what a synthesized app deploys."""
    templates = {
        name: assembly.get_stack_by_name(f"scanfleet-{config.stage}-{name}").template for name in STACKS
    }
    samples = Samples(templates)
    return Deployment(
        config=config,
        templates=templates,
        components={
            r.logical_id: samples.text(r.properties["Data"], "image")
            for r in StackTemplate(templates["image"]).all(COMPONENT)
        },
        user_data={
            r.logical_id: samples.text(r.properties["LaunchTemplateData"]["UserData"]["Fn::Base64"], "fleet")
            for r in StackTemplate(templates["fleet"]).all(LAUNCH_TEMPLATE)
        },
        versions=yaml.safe_load(_text(repo_root / VERSIONS_FILE) or "{}"),
        workflows={path.name: _text(path) for path in sorted((repo_root / WORKFLOWS_FOLDER).glob("*.yml"))},
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def spelled(value: Any) -> str:
    """Return a text of a template with joins made and every other function written as <its JSON>."""
    if isinstance(value, str):
        return value
    if "Fn::Join" in value:
        separator, parts = value["Fn::Join"]
        return str(separator).join(spelled(part) for part in parts)
    return "<" + json.dumps(value).replace('"', "") + ">"


def listed(value: Mapping[str, Any] | list[Any] | str | None) -> list[Any]:
    """Return a value that may stand alone as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
