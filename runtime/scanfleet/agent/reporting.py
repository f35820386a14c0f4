"""Writes the agent's report every few seconds, and soon after each change, from a thread of its own."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from scanfleet.agent_reports import AgentDirectory, AgentReport
from scanfleet.errors import Unavailable

log = logging.getLogger(__name__)

REPORT_INTERVAL = timedelta(seconds=5)
END_SECONDS = 10.0
REPORTS_APART_SECONDS = 0.5
"""A change of the running jobs is reported at once, but never more often than this."""


class Reporter:
    """Reports between `start` and `end`, which removes the report."""

    def __init__(self, directory: AgentDirectory, agent_id: str, report: Callable[[], AgentReport]) -> None:
        self._directory = directory
        self._agent_id = agent_id
        self._report = report
        self._due = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def wake(self) -> None:
        """Report soon: something has changed."""
        self._due.set()

    def end(self) -> None:
        """Remove the report, and return once that is done, was refused, or takes too long: it expires."""
        self._ended.set()
        self._due.set()
        self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._due.clear()
            try:
                self._directory.put(self._report())
            except Unavailable as error:
                log.warning("report not written: %s", error, extra={"action": "report_failed"})
            except Exception:
                log.exception("report not written", extra={"action": "report_failed"})
            if not self._ended.wait(REPORTS_APART_SECONDS):
                self._due.wait(REPORT_INTERVAL.total_seconds())
        try:
            self._directory.remove(self._agent_id)
        except Unavailable as error:
            log.warning("report not removed: %s", error, extra={"action": "report_failed"})
