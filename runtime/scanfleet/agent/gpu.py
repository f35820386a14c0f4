"""NVIDIA's GPUs through NVML: how busy a program's processes keep them, and their state for evidence.

NVML's rules as used here, from its API reference guide: a process has a utilisation sample only if it used
the device in the last sample period; without any sample the answer is NOT_FOUND; what a device or driver mode
cannot tell is NOT_SUPPORTED. In a container the process lists may be empty while processes run.
"""

import importlib
import logging
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from scanfleet.agent.eyes import Blind, Eyes, StillLooking

log = logging.getLogger(__name__)

DRIVER_PATIENCE = timedelta(seconds=10)
"""A driver that was not used yet is loaded first."""
UNEXPLAINED_PERCENT = 25.0
"""Samples of processes and of the device are of different moments; less than this may be the difference."""


class Gpus:
    """This machine's GPUs. Asked about, not changed. nvml: the module `pynvml`, initialised."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        self._xids: list[int] = []
        self._events = self._listen()

    def percent(self, pids: Collection[int], seen_until: dict[int, int]) -> float | None:
        """Return how busy these processes keep the busiest GPU; None when no GPU answers.

        Where NVML cannot tell processes apart, the device's whole utilisation counts: rather a neighbour's
        work taken for this program's than this program's work overlooked. seen_until: of each device, the
        time of the last sample that the caller has had; updated.
        """
        answers = [
            self._percent_of(device, frozenset(pids), list(self._samples(index, seen_until)))
            for index, device in enumerate(self._devices)
        ]
        return max((answer for answer in answers if answer is not None), default=None)

    def memory_bytes(self, pids: Collection[int]) -> int | None:
        """Return how much GPU memory these processes have, on all devices; None when no GPU tells.

        Where NVML cannot tell processes apart (with Windows' display driver model it cannot), all memory that
        is in use on a device counts for whoever is on it.
        """
        answers = [self._memory_of(device, frozenset(pids)) for device in self._devices]
        known = [answer for answer in answers if answer is not None]
        return sum(known) if known else None

    @property
    def driver(self) -> str:
        """Return the driver's version; empty when it does not tell."""
        return _text(self._ask("nvmlSystemGetDriverVersion")) or ""

    def state(self) -> dict[str, Any]:
        """Return what can be said of driver and devices. What a device does not tell is None."""
        nvml = self._nvml
        self._collect_xids()
        devices = [
            {
                "name": _text(self._ask("nvmlDeviceGetName", device)),
                "uuid": _text(self._ask("nvmlDeviceGetUUID", device)),
                "utilisation_percent": _field(self._ask("nvmlDeviceGetUtilizationRates", device), "gpu"),
                "memory_used_bytes": _field(self._ask("nvmlDeviceGetMemoryInfo", device), "used"),
                "memory_total_bytes": _field(self._ask("nvmlDeviceGetMemoryInfo", device), "total"),
                "temperature_celsius": self._ask(
                    "nvmlDeviceGetTemperature", device, nvml.NVML_TEMPERATURE_GPU
                ),
                "processes": [
                    {"pid": process.pid, "memory_bytes": process.usedGpuMemory}
                    for process in self._processes(device)
                ],
            }
            for device in self._devices
        ]
        driver = _text(self._ask("nvmlSystemGetDriverVersion"))
        return {"driver": driver, "devices": devices, "xids": list(self._xids)}

    def _percent_of(self, device: Any, pids: frozenset[int], samples: list[Any]) -> float | None:
        whole = _field(self._ask("nvmlDeviceGetUtilizationRates", device), "gpu")
        ours = [sample.smUtil for sample in samples if sample.pid in pids]
        if ours:
            return float(max(ours))
        here = {process.pid for process in self._processes(device)}
        if here and not here & pids:
            return 0.0  # somebody else's device
        # A kernel that runs longer than NVML samples leaves no sample of its process.
        if whole is None or not (samples and here - pids):
            return None if whole is None else float(whole)
        theirs = {sample.pid: sample.smUtil for sample in samples}  # the last of each
        unexplained = float(whole) - sum(theirs.values())
        return unexplained if unexplained >= UNEXPLAINED_PERCENT else 0.0

    def _memory_of(self, device: Any, pids: frozenset[int]) -> int | None:
        here = self._processes(device)
        ours = [process.usedGpuMemory for process in here if process.pid in pids]
        if here and not ours:
            return 0  # somebody else's device
        if ours and None not in ours:
            return sum(int(size) for size in ours)
        used = _field(self._ask("nvmlDeviceGetMemoryInfo", device), "used")
        return None if used is None else int(used)

    def _samples(self, index: int, seen_until: dict[int, int]) -> Iterator[Any]:
        last = seen_until.get(index, 0)
        for sample in self._ask("nvmlDeviceGetProcessUtilization", self._devices[index], last) or ():
            seen_until[index] = max(seen_until.get(index, 0), sample.timeStamp)
            yield sample

    def _processes(self, device: Any) -> list[Any]:
        """Return processes that compute or draw on the device, each once."""
        found: dict[int, Any] = {}
        for kind in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            found |= {process.pid: process for process in self._ask(kind, device) or ()}
        return list(found.values())

    def _ask(self, name: str, *arguments: Any) -> Any:
        """Return NVML's answer; None when it has none."""
        try:
            return getattr(self._nvml, name)(*arguments)
        except self._nvml.NVMLError:
            return None

    def _listen(self) -> Any:
        """Return an event set that collects the devices' critical errors (Xid); None where there is none."""
        with suppress(self._nvml.NVMLError):
            events = self._nvml.nvmlEventSetCreate()
            for device in self._devices:
                self._nvml.nvmlDeviceRegisterEvents(device, self._nvml.nvmlEventTypeXidCriticalError, events)
            return events
        return None

    def _collect_xids(self) -> None:
        with suppress(self._nvml.NVMLError):  # a time-out: no more events
            while self._events is not None and len(self._xids) < 100:
                self._xids.append(int(self._nvml.nvmlEventSetWait(self._events, 0).eventData))


class RunGpus:
    """The GPUs as one run looks at them: runs beside it have had other samples."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus
        self._seen_until: dict[int, int] = {}

    def percent(self, pids: Collection[int]) -> float | None:
        """Return how busy these processes have kept the busiest GPU since the last call."""
        return self._gpus.percent(pids, self._seen_until)

    def memory_bytes(self, pids: Collection[int]) -> int | None:
        """Return how much GPU memory these processes have."""
        return self._gpus.memory_bytes(pids)

    def state(self) -> dict[str, Any]:
        """Return what can be said of driver and devices."""
        return self._gpus.state()


def open_gpus(module: str = "pynvml") -> Gpus | None:
    """Return the machine's GPUs; None without a GPU, a driver or its library."""
    try:
        nvml = importlib.import_module(module)
    except ImportError as error:
        log.warning("no GPU: %s", error, extra={"action": "gpu_absent"})
        return None
    try:
        nvml.nvmlInit()
        gpus = Gpus(nvml)
    except nvml.NVMLError as error:
        log.debug("no GPU: %s", error, extra={"action": "gpu_absent"})
        return None
    return gpus


def driver_version() -> str:
    """Return the version of the GPU's driver; empty without one, or when it does not answer soon."""
    eyes = Eyes(_ask_driver, name="driver-version", patience=DRIVER_PATIENCE)
    try:
        return eyes.see()
    except (StillLooking, Blind) as error:
        log.warning("driver version unknown: %s", error, extra={"action": "gpu_absent"})
        return ""


def _ask_driver() -> str:
    gpus = open_gpus()
    return gpus.driver if gpus else ""


def _text(value: Any) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _field(value: Any, name: str) -> Any:
    return None if value is None else getattr(value, name)
