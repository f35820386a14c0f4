"""Looks, while the campaign runs, at what must hold all the time: ended jobs keep still.

After a job's end none of its processes lives, and after its completion what is published does not change.
"""

import threading
import time
from collections import defaultdict, deque

from botocore.exceptions import BotoCoreError, ClientError

from tests.faults.journal import StateWrite
from tests.faults.problems import Problems
from tests.faults.processes_left import ProcessRegister, Registered
from tests.faults.world import DATA, World

LOOK_SECONDS = 0.25
EARLIER_ATTEMPTS_SECONDS = 20.0
"""A frozen agent cannot end its programs before it wakes and learns that its lease is gone."""
TERMINAL = {"completed", "failed", "cancelled"}


class Watcher:
    """Runs in a thread of its own between `start` and `stop`."""

    def __init__(self, world: World, register: ProcessRegister, problems: Problems) -> None:
        self._world = world
        self._register = register
        self._problems = problems
        self._lock = threading.Lock()
        self._ended: dict[str, StateWrite] = {}
        self._published: dict[str, dict[str, str]] = {}
        self._to_see: deque[tuple[str, str]] = deque()
        self._again: deque[tuple[str, str]] = deque()
        self._processes: dict[str, list[Registered]] = defaultdict(list)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._is_over.set()
        self._thread.join()

    def job_changed(self, write: StateWrite, folder: str) -> None:
        """Learn of a change of state. folder: the key prefix of the job's target."""
        with self._lock:
            if write.state in TERMINAL:
                self._ended[write.job_id] = write
            else:
                self._ended.pop(write.job_id, None)
            if write.state == "completed":
                self._to_see.append((write.job_id, folder))

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            self.look_at_processes()
            try:
                self._look_at_results()
            except (ClientError, BotoCoreError) as error:
                self._problems.add("stuck", "", f"the emulator does not answer: {error}")

    # --- Processes -----------------------------------------------------------------------------------------

    def look_at_processes(self) -> None:
        """Take down each process that outlives its job."""
        with self._lock:
            # What registers after this look belongs to ends that come later.
            ended = dict(self._ended)
        for process in self._register.read():
            self._processes[process.job_id].append(process)
        now = time.monotonic()
        for job_id, end in ended.items():
            alive = [process for process in self._processes[job_id] if process.is_alive]
            self._processes[job_id] = alive
            for process in alive:
                if self._is_orphan(process, end, now):
                    text = f"{process.role} {process.pid} of attempt {process.attempt} outlives the job"
                    self._problems.add("orphans", job_id, text)
            self._problems.checked("no process after a job's end")

    def _is_orphan(self, process: Registered, end: StateWrite, now: float) -> bool:
        if end.attempt is None or process.attempt > end.attempt:
            return False
        is_settled = process.attempt == end.attempt and end.who.startswith("i-") and end.was_leased
        return is_settled or now - end.at > EARLIER_ATTEMPTS_SECONDS

    # --- Results -------------------------------------------------------------------------------------------

    def _look_at_results(self) -> None:
        with self._lock:
            new = list(self._to_see)
            self._to_see.clear()
        for job_id, folder in new:
            self._published[job_id] = self.listed(folder)
            self._again.append((job_id, folder))
        if self._again:
            job_id, folder = self._again[0]
            self._again.rotate(-1)
            self.compare(job_id, folder)

    def listed(self, folder: str) -> dict[str, str]:
        """Return the ETags of what lies under a prefix of the data bucket, by key."""
        pages = self._world.s3.get_paginator("list_objects_v2").paginate(Bucket=DATA, Prefix=folder)
        return {found["Key"]: found["ETag"] for page in pages for found in page.get("Contents", [])}

    def compare(self, job_id: str, folder: str) -> dict[str, str]:
        """Take down what changed since the job's completion; return what is there now."""
        now = self.listed(folder)
        before = self._published.get(job_id, now)
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if changed:
            self._problems.add("doubled", job_id, f"changed after the job's completion: {changed}")
            self._published[job_id] = now
        self._problems.checked("results of completed jobs stay as they are")
        return now
