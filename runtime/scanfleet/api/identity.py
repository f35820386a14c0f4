"""Who calls. The caller owns the jobs that it submits and sees no others, unless it is an operator."""

from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from scanfleet import log_context
from scanfleet.callers import Caller

__all__ = ["Caller", "CallerDep"]

LOCAL_OWNER = "local"


class IdentityProvider(Protocol):
    """Tells who sent a request."""

    def identify(self, request: HTTPConnection) -> Caller:
        """Return the caller."""
        ...


class LocalIdentity:
    """One machine, one person: everybody who reaches the API is its operator.

    Safe only because the API then listens on the loopback address and refuses foreign hosts and origins.
    """

    def identify(self, request: HTTPConnection) -> Caller:
        """Return the local operator, whatever the request says."""
        del request
        return Caller(owner=LOCAL_OWNER, is_operator=True)


def current_caller(request: HTTPConnection) -> Caller:
    """Return who sent the request or opens the WebSocket. A FastAPI dependency; tests override it."""
    provider: IdentityProvider = request.app.state.identity
    caller = provider.identify(request)
    log_context.add(caller=caller.owner)
    return caller


CallerDep = Annotated[Caller, Depends(current_caller)]
