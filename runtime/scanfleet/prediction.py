"""How long a program takes, and how long a job still needs, learned from past runs. Pure functions.

conformal.py makes ranges out of values; here is which values: whole runs, single stages, and what past runs
still needed when they were where a job is now. A job is placed by what it shows: how many percent, else which
stage and since when, else only since when. How quick it has been so far tells of the rest as much as it did
in past runs.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from scanfleet.conformal import Range, Series, Value, Weighed, range_of
from scanfleet.jobs import Job, JobState
from scanfleet.past_runs import PastRun, settings_fingerprint

RUNS_USED = 120
"""The youngest: older ones weigh next to nothing."""
MOST_SIZES_APART = 4.0
"""Runs on inputs so many times as large or small count, while enough are nearer than that."""
ENOUGH_NEAR = 30
PACE_WEIGHT = 4.0
"""So many runs' worth of belief that a job goes on as quickly as it began, by PRIOR_PACE."""
PRIOR_PACE = 0.5
MARKS = tuple(range(10, 100, 10))
"""Percentages whose times are kept."""


@dataclass(frozen=True)
class Position:
    """Where a running job is. Seconds; None: not known.

    elapsed: since its present state began. percent: of the program. stage_elapsed: since its stage began.
    """

    state: JobState
    elapsed: float
    percent: float = 0.0
    stage: str | None = None
    stage_elapsed: float | None = None


def position_of(job: Job, now: float) -> Position:
    """Return where the job is. now: epoch seconds."""
    return Position(
        job.state,
        max(0.0, now - job.state_changed_at),
        job.progress_percent,
        job.stage,
        None if job.stage_since is None else max(0.0, now - job.stage_since),
    )


