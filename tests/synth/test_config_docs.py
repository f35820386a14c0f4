"""docs/configuration.md has one row for each setting of cdk.json, with its default, and no other."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any

from cdk.config import (
    ApiConfig,
    DeploymentConfig,
    ImageConfig,
    MeditConfig,
    NetworkConfig,
    PoolConfig,
    ScheduleConfig,
    TenantConfig,
)

SECTIONS = {
    "network": ("network.", NetworkConfig),
    "api": ("api.", ApiConfig),
    "pools": ("pools.<pool>.", PoolConfig),
    "medit": ("medit.", MeditConfig),
    "image": ("image.", ImageConfig),
    "schedules": ("schedules[].", ScheduleConfig),
    "tenants": ("tenants.<name>.", TenantConfig),
}
WITHOUT_ROW = {"stage", "network", "api", "pools", "medit", "image"}
"""The stage is a key, and these are headings."""


def declared() -> Iterator[tuple[str, str]]:
    """Yield each setting's name and default, as the page has to write them."""
    yield from ((f.name, shown(f)) for f in fields(DeploymentConfig) if f.name not in WITHOUT_ROW)
    for prefix, kind in SECTIONS.values():
        yield from ((prefix + f.name, shown(f)) for f in fields(kind))


def shown(field: Field[Any]) -> str:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    if default is MISSING:
        return "required"
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple | dict):
        return ", ".join(f"`{item}`" for item in default) or "none"
    return f"`{default.value if isinstance(default, Enum) else default}`"


def documented(repo_root) -> list[tuple[str, str]]:
    page = (repo_root / "docs" / "configuration.md").read_text(encoding="utf-8")
    part = page[page.index("## Deployments") : page.index("### What excludes what")]
    return re.findall(r"^\| `([a-z_.<>\[\]]+)` \| ([^|]+?) \|", part, flags=re.MULTILINE)


def test_the_page_has_one_row_for_each_setting_with_its_default_and_no_other(repo_root):
    assert sorted(documented(repo_root)) == sorted(declared())


def test_every_part_of_the_configuration_is_compared():
    nested = {f.name for f in fields(DeploymentConfig)} & SECTIONS.keys()

    assert nested == SECTIONS.keys()
    assert WITHOUT_ROW - {"stage"} <= nested
