"""The API of a campaign: a process that is killed now and then, and a client that keeps its promises."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from scanfleet.local.emulator import LOOPBACK, free_port
from tests.faults.kept import Kept
from tests.faults.processor import NAME
from tests.faults.proxy import Proxy
from tests.faults.world import DATA, World

TRY_SECONDS = 60.0
PAUSE_SECONDS = 0.2


class Api:
    """The server, and calls of it. A call without an answer is made again with the same key."""

    def __init__(self, *, world: World, proxy: Proxy, folder: Path) -> None:
        port = free_port()
        environment = world.system_at(proxy.url).process_environment() | {
            "SCANFLEET_HOST": LOOPBACK,
            "SCANFLEET_PORT": str(port),
            "SCANFLEET_DEFAULT_PROCESSOR": NAME,
            "SCANFLEET_UPLOADS_URI": f"s3://{DATA}/in/uploads/",
        }
        self.server = Kept("api_entry", environment=environment, log_file=folder / "logs" / "api.log")
        self._client = httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=20, trust_env=False)

    def submit(self, request: dict[str, Any], key: str) -> str:
        """Return the id of the accepted job."""
        answer = self._call("POST", "/jobs", json=request, headers={"Idempotency-Key": key})
        if answer.status_code != 202:
            raise AssertionError(f"not accepted: {answer.status_code} {answer.text}")
        return str(answer.json()["job_id"])

    def act(self, job_id: str, verb: str) -> int:
        """Cancel or retry a job; return the status of the answer."""
        return self._call("POST", f"/job/{job_id}/{verb}").status_code

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        deadline = time.monotonic() + TRY_SECONDS
        while True:
            answer = None
            with suppress(httpx.TransportError):
                answer = self._client.request(method, path, **arguments)
            if answer is not None and answer.status_code < 500:
                return answer
            if time.monotonic() > deadline:
                said = "no answer" if answer is None else f"{answer.status_code} {answer.text}"
                raise AssertionError(f"{method} {path}: {said}")
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self.server.close()