class Forecast:
    """What past runs let expect of a job with these inputs (bytes; None: not known yet) and settings.

    runs: of its processor, in any order.
    """

    def __init__(self, runs: Iterable[PastRun], *, input_bytes: int | None, settings: str) -> None:
        self._size = input_bytes
        self._settings = settings
        self._runs = _chosen(sorted(runs, key=lambda run: run.finished_at), input_bytes)

    def program(self) -> Range | None:
        """Return how long the program takes, from its start to its end; None: nothing is known."""
        return self._range([run.seconds for run in self._runs], self._runs)

    def usual(self) -> float | None:
        """Return the seconds that programs took in the middle of all kept runs.

        Unlike `program`, which follows the last ones, this stays for a while when all become slower.
        """
        if not self._runs:
            return None
        series = self._series([run.seconds for run in self._runs], self._runs)
        return math.exp(series.usual(self._size))

    def stage(self, name: str) -> Range | None:
        """Return how long a stage of the program takes."""
        having = [run for run in self._runs if name in run.stages]
        return self._range([run.stages[name] for run in having], having)

    def stages(self) -> dict[str, Range]:
        """Return how long each stage takes, in the order of the last runs."""
        names = dict.fromkeys(name for run in reversed(self._runs) for name in run.stages)
        return {name: found for name in names if (found := self.stage(name)) is not None}

    def whole(self) -> Range | None:
        """Return how long a job takes from its start (its download) to its end, as far as that is known."""
        runs = self._with_download
        return self._range([self._job_seconds(run) for run in runs], runs)

    def remaining(self, position: Position) -> Range | None:
        """Return how long a job still needs from here; None: nothing is known, or it is beyond all past."""
        if position.state is JobState.QUEUED:
            return self.whole()
        if position.state is JobState.DOWNLOADING:
            runs = self._with_download
            phases = [_Phase(run, 0.0, run.download_seconds or 0.0, self._job_seconds(run)) for run in runs]
            return self._after(phases, began=None, elapsed=position.elapsed)
        if position.state is JobState.PROCESSING:
            return self._remaining_of_program(position)
        if position.state is JobState.UPLOADING:
            runs = [run for run in self._runs if run.upload_seconds is not None]
            uploads = [(run, run.upload_seconds or 0.0) for run in runs]
            return self._after(
                [_Phase(run, 0.0, seconds, seconds) for run, seconds in uploads],
                began=None,
                elapsed=position.elapsed,
            )
        return None

    # --- The program ---------------------------------------------------------------------------------------

    def _remaining_of_program(self, at: Position) -> Range | None:
        marked = [run for run in self._runs if run.marks]
        smooth = [run for run in marked if not _leaps(run)]
        if at.percent >= MARKS[0] and 2 * len(smooth) > len(self._runs):
            return self._after_percent(smooth, at)
        staged = [run for run in self._runs if at.stage in run.stages]
        if at.stage_elapsed is not None and 2 * len(staged) > len(self._runs):
            stage = at.stage or ""
            return self._after(
                [_at_stage(run, stage, self._program_seconds(run)) for run in staged],
                began=max(0.0, at.elapsed - at.stage_elapsed),
                elapsed=at.stage_elapsed,
            )
        if at.percent >= MARKS[0] and 2 * len(marked) > len(self._runs):
            return self._after_percent(marked, at)
        phases = [_Phase(run, 0.0, run.seconds, self._program_seconds(run)) for run in self._runs]
        return self._after(phases, began=None, elapsed=at.elapsed)

    def _after_percent(self, runs: Sequence[PastRun], at: Position) -> Range | None:
        """Take each run to have been there between its reaching this percentage and its next mark.

        Within that, where this job's own time puts it: a program may tell its progress in a few great steps.
        """
        scales = self._scales(runs, [run.seconds for run in runs])
        phases = []
        for run, scale in zip(runs, scales, strict=True):
            first, last = _when_at(run, at.percent)
            there = min(max(at.elapsed / scale, first), last)
            phases.append(_Phase(run, there, 0.0, self._program_seconds(run) - there))
        return self._after(phases, began=at.elapsed, elapsed=0.0)

    def _after(self, phases: Sequence["_Phase"], *, began: float | None, elapsed: float) -> Range | None:
        """Return what is left of a job whose phase began `began` seconds after the start of its state.

        Past runs whose phase was over by now (elapsed) no longer tell anything. began: None of a first phase.
        """
        if not phases:
            return None
        runs = [phase.run for phase in phases]
        rests = self._series([phase.rest for phase in phases], runs)
        candidates = rests.candidates(self._size)
        if began is not None:
            candidates = self._paced(candidates, rests, [phase.began for phase in phases], runs, began)
        left = []
        for one in candidates:
            phase, rest = phases[one.at], math.exp(one.log_seconds)
            scale = rest / max(phase.rest, 1e-3)
            if phase.length == 0.0 or phase.length * scale > elapsed:
                left.append(Weighed(math.log(max(rest - elapsed, 1e-3)), one.weight, one.at))
        return range_of(left, tail=rests.tail)

    def _paced(
        self,
        candidates: list[Weighed],
        rests: Series,
        begins: Sequence[float],
        runs: Sequence[PastRun],
        began: float,
    ) -> list[Weighed]:
        """Shift the candidates by how quick the job has been until here, as past runs' rests went with it.

        The candidates' own quickness is taken out of them by the same line: only the rest of it is chance.
        """
        before = self._series(begins, runs)
        early, late = before.errors(), rests.errors()
        across = PACE_WEIGHT * 0.05 + sum(one.log_seconds**2 for one in early)
        along = PACE_WEIGHT * 0.05 * PRIOR_PACE
        along += sum(a.log_seconds * b.log_seconds for a, b in zip(early, late, strict=True))
        pace = min(1.0, max(0.0, along / across))
        own = math.log(max(began, 0.01)) - before.next(self._size)
        return [
            Weighed(one.log_seconds + pace * (own - first.log_seconds), one.weight, one.at)
            for one, first in zip(candidates, early, strict=True)
        ]

    # --- Parts ---------------------------------------------------------------------------------------------

    def _range(self, seconds: Sequence[float], runs: Sequence[PastRun]) -> Range | None:
        if not runs:
            return None
        series = self._series(seconds, runs)
        return range_of(series.candidates(self._size), tail=series.tail)

    def _series(self, seconds: Sequence[float], runs: Sequence[PastRun]) -> Series:
        values = [Value(s, run.input_bytes, run.settings) for s, run in zip(seconds, runs, strict=True)]
        return Series(values, settings=self._settings)

    def _scales(self, runs: Sequence[PastRun], seconds: Sequence[float]) -> list[float]:
        """Return by what each run's times are to be taken to be of this job's size."""
        series = self._series(seconds, runs)
        own = series.next(self._size)
        return [math.exp(own - series.next(run.input_bytes)) for run in runs]

    def _job_seconds(self, run: PastRun) -> float:
        return (run.download_seconds or 0.0) + self._program_seconds(run)

    def _program_seconds(self, run: PastRun) -> float:
        """Return the seconds from the program's start to the job's end."""
        return run.seconds + (self._usual_upload if run.upload_seconds is None else run.upload_seconds)

    @cached_property
    def _usual_upload(self) -> float:
        known = sorted(run.upload_seconds for run in self._runs if run.upload_seconds is not None)
        return known[len(known) // 2] if known else 0.0

    @cached_property
    def _with_download(self) -> list[PastRun]:
        """Return the runs whose download is known, or all when it is known of few."""
        known = [run for run in self._runs if run.download_seconds is not None]
        return known if 2 * len(known) >= len(self._runs) else self._runs


@dataclass(frozen=True)
class _Phase:
    """A phase of a past run, seconds: when it began, how long it was (0: any), and from there to the end."""

    run: PastRun
    began: float
    length: float
    rest: float


def forecast(job: Job, runs: Iterable[PastRun]) -> Forecast:
    """Return what past runs of its processor let expect of the job."""
    return Forecast(runs, input_bytes=job.input_bytes, settings=settings_fingerprint(job.settings))


def _at_stage(run: PastRun, stage: str, whole: float) -> _Phase:
    names = list(run.stages)
    unstaged = max(0.0, run.seconds - sum(run.stages.values()))  # before the first stage was told
    began = unstaged + sum(run.stages[name] for name in names[: names.index(stage)])
    return _Phase(run, began, run.stages[stage], max(0.0, whole - began))


def _when_at(run: PastRun, percent: float) -> tuple[float, float]:
    """Return the first and the last moment at which the run may have told this percentage."""
    if percent >= 100:
        return run.seconds, run.seconds
    known = [(0, 0.0), *sorted(run.marks.items()), (100, run.seconds)]
    after = next(at for at, (mark, _) in enumerate(known) if mark > percent)
    (low, since), (high, until) = known[after - 1], known[after]
    if _leaps(run):
        return since, until
    a_percent = (until - since) / (high - low)
    first = since + (percent - low) * a_percent
    return first, min(until, first + a_percent)


def _leaps(run: PastRun) -> bool:
    """Say whether the run told its progress in great steps: then it was at several marks at once."""
    times = sorted(run.marks.values())
    return len(times) < len(MARKS) or sum(one == other for one, other in pairwise(times)) > 1


def _chosen(runs: Sequence[PastRun], input_bytes: int | None) -> list[PastRun]:
    if input_bytes:
        near = [run for run in runs if not run.input_bytes or _is_near(run.input_bytes, input_bytes)]
        runs = near if len(near) >= ENOUGH_NEAR else runs
    return list(runs[-RUNS_USED:])


def _is_near(one: int, other: int) -> bool:
    return max(one, other) <= MOST_SIZES_APART * min(one, other)
