"""Decides when a running program hangs: no clock, no process, only samples.

A program stands still when every signal is below its threshold in each eighth of a window. One signal is
enough for it to be healthy: a program may compute for an hour without a word, or wait for its child, or for
its GPU. Thresholds are rates per second, so that a trickle does not keep a dead program alive; they hold for
eighths, so that a pause does not make the slow work before and after it look like nothing.
"""

from collections import deque
from dataclasses import dataclass
from datetime import timedelta

from scanfleet.agent.budgets import Budget, Budgets
from scanfleet.agent.watch import Sample

IDLE_CORES = 0.01
"""A program whose timers and message loop tick uses some tenths of a percent of a core; one that works and
gets only a fiftieth of a core still uses twice this."""
IDLE_IO_BYTES = 4096
"""A page a second: a thread that looks into a small file or writes a line now and then stays below."""
IDLE_GROWTH_BYTES = 128
"""Of output and work folder. A line of a program's own log every second stays below; results do not."""
IDLE_GPU_PERCENT = 2.0
"""NVML counts whole percents of its last sample; a desktop that is only shown makes one or two."""
BEGUN_CPU_SECONDS = 10.0
"""More than loading takes: a program that computed this long has begun, even without a word."""
PARTS = 8
"""Of a window. Fewer would let a pause of three quarters of it hide work at the edges."""
CREDITED_INTERVALS = 3.0
"""A gap between looks counts as so many intervals at most: a machine that was suspended, or so busy that the
agent did not get its turn, says nothing about the program."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look. sample: None when the system did not tell. percent, stage: what the program reported last."""

    at: float
    sample: Sample | None
    percent: float = 0.0
    stage: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Which budget was used up, and a sentence with the numbers."""

    budget: Budget
    reason: str


class Judge:
    """Takes the looks at one run in order. Seconds are credited seconds: see CREDITED_INTERVALS."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._credit_limit = CREDITED_INTERVALS * budgets.interval.total_seconds()
        self._part_limit = budgets.longest_window.total_seconds() / PARTS + self._credit_limit
        self._recent: deque[tuple[float, Sample]] = deque()
        self._recent_seconds = 0.0
        self._last_at = 0.0
        self._last_life_at: float | None = None
        self._watched = 0.0
        self._stage: str | None = None
        self._in_stage = 0.0
        self._cpu_seconds = 0.0
        self._has_begun = False

    def take(self, look: Look) -> Verdict | None:
        """Return the verdict that this look leads to, or None."""
        seconds = min(max(0.0, look.at - self._last_at), self._credit_limit)
        self._last_at = look.at
        self._watched += seconds
        if look.stage != self._stage:
            self._stage, self._in_stage = look.stage, 0.0
        self._in_stage += seconds
        if look.sample is None:
            self._forget()
        else:
            self._remember(seconds, look.sample)
        return self._overrun() or self._standstill(look)

    def _forget(self) -> None:
        """Begin a new window: whoever cannot see must not say that nothing happened."""
        self._recent.clear()
        self._recent_seconds = 0.0

    def _remember(self, seconds: float, sample: Sample) -> None:
        self._recent.append((seconds, sample))
        self._recent_seconds += seconds
        while self._recent_seconds - self._recent[0][0] > PARTS * self._part_limit:
            self._recent_seconds -= self._recent.popleft()[0]
        if seconds > 0 and not _Window.of([(seconds, sample)]).is_idle:
            self._last_life_at = sample.at
        self._cpu_seconds += sample.cpu_seconds
        has_shown = sample.printed_bytes > 0 or sample.output_growth_bytes > IDLE_GROWTH_BYTES
        self._has_begun = self._has_begun or has_shown or self._cpu_seconds >= BEGUN_CPU_SECONDS

    def _overrun(self) -> Verdict | None:
        total = self._budgets.total.total_seconds()
        if self._watched >= total:
            runs = self._budgets.learned_from
            source = f", learned from {runs} runs" if runs else ""
            return Verdict(
                Budget.TOTAL,
                f"the program ran longer than its limit of {total:.0f} s{source}; {self._last_life()}",
            )
        stage = self._budgets.total_of(self._stage)
        if stage is not None and self._in_stage >= stage.total_seconds():
            return Verdict(
                Budget.STAGE,
                f"the program was in stage {self._stage!r} longer than that stage's limit of"
                f" {stage.total_seconds():.0f} s; {self._last_life()}",
            )
        return None

    def _standstill(self, look: Look) -> Verdict | None:
        sample = look.sample
        if sample and (sample.printed_bytes or sample.cpu_seconds >= IDLE_CORES * self._part_limit):
            return None  # enough for any part of any window: the usual case, and cheap
        for budget, limit, what in self._windows(look):
            window = self._idle_window(limit.total_seconds())
            if window is not None:
                return Verdict(budget, f"the program {what} for {window}; {self._last_life()}")
        return None

    def _windows(self, look: Look) -> list[tuple[Budget, timedelta, str]]:
        if not self._has_begun:
            return [(Budget.STARTUP, self._budgets.startup, "did nothing after its start")]
        where = f" in stage {self._stage!r}" if self._stage else ""
        windows = [(Budget.IDLE, self._budgets.idle_in(self._stage), f"stood still{where}")]
        if look.percent >= 100:
            windows.insert(0, (Budget.FINISH, self._budgets.finish, "reported 100 % but did not end, idle"))
        return windows

    def _idle_window(self, limit: float) -> "_Window | None":
        """Return the newest looks that make up the time, if the program stood still in each part of them."""
        seconds, parts = 0.0, 0
        looks: list[tuple[float, Sample]] = []
        part: list[tuple[float, Sample]] = []
        for look in reversed(self._recent):
            part.append(look)
            seconds += look[0]
            if seconds < (parts + 1) * limit / PARTS:
                continue
            if not _Window.of(part).is_idle:
                return None
            looks += part
            part, parts = [], parts + 1
            if parts == PARTS:
                return _Window.of(looks)
        return None

    def _last_life(self) -> str:
        if self._last_life_at is None:
            return "it has shown no sign of life since its start"
        ago = self._last_at - self._last_life_at
        return f"its last sign of life was {ago:.0f} s ago, {self._last_life_at:.0f} s after its start"


