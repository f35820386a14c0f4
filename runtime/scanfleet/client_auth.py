"""Who calls: what is added to each call to the API, by the kind of address that it goes to."""

import re
from collections.abc import Generator

import httpx

_HTTP_API = re.compile(r"[a-z0-9]+\.execute-api\.(?P<region>[a-z0-9-]+)\.amazonaws\.com")


class BearerToken(httpx.Auth):
    """Sends a token of the deployment's issuer."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def region_of(url: str) -> str | None:
    """Return the region of an HTTP API's own address, None for any other.

    Example: "https://a1b2.execute-api.eu-central-1.amazonaws.com" -> "eu-central-1".
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return None  # the client says so
    found = _HTTP_API.fullmatch(parsed.host) if parsed.scheme == "https" else None
    return found["region"] if found else None


def auth_for(url: str, *, token: str | None) -> httpx.Auth | None:
    """Return how calls to this service say who calls: by `token`; else, to an HTTP API, by a signature.

    Credentials are those that every AWS tool finds; without any, calls go as they are, and the API refuses
    them. None for other addresses. Raises ConfigurationError for credentials that are half there.
    """
    if token:
        return BearerToken(token)
    region = region_of(url)
    if region is None:
        return None
    from scanfleet.client_signing import find_signer  # noqa: PLC0415 - botocore, which others need not load

    return find_signer(region)
