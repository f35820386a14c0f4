"""While the agent lives, the folders of attempts that no longer run are looked for and removed."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from scanfleet.agent.workspace import Scratch
from scanfleet.contract import Pool
from scanfleet.repairs import Repair, record_repair

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(minutes=5)
"""A workspace may hold gigabytes that the next job needs; what keeps it open ends within minutes, if ever."""


@contextmanager
def removing_stale_workspaces(
    scratch: Scratch, pool: Pool, *, every: timedelta = LOOK_EVERY
) -> Iterator[None]:
    """Look in a thread of its own while the block runs."""
    end = threading.Event()

    def look() -> None:
        while not end.wait(every.total_seconds()):
            remove_stale_workspaces(scratch, pool)

    thread = threading.Thread(target=look, name="stale-workspaces", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def remove_stale_workspaces(scratch: Scratch, pool: Pool) -> None:
    """Look once; tell each folder that was removed."""
    try:
        removed = scratch.remove_stale()
    except OSError as error:
        log.error("workspaces not looked at: %s", error, extra={"action": "workspace_not_removed"})
        return
    for stale in removed:
        record_repair(Repair.WORKSPACE_STALE, pool, job_id=stale.job_id, attempt=stale.attempt)
