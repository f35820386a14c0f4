"""Carries a program's output from the workspace to the artifacts bucket while it runs.

Segments are numbered objects, logs/<job>/<attempt>/<segment>.log, each whole lines; together, in order, they
are the program's output.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from scanfleet.agent.output import ProgramLog
from scanfleet.contract import LOGS_PREFIX
from scanfleet.errors import ScanfleetError
from scanfleet.log_context import ContextThread
from scanfleet.objects import ObjectStore
from scanfleet.s3_uri import S3Uri

log = logging.getLogger(__name__)

SEGMENT_BYTES = 1024 * 1024


SHIP_INTERVAL_SECONDS = 2.0
REST_WITHIN = timedelta(minutes=1)
"""An attempt's end waits for its log this long at most: S3's silence must not look like a stuck attempt."""
SHOWN_WITHIN = timedelta(seconds=3)
"""And once it is stored this long for its copy in CloudWatch Logs."""


class LogShipper:
    """Ships one attempt's output every two seconds, in a thread of its own: S3 may be slow.

    A segment that could not be stored is tried again the next time. also: takes the same output somewhere
    else afterwards, and never raises.
    """

    def __init__(
        self,
        objects: ObjectStore,
        *,
        bucket: str,
        job_id: str,
        attempt: int,
        source: ProgramLog,
        rest_within: timedelta = REST_WITHIN,
        also: Callable[[], None] = lambda: None,
    ) -> None:
        self._objects = objects
        self._folder = S3Uri(bucket, f"{LOGS_PREFIX}{job_id}/{attempt}/")
        self._facts = {"action": "log_not_shipped", "folder": str(self._folder)}
        self._source = source
        self._rest_within = rest_within
        self._also = also
        self._is_stored = threading.Event()
        self._given_up = threading.Event()
        self._offset = 0
        self._segment = 0
        self._ended = threading.Event()
        self._thread = ContextThread(target=self._run, name=f"log-{job_id}", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self) -> None:
        """Ship the rest and stop; what is not stored within `rest_within` is left out."""
        self._ended.set()
        if self._is_stored.wait(self._rest_within.total_seconds()):
            self._thread.join(SHOWN_WITHIN.total_seconds())
        else:
            self._given_up.set()
            log.warning("program output was not stored: S3 takes too long", extra=self._facts)

    def _run(self) -> None:
        while not self._ended.wait(SHIP_INTERVAL_SECONDS):
            self.ship()
            self._also()
        self.ship()
        self._is_stored.set()
        self._also()

    def ship(self) -> None:
        """Store the whole lines printed since the last call.

        The job does not depend on its log: a failure to store it is logged and not raised.
        """
        try:
            while not self._given_up.is_set() and self._ship_segment():
                continue
        except (ScanfleetError, OSError) as error:
            log.warning("program output was not stored: %s", error, extra=self._facts)
        except Exception:
            log.exception("program output was not stored", extra=self._facts)

    def _ship_segment(self) -> bool:
        self._source.flush()
        with self._source.path.open("rb") as file:
            file.seek(self._offset)
            block = file.read(SEGMENT_BYTES)
        # The log ends every line, so what follows the last newline is a line still being written.
        whole = block[: block.rfind(b"\n") + 1]
        if not whole:
            return False
        uri = self._folder.child(f"{self._segment:06d}.log")
        self._objects.put_bytes(uri, whole, content_type="text/plain; charset=utf-8")
        log.debug("program output stored", extra={"action": "log_shipped", "bytes": len(whole)})
        self._offset += len(whole)
        self._segment += 1
        return len(block) == SEGMENT_BYTES
