"""Makes the watch of each run: budgets from settings, job and past runs; signals from this machine."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial

from scanfleet.agent.attempt import Run
from scanfleet.agent.budgets import Budgets, StageBudget, learned
from scanfleet.agent.evidence import EvidenceSaver
from scanfleet.agent.gpu import Gpus, RunGpus, open_gpus
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.watchdog import Watchdog
from scanfleet.history import PastRun, RunHistory
from scanfleet.jobs import FailureClass, Job
from scanfleet.objects import ObjectStore
from scanfleet.settings import AgentSettings


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
            on_completed=partial(self._remember, run),
            meter=run.usage,
            input_bytes=run.input_bytes,
        )

    def budgets(self, run: Run) -> Budgets:
        """Return the budgets of a run: what was set, tightened by what past runs teach."""
        budgets = budgets_of(self._settings, run.job)
        if not self._settings.watchdog_learns or has_hung(run.job):
            return budgets
        return learned(budgets, self._history.like(run.job.processor, input_bytes=run.input_bytes))

    def _remember(self, run: Run, seconds: float, stages: Mapping[str, float]) -> None:
        self._history.add(
            run.job.processor,
            input_bytes=run.input_bytes,
            job_id=run.job.job_id,
            run=PastRun(seconds, stages),
        )


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
