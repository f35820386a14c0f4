"""Query parameters that a path does not have are refused, as unknown fields of a body are."""

from itertools import islice

from fastapi import Request

from scanfleet.api.validation import MAX_ERRORS, nearest, shown
from scanfleet.errors import FieldError, InvalidRequest


def refuse_unknown_parameters(request: Request) -> None:
    """Raise InvalidRequest that names each unknown parameter and the nearest known one.

    A misspelled filter would otherwise be no filter, and the answer one to another question.
    """
    if not request.query_params:
        return
    known = _documented(request)
    unknown = (name for name in request.query_params if name not in known)
    errors = [
        FieldError(
            field=name,
            message="unknown parameter" + nearest(name, known),
            value=shown(request.query_params[name]),
            allowed=", ".join(known) or "no parameters",
        )
        for name in islice(unknown, MAX_ERRORS)
    ]
    if errors:
        raise InvalidRequest(errors)


def _documented(request: Request) -> list[str]:
    """Return the names of the query parameters that the API's document gives this call."""
    document = request.app.openapi()
    operation = document["paths"][request.scope["route"].path][request.method.lower()]
    return [found["name"] for found in operation.get("parameters", []) if found["in"] == "query"]
