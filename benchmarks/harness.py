"""What the benchmarks share: rows, interleaved medians, and the cost of a process tree."""

import json
import os
import platform
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import psutil

RESULTS = Path(__file__).resolve().parent.parent / "build" / "bench"
MACHINE_FILE = "_machine.json"
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Row:
    """One measured figure.

    what: what was done, in words. value, unit: ours. peer: against whom. ratio: ours divided by the peer's.
    bar: the most that is allowed, of the ratio where there is a peer, otherwise of the value. met: whether it
    is kept. peer, ratio, bar and met may be None.
    """

    what: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    bar: float | None = None
    met: bool | None = None

    @classmethod
    def fact(cls, what: str, value: float, unit: str) -> "Row":
        """Return a figure without a bar."""
        return cls(what, value, unit)

    @classmethod
    def limit(cls, what: str, value: float, unit: str, *, at_most: float) -> "Row":
        """Return a figure that must not exceed `at_most`."""
        return cls(what, value, unit, bar=at_most, met=value <= at_most)

    @classmethod
    def against(
        cls, what: str, value: float, unit: str, *, peer: str, peer_value: float, at_most: float | None = None
    ) -> "Row":
        """Return a figure beside a peer's; with `at_most`, its ratio to the peer's must not exceed that."""
        ratio = value / peer_value
        met = None if at_most is None else ratio <= at_most
        return cls(what, value, unit, peer=peer, ratio=ratio, bar=at_most, met=met)


@dataclass(frozen=True)
class Cost:
    """What one run cost: seconds, CPU seconds of user and system, peak resident bytes of the process tree."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_bytes: int = 0


def interleaved(contenders: Mapping[str, Callable[[], Cost]], *, runs: int) -> dict[str, Cost]:
    """Return each contender's median cost over `runs` rounds.

    In a round everybody runs once, and each round begins with another one: whatever else the machine does at
    the time, it does to all of them.
    """
    names = list(contenders)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for turn in range(runs):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            costs[name].append(contenders[name]())
    return {name: _median(of_one) for name, of_one in costs.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(
        seconds=statistics.median(cost.seconds for cost in costs),
        cpu_seconds=statistics.median(cost.cpu_seconds for cost in costs),
        peak_bytes=max(cost.peak_bytes for cost in costs),
    )


def timed(operation: Callable[[], object]) -> Cost:
    """Return what calling `operation` in this process cost; its memory is not measured."""
    cpu, wall = time.process_time(), time.perf_counter()
    operation()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def run_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float = 300,
) -> tuple[Cost, str]:
    """Run a program to its end; return what its process tree cost, and what it printed.

    `env` is added to the environment. Raises RuntimeError with its last words when it does not end well.
    """
    before = children_cpu()
    start = time.perf_counter()
    child = subprocess.Popen(
        argv,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with PeakMemory(child.pid) as memory:
        try:
            output, _ = child.communicate(timeout=timeout_seconds)
        except BaseException:
            child.kill()
            child.wait()
            raise
        seconds = time.perf_counter() - start
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(argv[:3])} … ended with {child.returncode}: {output[-2000:]}")
    return Cost(seconds, children_cpu() - before, memory.peak_bytes), output


def children_cpu() -> float:
    """Return the CPU seconds of all ended children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class PeakMemory:
    """Samples the resident memory of a process and all below it, twenty times a second, while entered."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        try:
            root = psutil.Process(self._pid)
            while True:
                self.peak_bytes = max(self.peak_bytes, tree_bytes(root))
                if self._done.wait(SAMPLE_SECONDS):
                    return
        except psutil.NoSuchProcess:
            return


def tree_bytes(root: psutil.Process) -> int:
    """Return the resident bytes of a process and all below it; memory that they share counts for each."""
    total = int(root.memory_info().rss)
    for child in root.children(recursive=True):
        try:
            total += child.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def save(name: str, rows: Sequence[Row]) -> Path:
    """Write a benchmark's rows as build/bench/<name>.json, and the machine's facts beside them."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    (RESULTS / MACHINE_FILE).write_text(json.dumps(machine_facts(), indent=2) + "\n", encoding="utf-8")
    return path


def load_results() -> dict[str, list[Row]]:
    """Return the rows of every benchmark that was run, by name."""
    files = sorted(path for path in RESULTS.glob("*.json") if path.name != MACHINE_FILE)
    return {path.stem: [Row(**row) for row in json.loads(path.read_text("utf-8"))] for path in files}


def machine_facts() -> dict[str, str]:
    """Return what a reader needs to know of the machine and the day."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 1024**3:.0f} GiB",
        "processor": _processor_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