@dataclass(frozen=True)
class _Window:
    """Sums over some looks; its text is for people."""

    seconds: float
    cpu_seconds: float
    io_bytes: int
    printed_bytes: int
    growth_bytes: int
    gpu_percent: float | None

    @classmethod
    def of(cls, looks: list[tuple[float, Sample]]) -> "_Window":
        seconds = cpu = gpu = 0.0
        io = printed = growth = 0
        has_gpu = False
        for spent, sample in looks:
            seconds += spent
            cpu += sample.cpu_seconds
            io += sample.io_bytes
            printed += sample.printed_bytes
            growth += sample.output_growth_bytes
            if sample.gpu_percent is not None:
                gpu, has_gpu = gpu + spent * sample.gpu_percent, True
        return cls(seconds, cpu, io, printed, growth, gpu / max(seconds, 1e-9) if has_gpu else None)

    @property
    def is_idle(self) -> bool:
        """Say whether nothing but a trickle happened. Any printed byte counts: who speaks is not silent."""
        return (
            self.printed_bytes == 0
            and self.cpu_seconds < IDLE_CORES * self.seconds
            and self.io_bytes < IDLE_IO_BYTES * self.seconds
            and self.growth_bytes < IDLE_GROWTH_BYTES * self.seconds
            and (self.gpu_percent is None or self.gpu_percent < IDLE_GPU_PERCENT)
        )

    def __str__(self) -> str:
        gpu = "no GPU could be asked" if self.gpu_percent is None else f"GPU at {self.gpu_percent:.1f} %"
        return (
            f"{self.seconds:.0f} s: nothing printed, {self.cpu_seconds:.2f} CPU seconds,"
            f" {self.io_bytes} bytes read or written, output grew by {self.growth_bytes} bytes, {gpu}"
        )
