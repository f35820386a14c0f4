"""What goes into an image: ami_pipeline/versions.yaml, typed and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cdk.config import ConfigError

IMAGES = Path(__file__).resolve().parent.parent / "ami_pipeline"
FILE = IMAGES / "versions.yaml"
UNKNOWN = "unknown"
"""In the place of the digest of a download that its publisher's signature vouches for."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file from elsewhere. `publisher` signed it, where no digest is known."""

    version: str
    url: str
    sha256: str
    publisher: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageVersions:
    """Everything that versions.yaml pins."""

    base_image: str
    base_image_version: str
    python: Download
    nvidia_driver: Download
    cloudwatch_agent: Download
    components: Mapping[str, str]
    """Component -> major.minor."""
    recipe: str


def read_versions(path: Path = FILE) -> ImageVersions:
    """Return the pins. Raises ConfigError that names the first value which is none."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = tree["base_image"]
    return ImageVersions(
        base_image=_matching(base["name"], r"[a-z0-9-]+", "base_image.name", "the name of a managed image"),
        base_image_version=_matching(
            base["version"], r"x\.x\.x|\d+\.(x\.x|\d+\.(x|\d+))", "base_image.version", "1.2.3, x for any"
        ),
        python=_download(tree, "python"),
        nvidia_driver=_download(tree, "nvidia_driver"),
        cloudwatch_agent=_download(tree, "cloudwatch_agent"),
        components={
            name: _matching(version, r"\d+\.\d+", f"components.{name}", "major.minor in quotes")
            for name, version in tree["components"].items()
        },
        recipe=_matching(tree["recipe"], r"\d+\.\d+", "recipe", "major.minor in quotes"),
    )


def _download(tree: Mapping[str, Any], name: str) -> Download:
    found = tree[name]

    def check(key: str, pattern: str, allowed: str) -> str:
        return _matching(found.get(key), pattern, f"{name}.{key}", allowed)

    publisher = str(found.get("publisher", ""))
    digest = rf"[0-9a-f]{{64}}|{UNKNOWN}" if publisher else r"[0-9a-f]{64}"
    version = check("version", r"[0-9][0-9A-Za-z.]*", "a version in quotes")
    url = check("url", r"https://[^\s?]+", "an https address")
    # An address without the version in it could be another file tomorrow.
    if version not in url or "latest" in url:
        raise _error(f"{name}.url", url, f"an address that names the version {version}")
    return Download(
        version=version,
        url=url,
        sha256=check("sha256", digest, "64 hex digits in lower case" + (f", or {UNKNOWN}" * bool(publisher))),
        publisher=publisher,
    )


def _matching(value: object, pattern: str, name: str, allowed: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise _error(name, value, allowed)
    return value


def _error(name: str, got: object, allowed: str) -> ConfigError:
    return ConfigError(field_name=f"ami_pipeline/versions.yaml: {name}", got=got, allowed=allowed)
