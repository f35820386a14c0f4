"""Who calls. The caller owns the jobs that it submits and sees no others, unless it is an operator."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from scanfleet import log_context

LOCAL_OWNER = "local"


@dataclass(frozen=True)
class Caller:
    """An authenticated caller. `owner` is 1 to 128 characters; it names the caller's jobs and uploads.

    tenant_prefixes: s3:// folders that this caller may use, and no caller of another tenant.
    """

    owner: str
    is_operator: bool
    tenant_prefixes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The owner becomes a folder name in S3 and a table key.
        if not 1 <= len(self.owner) <= 128 or not self.owner.isprintable() or set(self.owner) <= {"."}:
            raise ValueError(f"not an owner's name: {self.owner!r}")

    def may_see(self, owner: str) -> bool:
        """Say whether this caller may see what `owner` owns."""
        return self.is_operator or owner == self.owner


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
