"""Makes the watch of each run: budgets from settings, job and past runs; has what ended well remembered."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from scanfleet.agent.budgets import Budgets, StageBudget, learned
from scanfleet.agent.evidence import EvidenceSaver
from scanfleet.agent.gpu import Gpus, RunGpus, open_gpus
from scanfleet.agent.tools import Run
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.watchdog import Watchdog
from scanfleet.conformal import SHORTEST
from scanfleet.history import RunHistory
from scanfleet.jobs import FailureClass, Job
from scanfleet.objects import ObjectStore
from scanfleet.past_runs import Expected, PastRun, Place, settings_fingerprint
from scanfleet.prediction import Forecast
from scanfleet.settings import AgentSettings
from scanfleet.telemetry import record_ratio

log = logging.getLogger(__name__)


class Watches:
    """Called with a run, gives its watch. See `attempt.NewWatch`."""

    def __init__(self, settings: AgentSettings, objects: ObjectStore, history: RunHistory) -> None:
        self._settings = settings
        self._objects = objects
        self._history = history
        self._gpus: Gpus | None = None

    def __call__(self, run: Run) -> Watchdog:
        """Return the watch; it begins to count now."""
        self._gpus = self._gpus or open_gpus()
        folders = run.workspace.folders
        evidence = EvidenceSaver(
            self._objects,
            bucket=self._settings.artifacts_bucket,
            job_id=run.job.job_id,
            attempt=run.job.attempt,
            program_log=run.program_log,
            scratch=self._settings.scratch,
        )
        return Watchdog(
            self.budgets(run),
            program_log=run.program_log,
            board=run.board,
            growth=FolderGrowth(folders.output, folders.work),
            gpus=RunGpus(self._gpus) if self._gpus else None,
            evidence=evidence,
            on_completed=partial(self._remember, run, self._expected(run)),
            meter=run.usage,
            input_bytes=run.input_bytes,
        )

    def budgets(self, run: Run) -> Budgets:
        """Return the budgets of a run: what was set, tightened by what past runs teach."""
        budgets = budgets_of(self._settings, run.job)
        if not self._settings.watchdog_learns or has_hung(run.job):
            return budgets
        return learned(budgets, self._history.like(run.job.processor, input_bytes=run.input_bytes))

    def _expected(self, run: Run) -> "_Expected":
        """Return how long the program is expected to take; what was read for the budgets is used again.

        Never raises: no job fails because nobody could tell how long it takes.
        """
        try:
            runs = self._history.near(run.job.processor, input_bytes=run.input_bytes)
            settings = settings_fingerprint(run.job.settings)
            forecast = Forecast(runs, input_bytes=run.input_bytes, settings=settings)
            found, usual = forecast.program(), forecast.usual()
        except Exception:
            log.exception("nothing is expected of a run", extra={"action": "run_not_predicted"})
            return _Expected(None, None)
        return _Expected(Expected(found.low, found.likely, found.high) if found else None, usual)

    def _remember(
        self,
        run: Run,
        expected: "_Expected",
        seconds: float,
        stages: Mapping[str, float],
        since_end: float,
    ) -> None:
        job, machine = run.job, run.machine
        began_at = run.board.now - since_end - seconds
        self._history.add(
            job.processor,
            input_bytes=run.input_bytes,
            job_id=job.job_id,
            run=PastRun(
                seconds,
                stages,
                settings=settings_fingerprint(job.settings),
                download_seconds=_download_seconds(job),
                upload_seconds=since_end,
                marks={percent: max(0.0, at - began_at) for percent, at in run.board.marks.items()},
                place=Place(
                    agent_id=job.agent_id or "",
                    instance_id=machine.instance_id,
                    instance_type=machine.instance_type,
                    ami_id=machine.ami_id,
                    driver=machine.driver,
                    release=job.release or "",
                    busy=run.beside,
                ),
                finished_at=time.time(),
                expected=expected.range,
            ),
        )
        if expected.usual is not None:
            record_ratio(job, seconds / max(expected.usual, SHORTEST))


@dataclass(frozen=True)
class _Expected:
    """What a run was expected to take when it began; None: nothing was known."""

    range: Expected | None
    usual: float | None


def _download_seconds(job: Job) -> float | None:
    """Return how long this attempt's download took. job: as it was when the program began."""
    return None if job.started_at is None else max(0.0, job.state_changed_at - job.started_at)


def budgets_of(settings: AgentSettings, job: Job) -> Budgets:
    """Return the budgets that were set: the job's limit, and the agent's settings."""
    budgets = Budgets(
        total=timedelta(seconds=job.time_limit_seconds or settings.time_limit_seconds),
        startup=timedelta(seconds=settings.watchdog_startup_seconds),
        idle=timedelta(seconds=settings.watchdog_idle_seconds),
        finish=timedelta(seconds=settings.watchdog_finish_seconds),
        stage=_seconds(settings.watchdog_stage_seconds),
    )
    stages = {
        name: StageBudget(idle=_seconds(own.idle_seconds), total=_seconds(own.seconds))
        for name, own in settings.watchdog_stages.items()
    }
    return replace(budgets, stages=stages)


def has_hung(job: Job) -> bool:
    """Say whether an earlier attempt was ended as a hang.

    What past runs teach does not count for such a job: it may be the one that needs longer than any before,
    and must not be ended for that twice.
    """
    failures = job.failures[job.failures_forgiven :]
    return any(failure.failure_class is FailureClass.HANG for failure in failures)


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
