"""What one deployment looks like: read from the CDK context, typed, and checked before anything is built.

    cdk.json -> context -> "scanfleet": {"defaults": {...}, "stages": {"dev": {...}, ...}}

A stage's values replace the defaults'. `-c stage=NAME` picks the stage.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar, cast

from scanfleet.contract import PRODUCT, Pool

LOCAL_STAGE = "local"
"""The stage of the local mode: an emulator with a made-up account, whose data may be destroyed."""

Value = TypeVar("Value")
Reader = Callable[[object], Value]


class ConfigError(Exception):
    """The context is wrong; the message names the field, the value got and what is allowed."""

    def __init__(self, *, field_name: str, got: object, allowed: str) -> None:
        super().__init__(f"{field_name}: got {got!r}; allowed: {allowed}")


class _Refused(Exception):
    """A reader's answer to a wrong value: what would have been allowed. `_checked` adds the field's name."""


def _text(pattern: str, allowed: str) -> Reader[str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise _Refused(allowed)
        return value

    return read


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Refused("true or false")
    return value


def _days(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 3650:
        raise _Refused("a whole number of days from 1 to 3650")
    return value


def _list_of(read_one: Reader[Value], *, at_least: int) -> Reader[tuple[Value, ...]]:
    def read(value: object) -> tuple[Value, ...]:
        if not isinstance(value, list | tuple) or len(value) < at_least:
            raise _Refused(f"a list of at least {at_least}" if at_least else "a list")
        items = tuple(read_one(item) for item in value)
        if len(set(items)) != len(items):
            raise _Refused("each value once")
        return items

    return read


def _optional(read_one: Reader[Value]) -> Reader[Value | None]:
    return lambda value: None if value is None else read_one(value)


def _pool(value: object) -> Pool:
    try:
        return Pool(cast("str", value))
    except ValueError:
        raise _Refused("a list of " + ", ".join(Pool)) from None


def _tags(value: object) -> Mapping[str, str]:
    """Source: AWS tagging guide, "Tag naming limits": 128 characters a key, 256 a value, no "aws:"."""
    if not isinstance(value, Mapping):
        raise _Refused("an object of texts")
    for key, text in value.items():
        well_formed = (
            isinstance(key, str) and isinstance(text, str) and 0 < len(key) <= 128 and len(text) <= 256
        )
        if not well_formed or key.lower().startswith("aws:"):
            raise _Refused(
                'keys of 1 to 128 characters, not starting with "aws:"; values up to 256 characters'
            )
    return MappingProxyType(dict(value))


def _setting(reader: Reader[Any], **default: Any) -> Any:
    return field(metadata={"read": reader}, **default)


_read_stage = _text(r"[a-z][a-z0-9-]{0,15}", "a lower-case letter, then up to 15 of a-z, 0-9 and -")


@dataclass(frozen=True, kw_only=True)
class DeploymentConfig:
    """The facts of one deployment. `read_config` makes it; every value in it has been checked."""

    stage: str = _setting(_read_stage)
    """Name of the deployment: part of stack and parameter names, and a tag."""
    region: str = _setting(_text(r"[a-z]{2}(-[a-z]+)+-\d", "an AWS region such as eu-central-1"))
    account: str | None = _setting(_optional(_text(r"\d{12}", "12 digits, or left out")), default=None)
    """Unset: the account of whoever deploys. Synth never asks for it."""
    pools: tuple[Pool, ...] = _setting(_list_of(_pool, at_least=1), default=tuple(Pool))
    """Each pool gets its queues."""
    allowed_prefixes: tuple[str, ...] = _setting(
        _list_of(
            _text(
                r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^,\s]+/)?", "s3://bucket/ or s3://bucket/folder/"
            ),
            at_least=0,
        ),
        default=(),
    )
    """Where jobs may read and write besides the data bucket, which they always may."""
    retain_data: bool = _setting(_boolean, default=True)
    """Table and buckets outlive their stack and refuse deletion. Only the local stage may switch it off."""
    customer_managed_key: bool = _setting(_boolean, default=False)
    """Table and buckets use a KMS key of this deployment; by default keys that AWS owns."""
    noncurrent_versions_kept_days: int = _setting(_days, default=30)
    """An overwritten or deleted object can be restored this long."""
    tags: Mapping[str, str] = _setting(_tags, default_factory=lambda: MappingProxyType({}))
    """Tags on every resource, besides scanfleet:stage."""

    @property
    def is_local(self) -> bool:
        """Return whether this is the emulator's stage."""
        return self.stage == LOCAL_STAGE


def read_config(*, stage: object, context: object) -> DeploymentConfig:
    """Return the checked configuration of one stage.

    `context` is what cdk.json holds under "scanfleet". Raises ConfigError.
    """
    tree = _mapping(PRODUCT, context)
    _refuse_unknown(tree, known=("defaults", "stages"), where=f"{PRODUCT}.")
    defaults = _mapping(f"{PRODUCT}.defaults", tree.get("defaults", {}))
    stages = _mapping(f"{PRODUCT}.stages", tree.get("stages", {}))
    if not isinstance(stage, str) or stage not in stages:
        raise ConfigError(field_name="stage", got=stage, allowed=_one_of(stages))
    own = _mapping(f"{PRODUCT}.stages.{stage}", stages[stage])
    known = [f.name for f in fields(DeploymentConfig) if f.name != "stage"]
    _refuse_unknown(defaults, known=known, where=f"{PRODUCT}.defaults.")
    _refuse_unknown(own, known=known, where=f"{PRODUCT}.stages.{stage}.")
    return _checked({**defaults, **own, "stage": stage})


def _checked(values: Mapping[str, object]) -> DeploymentConfig:
    facts: dict[str, Any] = {}
    for f in fields(DeploymentConfig):
        if f.name not in values:
            continue
        try:
            facts[f.name] = f.metadata["read"](values[f.name])
        except _Refused as refused:
            raise ConfigError(field_name=f.name, got=values[f.name], allowed=str(refused)) from None
    if "region" not in facts:
        raise ConfigError(field_name="region", got=None, allowed="an AWS region such as eu-central-1")
    config = DeploymentConfig(**facts)
    if not config.retain_data and not config.is_local:
        raise ConfigError(
            field_name="retain_data",
            got=False,
            allowed=f"true: only the stage {LOCAL_STAGE!r} may destroy its data, this is {config.stage!r}",
        )
    return config


def _mapping(name: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ConfigError(field_name=name, got=value, allowed="an object")
    return value


def _refuse_unknown(values: Iterable[str], *, known: Iterable[str], where: str) -> None:
    names = list(known)
    for name in values:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(field_name=f"{where}{name}", got=name, allowed=_one_of(names) + hint)


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(sorted(names))
