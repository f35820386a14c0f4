"""Signatures by AWS credentials.

An HTTP API with IAM authorization wants SigV4 with the service name `execute-api`. Source: API Gateway
developer guide, "Control access to HTTP APIs with IAM authorization"; IAM user guide, "Signature Version 4".
"""

from collections.abc import Generator
from typing import Any, Protocol

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import get_session

from scanfleet.errors import ConfigurationError

SERVICE = "execute-api"
_SIGNED_TOO = ("content-type",)
"""Besides host and AWS's own: other headers may change on the way."""


class CredentialSource(Protocol):
    """What botocore's credentials are: those that expire give fresh ones each time they are asked."""

    def get_frozen_credentials(self) -> Any:
        """Return a key, a secret and a token that belong together."""


class SigV4(httpx.Auth):
    """Signs each call when it is sent, so that a repeated one has a fresh time."""

    requires_request_body = True

    def __init__(self, credentials: CredentialSource, region: str) -> None:
        self._credentials, self._region = credentials, region

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the signature's headers. Raises ConfigurationError when credentials cannot be renewed."""
        try:
            credentials = self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise ConfigurationError(f"AWS credentials: {error}") from error
        # A blank in a query is sent as %20: AWS reads "+" as a blank, too, but signs %20.
        query = request.url.query.replace(b"+", b"%20")
        request.url = request.url.copy_with(query=query or None)
        signed = AWSRequest(
            method=request.method,
            url=str(request.url),
            data=request.content,
            headers={name: request.headers[name] for name in _SIGNED_TOO if name in request.headers},
        )
        SigV4Auth(credentials, SERVICE, self._region).add_auth(signed)
        request.headers.update(dict(signed.headers))
        yield request


def find_signer(region: str) -> SigV4 | None:
    """Return a signer with the credentials that every AWS tool finds, None without any.

    Raises ConfigurationError for credentials that are half there.
    """
    try:
        credentials = get_session().get_credentials()
    except BotoCoreError as error:
        raise ConfigurationError(f"AWS credentials: {error}") from error
    return SigV4(credentials, region) if credentials is not None else None
