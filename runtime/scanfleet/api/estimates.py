"""How long jobs still need, for everything that shows jobs: one read of the history serves them all.

Past runs are read once in five minutes a processor, by one query. What was worked out for a running job
counts for some seconds, the time since then taken off, unless the job has moved on: lists and events show the
same job over and over.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from pydantic import BaseModel, Field

from scanfleet.conformal import SHARE, Range
from scanfleet.history import RunHistory
from scanfleet.jobs import Job, JobState
from scanfleet.past_runs import PastRun, settings_fingerprint
from scanfleet.prediction import Forecast, position_of

log = logging.getLogger(__name__)

COUNTS_SECONDS = 10.0
"""What was worked out for a running job counts so long, while it stays in its stage."""
PERCENT_STEP = 5
"""And while it stays within so many percent."""
KEPT = 2000
"""Answers kept at most; all are dropped then."""


class Eta(BaseModel):
    """A range of seconds that holds `share` of all jobs like this one."""

    low_seconds: float
    likely_seconds: float
    high_seconds: float
    share: float = Field(default=SHARE, description="Of jobs like this one, so many end within the range.")
    runs: int = Field(description="Past runs that it was learned from.")


@dataclass(frozen=True)
class _Answer:
    runs: tuple[PastRun, ...]
    at: float
    found: Range | None


class Estimates:
    """Called with a job, gives its `Eta`; None for a job that has ended, or of which nothing is known.

    Of a queued job: from its start. For several threads. clock: epoch seconds.
    """

    def __init__(self, history: RunHistory, *, clock: Callable[[], float] = time.time) -> None:
        self._history = history
        self._clock = clock
        self._lock = Lock()
        self._answers: dict[tuple[object, ...], _Answer] = {}

    def __call__(self, job: Job) -> Eta | None:
        """Return how long the job still needs."""
        if job.state.is_terminal:
            return None
        now = self._clock()
        settings = settings_fingerprint(job.settings)
        key = self._key(job, settings)
        runs = self._history.of(job.processor)
        with self._lock:
            answer = self._answers.get(key)
        is_queued = job.state is JobState.QUEUED
        is_old = answer is None or answer.runs is not runs
        if answer is None or is_old or (not is_queued and not 0 <= now - answer.at < COUNTS_SECONDS):
            answer = _Answer(runs, now, _remaining(job, runs, settings, now))
            with self._lock:
                if len(self._answers) >= KEPT:
                    self._answers.clear()
                self._answers[key] = answer
        return None if answer.found is None else _eta(answer.found, 0.0 if is_queued else now - answer.at)

    @staticmethod
    def _key(job: Job, settings: str) -> tuple[object, ...]:
        if job.state is JobState.QUEUED:
            return job.processor, settings, job.input_bytes
        step = int(job.progress_percent // PERCENT_STEP)
        return job.job_id, job.attempt, job.state, job.stage, job.input_bytes, step


def _remaining(job: Job, runs: tuple[PastRun, ...], settings: str, now: float) -> Range | None:
    """Return how long the job still needs. Never raises: whoever asks for a job gets it without, then."""
    try:
        return Forecast(runs, input_bytes=job.input_bytes, settings=settings).remaining(position_of(job, now))
    except Exception:
        facts = {"action": "job_not_predicted", "job_id": job.job_id}
        log.exception("nothing can be said of a job's time", extra=facts)
        return None


def _eta(found: Range, since: float) -> Eta:
    low, likely, high = (_rounded(seconds - since) for seconds in (found.low, found.likely, found.high))
    return Eta(low_seconds=low, likely_seconds=likely, high_seconds=high, runs=found.runs)


def _rounded(seconds: float) -> float:
    return round(max(0.0, seconds), 1 if seconds < 100 else 0)
