"""What an EC2 instance knows of itself: the instance metadata service, version 2.

Each question carries a session token, each call has a short time-out, and proxies are never used: the service
is a hop away. Source: EC2 user guide, "Use the Instance Metadata Service to access instance metadata".
"""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from scanfleet.errors import Unavailable

METADATA_URL = "http://169.254.169.254"
CALL_SECONDS = 2.0
TOKEN_SECONDS = 6 * 3600
"""The longest that a token may live."""
TOKEN_RENEWED_AFTER_SECONDS = TOKEN_SECONDS / 2

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
IDENTITY_PATH = "/latest/dynamic/instance-identity/document"
TARGET_STATE_PATH = "/latest/meta-data/autoscaling/target-lifecycle-state"
SPOT_ACTION_PATH = "/latest/meta-data/spot/instance-action"
REBALANCE_PATH = "/latest/meta-data/events/recommendations/rebalance"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Facts that stay the same while the instance lives."""

    instance_id: str
    instance_type: str
    ami_id: str
    availability_zone: str
    region: str


@dataclass(frozen=True, kw_only=True)
class SpotNotice:
    """EC2 takes the spot instance back. action: terminate, stop or hibernate; at: epoch seconds."""

    action: str
    at: float


class InstanceMetadata:
    """Asks the metadata service. Every question raises Unavailable when it does not answer."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or http.client.HTTP_PORT
        self._clock = clock
        self._token = ""
        self._token_at = 0.0

    def instance(self) -> Instance:
        """Return the facts of the identity document. Source: same guide, "Instance identity documents"."""
        text = self._ask(IDENTITY_PATH)
        try:
            found = json.loads(text or "")
            return Instance(
                instance_id=found["instanceId"],
                instance_type=found["instanceType"],
                ami_id=found["imageId"],
                availability_zone=found["availabilityZone"],
                region=found["region"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the instance's identity cannot be read: {error!r}") from error

    def launched_at(self) -> float:
        """Return when EC2 began to start this instance, epoch seconds: its identity's pendingTime."""
        text = self._ask(IDENTITY_PATH)
        try:
            return datetime.fromisoformat(json.loads(text or "")["pendingTime"]).timestamp()
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the instance's launch time cannot be read: {error!r}") from error

    def target_state(self) -> str | None:
        """Return the lifecycle state that Auto Scaling moves this instance to, or None when it says none.

        Source: EC2 Auto Scaling guide, "Retrieve the target lifecycle state through instance metadata".
        """
        text = self._ask(TARGET_STATE_PATH)
        return text.strip() if text else None

    def spot_notice(self) -> SpotNotice | None:
        """Return EC2's notice, or None while there is none, as for on-demand instances always.

        Source: EC2 user guide, "Spot Instance interruption notices".
        """
        text = self._ask(SPOT_ACTION_PATH)
        if text is None:
            return None
        try:
            found = json.loads(text)
            at = datetime.fromisoformat(found["time"]).timestamp()
            return SpotNotice(action=found["action"], at=at)
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the spot notice cannot be read: {text!r}") from error

    def rebalance_advised_at(self) -> float | None:
        """Return when EC2 said that it is likely to take this spot instance back soon, epoch seconds.

        None while it has not. Source: EC2 user guide, "EC2 instance rebalance recommendations".
        """
        text = self._ask(REBALANCE_PATH)
        if text is None:
            return None
        try:
            return datetime.fromisoformat(json.loads(text)["noticeTime"]).timestamp()
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"the rebalance recommendation cannot be read: {text!r}") from error

    def _ask(self, path: str) -> str | None:
        """Return the answer, or None for 404. A token that was refused is replaced once."""
        for token in (self._fresh_token(), None):
            headers = {"X-aws-ec2-metadata-token": token or self._new_token()}
            status, text = self._call("GET", path, headers)
            if status != HTTPStatus.UNAUTHORIZED:
                break
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise Unavailable(f"instance metadata {path}: HTTP {status}")
        return text

    def _fresh_token(self) -> str:
        is_old = self._clock() - self._token_at > TOKEN_RENEWED_AFTER_SECONDS
        return self._new_token() if is_old or not self._token else self._token

    def _new_token(self) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
        status, text = self._call("PUT", TOKEN_PATH, headers)
        if status != HTTPStatus.OK:
            raise Unavailable(f"no instance metadata token: HTTP {status}")
        self._token, self._token_at = text, self._clock()
        return text

    def _call(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CALL_SECONDS)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise Unavailable(f"instance metadata {path}: {error!r}") from error
        finally:
            connection.close()
