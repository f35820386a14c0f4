"""What every log line of a piece of work says besides: which job, attempt, owner, trace.

Whoever begins a piece of work binds its facts once. They are on each line that is logged inside, by this
thread, by coroutines and handlers of the same request, and by the `ContextThread`s that it starts. Facts that
come to be known later (`add`) are on the lines of all of them from then on.
"""

import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_BOUND: ContextVar[dict[str, Any] | None] = ContextVar("scanfleet_log_facts", default=None)
_PROCESS: dict[str, Any] = {}

TRACE_ID_LENGTH = 32
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?"
)
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


@contextmanager
def bound(**facts: object) -> Iterator[None]:
    """Put these facts, and those bound around it, on every line of the block."""
    token = _BOUND.set({**(_BOUND.get() or {}), **facts})
    try:
        yield
    finally:
        _BOUND.reset(token)


def add(**facts: object) -> None:
    """Put further facts on the lines of the innermost bound block, in all its threads; else do nothing."""
    found = _BOUND.get()
    if found is not None:
        found.update(facts)


def facts() -> Mapping[str, Any]:
    """Return what a line that is logged here says besides."""
    # Copies and unions of dicts are one step each to other threads.
    return _PROCESS | (_BOUND.get() or {})


def bound_fact(name: str) -> Any:
    """Return one fact of the work at hand, or None."""
    found = _BOUND.get()
    return None if found is None else found.get(name)


def set_process_facts(**known: object) -> None:
    """Say what is true of this whole process, such as the machine; lines outside of any work have it, too."""
    _PROCESS.clear()
    _PROCESS.update(known)


class ContextThread(threading.Thread):
    """A thread that belongs to the work that starts it."""

    def start(self) -> None:
        """Begin; what is bound here and now is bound there."""
        self._context = copy_context()
        super().start()

    def run(self) -> None:
        """Do the thread's work."""
        self._context.run(super().run)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function for other threads, such as a pool's: called with what is bound here and now."""
    context = copy_context()

    def call(*arguments: P.args, **named: P.kwargs) -> R:
        return context.copy().run(function, *arguments, **named)  # a context can be entered once at a time

    return call


# --- Traces ------------------------------------------------------------------------------------------------


def new_trace_id() -> str:
    """Return a fresh trace id: 32 lower-case hexadecimal digits."""
    return secrets.token_hex(TRACE_ID_LENGTH // 2)


def is_trace_id(text: str) -> bool:
    """Say whether `text` has the form of a trace id."""
    return _TRACE_ID.fullmatch(text) is not None


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id that a `traceparent` header names, or None when there is none, or it is not one.

    Of version 00 nothing may follow the flags; later versions may have more, and begin alike.
    Source: W3C Trace Context, "traceparent Header".
    """
    match = _TRACEPARENT.fullmatch((traceparent or "").strip())
    if match is None or (match[0].startswith("00") and match[3]):
        return None
    return match[1]


def traceparent(trace_id: str) -> str:
    """Return the header for a call of the trace, with a fresh parent id; its lines are kept ("sampled")."""
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"
