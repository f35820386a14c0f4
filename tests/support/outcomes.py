"""A call that may be refused, as a value: for properties that hold of either outcome."""

from collections.abc import Callable
from typing import Any


def outcome(refusal: type[Exception], call: Callable[[], Any]) -> tuple[Any, Any]:
    """Return what the call gives and None, or None and its refusal. Other errors pass."""
    try:
        return call(), None
    except refusal as refused:
        return None, refused
