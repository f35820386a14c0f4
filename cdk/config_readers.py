"""How one value of the context is read: a reader returns it typed, or says what would have been allowed."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, field, fields
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_network
from types import MappingProxyType
from typing import Any, TypeVar

from scanfleet.contract import AUTO_SLOTS, MOST_SLOTS, PRODUCT

LONGEST_VALUE_SHOWN = 500
"""Characters of a wrong value in an error."""

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=StrEnum)
Reader = Callable[[object], Value]


class ConfigError(Exception):
    """The context is wrong; the message names the field, the value got and what is allowed."""

    def __init__(self, *, field_name: str, got: object, allowed: str) -> None:
        value = repr(got)
        if len(value) > LONGEST_VALUE_SHOWN:
            value = value[:LONGEST_VALUE_SHOWN] + "..."
        name = "".join(c if c.isprintable() else repr(c)[1:-1] for c in field_name)
        super().__init__(f"{name}: got {value}; allowed: {allowed}")


class Refused(Exception):
    """A reader's answer to a wrong value: what would have been allowed, and where inside the value."""

    def __init__(self, allowed: str, *, path: tuple[str, ...] = (), got: object = MISSING) -> None:
        super().__init__(allowed)
        self.path = path
        self.got = got

    def inside(self, name: str, value: object) -> "Refused":
        """Return the same refusal as seen from one level further out."""
        got = value if self.got is MISSING else self.got
        return Refused(str(self), path=(name, *self.path), got=got)


def setting(reader: Reader[Any], **default: Any) -> Any:
    """Declare a dataclass field that `read_object` fills with what `reader` returns."""
    return field(metadata={"read": reader}, **default)


def read_object(kind: type[Value], value: object) -> Value:
    """Return the dataclass with each field read by its own reader. Raises Refused."""
    if not isinstance(value, Mapping):
        raise Refused("an object")
    declared = fields(kind)  # type: ignore[arg-type]
    names = [f.name for f in declared]
    for name in value:
        if name not in names:
            raise Refused(one_of(names) + did_you_mean(name, names), path=(str(name),), got=value[name])
    facts: dict[str, Any] = {}
    for f in declared:
        if f.name in value:
            facts[f.name] = read_inside(f.name, value[f.name], f.metadata["read"])
        elif f.default is MISSING and f.default_factory is MISSING:
            raise Refused(f"a value: {f.name} is required", path=(f.name,), got=None)
    return kind(**facts)


def read_inside(name: str, value: object, reader: Reader[Value]) -> Value:
    """Return what the reader returns; a refusal then names where. Raises Refused."""
    try:
        return reader(value)
    except Refused as refused:
        raise refused.inside(name, value) from None


# --- Readers -----------------------------------------------------------------------------------------------


def text(pattern: str, allowed: str) -> Reader[str]:
    """Read a text that the whole pattern matches."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value, flags=re.ASCII):
            raise Refused(allowed)
        return value

    return read


def slots(value: object) -> int:
    """Read a number of slots; "auto" is AUTO_SLOTS."""
    if value == "auto":
        return AUTO_SLOTS
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SLOTS:
        raise Refused(f'a whole number from 1 to {MOST_SLOTS}, or "auto"')
    return value


def cidr(value: object) -> str:
    """Read an IPv4 block by its first address."""
    allowed = "an IPv4 CIDR block such as 10.0.0.0/16"
    if not isinstance(value, str) or not re.fullmatch(r"[0-9.]+/[0-9]{1,2}", value):
        raise Refused(allowed)
    try:
        block = ip_network(value, strict=False)
    except ValueError:
        raise Refused(allowed) from None
    if str(block) != value:
        raise Refused(f"the block's first address: {block}")
    return value


def boolean(value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise Refused("true or false")
    return value


def whole(lowest: int, highest: int, unit: str = "") -> Reader[int]:
    """Read a whole number from `lowest` to `highest`, both included."""
    of = f" of {unit}" if unit else ""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise Refused(f"a whole number{of} from {lowest} to {highest}")
        return value

    return read


def amount(lowest: float, highest: float, unit: str) -> Reader[float]:
    """Read a number from `lowest` to `highest`, both included."""

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise Refused(f"a number of {unit} from {lowest} to {highest}")
        return float(value)

    return read


def one_from(choices: Iterable[Value], noun: str = "one") -> Reader[Value]:
    """Read one of these values."""
    allowed = tuple(choices)

    def read(value: object) -> Value:
        for choice in allowed:
            if choice == value and not isinstance(value, bool):
                return choice
        raise Refused(f"{noun} of " + ", ".join(str(choice) for choice in allowed))

    return read


def choice(kind: type[Choice]) -> Reader[Choice]:
    """Read a member of the enumeration."""
    return one_from(tuple(kind))


def optional(reader: Reader[Value]) -> Reader[Value | None]:
    """Read null as None."""
    return lambda value: None if value is None else reader(value)


def list_of(reader: Reader[Value], *, at_least: int = 0, repeats: bool = False) -> Reader[tuple[Value, ...]]:
    """Read a list; a value may be in it twice only with `repeats`."""

    def read(value: object) -> tuple[Value, ...]:
        if not isinstance(value, list | tuple) or len(value) < at_least:
            raise Refused(f"a list of at least {at_least}" if at_least else "a list")
        items = tuple(read_inside(str(i), item, reader) for i, item in enumerate(value))
        if not repeats and len(set(items)) != len(items):
            raise Refused("each value once")
        return items

    return read


def object_of(
    read_key: Reader[Any], reader: Reader[Value], *, at_least: int = 0
) -> Reader[Mapping[Any, Value]]:
    """Read an object whose keys and values are read by these readers."""

    def read(value: object) -> Mapping[Any, Value]:
        if not isinstance(value, Mapping) or len(value) < at_least:
            raise Refused(f"an object of at least {at_least}" if at_least else "an object")
        return MappingProxyType(
            {read_inside(str(k), k, read_key): read_inside(str(k), item, reader) for k, item in value.items()}
        )

    return read


def nested(kind: type[Value]) -> Reader[Value]:
    """Read an object into the dataclass."""
    return lambda value: read_object(kind, value)


def tags(value: object) -> Mapping[str, str]:
    """Read tags.

    Source: AWS tagging guide, "Tag naming limits and requirements". Of 50 tags on a resource, some are the
    deployment's own and CloudFormation's.
    """
    if not isinstance(value, Mapping) or len(value) > 40:
        raise Refused("an object of at most 40 texts")
    for key, item in value.items():
        well_formed = (
            isinstance(key, str)
            and isinstance(item, str)
            and re.fullmatch(r"[\w .:/=+@-]{1,128}", key)
            and re.fullmatch(r"[\w .:/=+@-]{0,256}", item)
        )
        if not well_formed or key.lower().startswith(("aws:", f"{PRODUCT}:")):
            raise Refused(
                f'keys of 1 to 128 characters, not starting with "aws:" or "{PRODUCT}:", and values of up to'
                " 256, of letters, digits, spaces and . : / = + - @ _"
            )
    spellings: dict[str, str] = {}
    for key, item in value.items():
        other = spellings.setdefault(key.casefold(), key)
        if other != key:
            raise Refused(f"one spelling: IAM takes it for the same key as {other!r}", path=(key,), got=item)
    return MappingProxyType(dict(value))


def one_of(names: Iterable[str]) -> str:
    """Return the sentence that lists what is allowed."""
    return "one of " + ", ".join(sorted(names))


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return "; did you mean ...?", or nothing when no name is near."""
    near = get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
