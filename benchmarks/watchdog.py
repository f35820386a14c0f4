"""What hangs cost in machine time, whether healthy jobs are ever killed, and what the watchdog itself costs.

Machine time is simulated: the agent's own judge takes the samples of thousands of scripted jobs of 290 to
900 s, on a scripted clock, with limits learned from the jobs before. Of the attempts, 2 % hang: half at a
random point, a quarter at the start, a quarter after 100 %. Healthy jobs are of four kinds: talking, silent
but busy, waiting for their GPU, and starved (a fiftieth of a core, late looks, a suspended machine). They
pause for up to 90 s and take up to 150 s to begin. A hang costs the attempt until its verdict, the grace, and
30 s to start again elsewhere. Spinning hangs are apart: what computes for ever looks healthy until a
limit ends it.

The watchdog's own cost is measured over a real tree of five processes and 1,000 files.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from benchmarks.harness import Row
from scanfleet.agent.budgets import Budgets, learned
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program import starter
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.verdict import Judge, Look
from scanfleet.agent.watch import Sample
from scanfleet.agent.watchdog import Watchdog
from scanfleet.history import RUNS_KEPT, PastRun
from scanfleet.processors.base import Invocation

SEED = 7
JOBS = 20_000
SPINNING_JOBS = 4_000
HANG_SHARE = 0.02
SHORTEST, LONGEST = 290.0, 900.0
RESTART_SECONDS = 30.0
"""Lease, download and start on another machine."""
GRACE_SECONDS = 5.0
ATTEMPTS = 5
"""Nobody hangs so often; a healthy job that is killed each time must not be simulated for ever."""
LEARN_EVERY = 50
STAGES = ("load", "align", "merge", "export")

CHILDREN = 4
FILES = 1_000
COST_LOOKS = 15


class Kind(StrEnum):
    """How a healthy job behaves."""

    TALKING = "talking"
    SILENT = "silent"
    ON_GPU = "on_gpu"
    STARVED = "starved"


class Hang(StrEnum):
    """How a hanging job hangs."""

    IDLE = "idle"
    SPINNING = "spinning"


def rows() -> list[Row]:
    """Return the watchdog's figures."""
    idle = simulate(JOBS, Hang.IDLE)
    spinning = simulate(SPINNING_JOBS, Hang.SPINNING)
    percent = f"{HANG_SHARE:.0%} of {JOBS} jobs hang"
    return [
        Row.limit(f"extra machine time, {percent} at random points", idle.extra_percent, "%", at_most=2),
        Row.limit("healthy jobs killed, of all simulated", idle.killed + spinning.killed, "jobs", at_most=0),
        Row.limit("from an idle hang to its verdict (mean)", idle.mean_detection, "s", at_most=300),
        Row.fact("from a spinning hang to its verdict (mean)", spinning.mean_detection, "s"),
        Row.fact(
            f"extra machine time if all of {SPINNING_JOBS} jobs' hangs spin", spinning.extra_percent, "%"
        ),
        Row.limit("watchdog and sampling, five processes", 100 * measure_cost(), "% of a core", at_most=1),
    ]


# --- The simulation ----------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What a simulation saw, in seconds of machine time."""

    useful: float = 0.0
    extra: float = 0.0
    killed: int = 0
    detections: list[float] = field(default_factory=list)

    @property
    def extra_percent(self) -> float:
        """Return the extra machine time relative to that of the same jobs without hangs."""
        return 100 * self.extra / self.useful

    @property
    def mean_detection(self) -> float:
        """Return the seconds from a hang to its verdict."""
        return sum(self.detections) / max(1, len(self.detections))


def simulate(jobs: int, hang: Hang, *, seed: int = SEED) -> Tally:
    """Run the jobs, hung ones again until they end; limits are learned as on machines."""
    chance = random.Random(seed)
    tally = Tally()
    past: dict[int, PastRun] = {}
    set_budgets = Budgets(total=timedelta(hours=1))
    budgets = set_budgets
    for number in range(jobs):
        if number % LEARN_EVERY == 0:
            budgets = learned(set_budgets, tuple(past.values()))
        job = SimulatedJob(chance)
        tally.useful += job.duration + RESTART_SECONDS
        attempt_budgets = budgets
        for _ in range(ATTEMPTS):
            hangs_at = job.hang_point() if chance.random() < HANG_SHARE else None
            ended_at = job.run(attempt_budgets, hangs_at, hang)
            if ended_at is None:
                break
            tally.extra += ended_at + GRACE_SECONDS + RESTART_SECONDS
            attempt_budgets = set_budgets  # as after any hang
            if hangs_at is None:
                tally.killed += 1
            else:
                tally.detections.append(ended_at - hangs_at)
        past[chance.randrange(RUNS_KEPT)] = PastRun(job.duration, job.stage_seconds)
    return tally


