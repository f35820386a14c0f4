"""Who calls, as the door in front of the Lambda function says it.

    door            mode iam                                  mode jwt
    HTTP API        the ARN whose AWS signature it checked    `sub` of the token that it checked
    load balancer   NETWORK_OWNER, whoever calls              `sub` of the token that it checked

Only what the doors themselves write is believed: API Gateway's `requestContext.authorizer`, and the bearer
token that the load balancer's listener verifies before it forwards anything. No header that a client may set
decides by itself. A request without a proven caller gets the 403.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Never

from starlette.requests import HTTPConnection

from scanfleet.api.identity import Caller, IdentityProvider, LocalIdentity
from scanfleet.api.problems import HttpProblem
from scanfleet.contract import Auth
from scanfleet.settings import ApiSettings

NETWORK_OWNER = "network"
"""Who calls through a load balancer that checks nobody: all who reach it share their jobs and uploads."""

EVENT = "aws.event"
"""Where the adapter puts the door's event into a request's scope."""

_SESSION = re.compile(r"arn:(?P<partition>[a-z-]+):sts::(?P<account>\d+):assumed-role/(?P<name>[^/]+)/[^/]+")
_NAMED = re.compile(
    r"arn:(?P<partition>[a-z-]+):iam::(?P<account>\d+):(?P<kind>role|user)/(.+/)?(?P<name>[^/]+)"
)


def identity_provider(settings: ApiSettings, *, clock: Callable[[], float] = time.time) -> IdentityProvider:
    """Return the provider of the settings' mode."""
    if settings.auth_mode is Auth.LOCAL:
        return LocalIdentity()
    return DoorIdentity(settings, clock=clock)


class DoorIdentity:
    """Believes the doors."""

    def __init__(self, settings: ApiSettings, *, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._operators = frozenset(principal(name) for name in settings.operators)
        self._prefixes = {
            principal(caller): tenant.allowed_prefixes
            for tenant in settings.tenants.values()
            for caller in tenant.callers
        }

    def identify(self, request: HTTPConnection) -> Caller:
        """Return the caller. Raises the 403 when the door did not say who it is."""
        owner = self._owner(request.scope.get(EVENT) or {})
        try:
            return Caller(
                owner=owner,
                is_operator=owner in self._operators,
                tenant_prefixes=self._prefixes.get(owner, ()),
            )
        except ValueError:
            _refuse("the caller's name must have 1 to 128 printable characters")

    def _owner(self, event: Mapping[str, Any]) -> str:
        context = event.get("requestContext") or {}
        if "elb" in context:
            return self._owner_behind_load_balancer(event)
        proof = (context.get("authorizer") or {}).get(self._settings.auth_mode.value) or {}
        if self._settings.auth_mode is Auth.IAM:
            owner = principal(str(proof.get("userArn") or ""))
        else:
            owner = str((proof.get("claims") or {}).get("sub") or "")
        return owner or _refuse("the request carries no caller that its door has checked")

    def _owner_behind_load_balancer(self, event: Mapping[str, Any]) -> str:
        if self._settings.auth_mode is Auth.IAM:
            return NETWORK_OWNER
        claims = _claims(event)
        self._require_meant_for_us(claims)
        owner = claims.get("sub")
        return owner if isinstance(owner, str) and owner else _refuse("the token names no subject (sub)")

    def _require_meant_for_us(self, claims: Mapping[str, Any]) -> None:
        """Raise the 403 unless issuer, audience and times fit.

        The load balancer checked signature, issuer and times already, but no audience: it cannot take one in
        either of the two forms that tokens have. `client_id` counts where there is no `aud`, as for API
        Gateway's JWT authorizer.
        """
        expires = claims.get("exp")
        if claims.get("iss") != self._settings.jwt_issuer:
            _refuse("the token is another issuer's")
        if not (isinstance(expires, int | float) and expires > self._clock()):
            _refuse("the token has expired")
        audience = claims.get("aud", claims.get("client_id"))
        named = audience if isinstance(audience, list) else [audience]
        if not any(name in self._settings.jwt_audience for name in named):
            _refuse("the token is meant for another audience")


def principal(arn: str) -> str:
    """Return who an ARN stands for; text that is no role's or user's ARN stays as it is.

    A role's sessions are the role, so that a job outlives the session that submitted it. Paths are left out:
    a session's ARN does not tell its role's, and names are unique within an account anyway.
    Example: arn:aws:sts::111122223333:assumed-role/Scans/ann -> arn:aws:iam::111122223333:role/Scans.
    Source: IAM user guide, "IAM identifiers".
    """
    if match := _SESSION.fullmatch(arn):
        return f"arn:{match['partition']}:iam::{match['account']}:role/{match['name']}"
    if match := _NAMED.fullmatch(arn):
        return f"arn:{match['partition']}:iam::{match['account']}:{match['kind']}/{match['name']}"
    return arn


def _claims(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the verified token says. Raises the 403 unless there is exactly one token."""
    tokens = list(_authorizations(event))
    scheme, _, token = tokens[0].strip().partition(" ") if len(tokens) == 1 else ("", "", "")
    parts = token.strip().split(".")
    if scheme.lower() != "bearer" or len(parts) != 3:
        _refuse("send exactly one Authorization header: Bearer and a JWT")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        _refuse("the token is no JWT")
    return claims if isinstance(claims, dict) else _refuse("the token is no JWT")


def _authorizations(event: Mapping[str, Any]) -> Iterator[str]:
    for name, values in (event.get("multiValueHeaders") or {}).items():
        if name.lower() == "authorization":
            yield from values
    for name, value in (event.get("headers") or {}).items():
        if name.lower() == "authorization":
            yield value


def _refuse(reason: str) -> Never:
    raise HttpProblem(403, reason)
