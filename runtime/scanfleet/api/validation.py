"""pydantic's errors as the API's: which field, what value, what is allowed, the nearest known name."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from scanfleet.errors import FieldError, InvalidRequest, shorten

MAX_ERRORS = 50
"""Finding the nearest known name takes a while, and a body may hold 100,000 unknown ones."""

Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], raw: Mapping[str, Any]) -> Model:
    """Return the model that the request's body holds.

    Raises InvalidRequest naming every missing, unknown and wrong field at once.
    """
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as error:
        raise InvalidRequest(field_errors(error.errors(), known=tuple(kind.model_fields))) from error


def field_errors(
    found: Iterable[Mapping[str, Any]], *, known: Sequence[str] = (), drop_first: bool = False
) -> list[FieldError]:
    """Return one error for each of pydantic's.

    drop_first: FastAPI's locations start with "query", "path" or "header", which the field's name does not.
    """
    return [_field_error(one, known, drop_first=drop_first) for one in islice(found, MAX_ERRORS)]


def _field_error(one: Mapping[str, Any], known: Sequence[str], *, drop_first: bool) -> FieldError:
    location = one["loc"][1:] if drop_first else one["loc"]
    field = ".".join(str(part) for part in location)
    if one["type"] == "missing":
        return FieldError(field=field, message="is missing", allowed=_allowed(one))
    if one["type"] == "extra_forbidden":
        message = "unknown field" + nearest(field, known)
        return FieldError(field=field, message=message, value=shown(one["input"]), allowed=", ".join(known))
    message = one["msg"][:1].lower() + one["msg"][1:]
    return FieldError(field=field, message=message, value=shown(one["input"]), allowed=_allowed(one))


def _allowed(one: Mapping[str, Any]) -> str | None:
    context = one.get("ctx", {})
    if "expected" in context:
        return str(context["expected"])
    bounds = [
        f"{words} {context[name]}"
        for name, words in (
            ("ge", "at least"),
            ("le", "at most"),
            ("min_length", "at least this long:"),
            ("max_length", "at most this long:"),
            ("pattern", "matching"),
        )
        if name in context
    ]
    return ", ".join(bounds) or None


def nearest(name: str, known: Sequence[str]) -> str:
    """Return '; did you mean "x"?' for the known name most like this one, or nothing."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f'; did you mean "{found[0]}"?' if found else ""


def shown(value: object) -> str:
    """Return the value's JSON text, cut to 200 characters."""
    return shorten(json.dumps(value, default=str))
