"""The API of a campaign: a process that is killed now and then, and a client that keeps its promises."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from scanfleet.local.emulator import LOOPBACK, free_port
from tests.faults.agents import ROOT
from tests.faults.processor import NAME
from tests.faults.proxy import Proxy
from tests.faults.world import DATA, World

TRY_SECONDS = 60.0
PAUSE_SECONDS = 0.2


class Api:
    """Starts and keeps the server, and calls it. A call without an answer is made again with the same key."""

    def __init__(self, *, world: World, proxy: Proxy, folder: Path) -> None:
        self._world = world
        self._proxy = proxy
        self._folder = folder
        self._port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.client = httpx.Client(base_url=f"http://{LOOPBACK}:{self._port}", timeout=20, trust_env=False)

    def tick(self) -> None:
        """Start the server when it does not run; called from the harness's main thread."""
        with self._lock:
            if self.process is not None and self.process.poll() is None:
                return
            environment = self._world.system_at(self._proxy.url).process_environment() | {
                "SCANFLEET_HOST": LOOPBACK,
                "SCANFLEET_PORT": str(self._port),
                "SCANFLEET_DEFAULT_PROCESSOR": NAME,
                "SCANFLEET_UPLOADS_URI": f"s3://{DATA}/in/uploads/",
                "FAULTS_HARNESS": str(os.getpid()),
            }
            log_file = self._folder / "logs" / "api.log"
            log_file.parent.mkdir(exist_ok=True)
            with log_file.open("ab") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tests.faults.api_entry"],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self) -> bool:
        """End the server by SIGKILL."""
        with self._lock:
            if self.process is None or self.process.poll() is not None:
                return False
            self.process.send_signal(signal.SIGKILL)
            return True

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
                answer = self.client.request(method, path, **arguments)
            if answer is not None and answer.status_code < 500:
                return answer
            if time.monotonic() > deadline:
                said = "no answer" if answer is None else f"{answer.status_code} {answer.text}"
                raise AssertionError(f"{method} {path}: {said}")
            time.sleep(PAUSE_SECONDS)

    def close(self) -> None:
        """End the server."""
        self.client.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