class SimulatedJob:
    """One job: its duration, its stages, and what its samples look like."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.kind = chance.choices(tuple(Kind), (65, 15, 10, 10))[0]
        self.duration = chance.uniform(SHORTEST, LONGEST)
        cuts = sorted(chance.random() for _ in STAGES[1:])
        shares = [after - before for before, after in zip((0.0, *cuts), (*cuts, 1.0), strict=True)]
        self.stage_seconds = {
            stage: share * self.duration for stage, share in zip(STAGES, shares, strict=True)
        }
        self._begins_at = chance.uniform(0, 150) if chance.random() < 0.1 else chance.uniform(0, 20)
        # A pause right after a slow beginning would be one long standstill, beyond what is simulated.
        first = self._begins_at + 30
        self._pause_at = chance.uniform(first, self.duration) if chance.random() < 0.3 else self.duration
        self._pause_seconds = chance.uniform(0, 90)
        self._word_every = chance.uniform(5, 60)

    def hang_point(self) -> float:
        """Return when this attempt hangs: the end means after 100 %."""
        point = self._chance.choice(("random", "random", "start", "end"))
        return {"random": self._chance.uniform(0, self.duration), "start": 0.0, "end": self.duration}[point]

    def run(self, budgets: Budgets, hangs_at: float | None, hang: Hang) -> float | None:
        """Return the second of the verdict, or None for a run that ends well."""
        judge = Judge(budgets)
        work = 0.0  # seconds of work done: a suspended machine does none
        last_word = 0.0
        for at, awake in self._looks(budgets.interval.total_seconds()):
            work += awake
            if hangs_at is None and work >= self.duration:
                return None
            is_hung = hangs_at is not None and work >= hangs_at
            talks = self._talks(work, last_word) and not is_hung
            last_word = work if talks else last_word
            sample = self._hung(at, awake, hang) if is_hung else self._healthy(at, awake, work, talks=talks)
            done = min(work, hangs_at) if hangs_at is not None else work
            percent = 100.0 if done >= self.duration else 0.0
            if judge.take(Look(at=at, sample=sample, percent=percent, stage=self._stage(done))) is not None:
                return at
        raise AssertionError("looks never end")

    def _looks(self, interval: float) -> Iterator[tuple[float, float]]:
        """Give each look's time and the seconds that the machine was awake since the one before."""
        chance, at, is_starved = self._chance, 0.0, self.kind is Kind.STARVED
        suspended_at = chance.uniform(0, self.duration) if is_starved and chance.random() < 0.1 else None
        while True:
            awake = interval
            if is_starved and chance.random() < 0.05:
                awake += chance.expovariate(1 / 10)
            at += awake
            if suspended_at is not None and at >= suspended_at:
                at, suspended_at = at + chance.uniform(60, 7200), None
            yield at, awake

    def _talks(self, work: float, last_word: float) -> bool:
        return (
            self.kind in (Kind.TALKING, Kind.STARVED)
            and work >= self._begins_at
            and not self._is_paused(work)
            and work - last_word >= self._word_every * (1 if self.kind is Kind.TALKING else 10)
        )

    def _is_paused(self, work: float) -> bool:
        return self._pause_at <= work < self._pause_at + self._pause_seconds

    def _stage(self, work: float) -> str | None:
        if self.kind not in (Kind.TALKING, Kind.STARVED) or work < self._begins_at:
            return None
        for stage, seconds in self.stage_seconds.items():
            if work < seconds:
                return stage
            work -= seconds
        return STAGES[-1]

    def _healthy(self, at: float, awake: float, work: float, *, talks: bool) -> Sample:
        chance = self._chance
        if work < self._begins_at or self._is_paused(work):
            return _sample(at, cpu=0.001 * awake)
        cores, gpu = {
            Kind.TALKING: (chance.uniform(0.5, 16), 0.0),
            Kind.SILENT: (chance.uniform(0.3, 4), 0.0),
            Kind.ON_GPU: (chance.uniform(0.0, 0.008), chance.uniform(10, 100)),
            Kind.STARVED: (chance.lognormvariate(-3.9, 0.5), 0.0),  # its median is 2 % of a core
        }[self.kind]
        return _sample(at, cpu=cores * awake, gpu=gpu, printed=40 if talks else 0)

    def _hung(self, at: float, awake: float, hang: Hang) -> Sample:
        if hang is Hang.SPINNING:
            return _sample(at, cpu=awake)
        chance = self._chance  # timers tick, a thread writes a line into a file of its own
        return _sample(at, cpu=chance.uniform(0, 0.008) * awake, io=chance.randrange(3000), gpu=1.0)


def _sample(at: float, *, cpu: float, gpu: float = 0.0, printed: int = 0, io: int = 0) -> Sample:
    return Sample(
        at=at,
        cpu_seconds=cpu,
        io_bytes=io,
        printed_bytes=printed,
        output_growth_bytes=0,
        resident_bytes=0,
        processes=1,
        gpu_percent=gpu,
    )


# --- The watchdog's own cost -------------------------------------------------------------------------------


def measure_cost() -> float:
    """Return the watchdog's CPU seconds per second, at its usual pace."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "output"
        for number in range(FILES):
            path = output / str(number % 10) / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        source = (
            "import subprocess, sys, time\n"
            "argv = [sys.executable, '-c', 'import time; time.sleep(900)']\n"
            f"children = [subprocess.Popen(argv) for _ in range({CHILDREN})]\n"
            "time.sleep(900)"
        )
        program_log = ProgramLog(folder / "program.log")
        watch = Watchdog(
            Budgets(total=timedelta(hours=1)),
            program_log=program_log,
            board=ProgressBoard(time.monotonic),
            growth=FolderGrowth(output),
            meter=UsageMeter(),
        )
        program = starter()(Invocation(argv=(sys.executable, "-c", source), cwd=folder))
        try:
            while len(program.process_ids()) <= CHILDREN:
                time.sleep(0.05)
            watch.look(program)
            cpu, wall = time.process_time(), time.monotonic()
            for _ in range(COST_LOOKS):
                time.sleep(watch.interval.total_seconds())
                assert watch.look(program) is None
            return (time.process_time() - cpu) / (time.monotonic() - wall)
        finally:
            program.kill()
            program.close()
            program_log.close()
