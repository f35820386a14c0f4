"""A stand-in for the module `pynvml` that keeps NVML's rules, as its API reference guide has them."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED, NOT_FOUND, LIBRARY_NOT_FOUND, TIMEOUT, GPU_IS_LOST = 3, 6, 12, 10, 15


class NVMLError(Exception):
    """NVML's errors carry their number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class Device:
    """One GPU. samples: (pid, percent of SMs, timestamp in µs); computing, drawing: process ids."""

    percent: int = 0
    samples: list[tuple[int, int, int]] = field(default_factory=list)
    computing: list[int] = field(default_factory=list)
    drawing: list[int] = field(default_factory=list)
    memory: dict[int, int] = field(default_factory=dict)
    """Process -> bytes. Empty: the driver model does not tell (WDDM)."""
    tells_processes_apart: bool = True
    tells_utilisation: bool = True
    is_lost: bool = False


class FakeNvml:
    """The calls that we make, and no others."""

    NVML_TEMPERATURE_GPU = 0
    nvmlEventTypeXidCriticalError = 8  # noqa: N815 - NVML's name
    NVMLError = NVMLError

    def __init__(self, *devices: Device, has_driver: bool = True, has_events: bool = True) -> None:
        self.devices = devices
        self.has_driver, self.has_events = has_driver, has_events
        self.xids: list[int] = []
        self._is_ready = False
        self._listening: set[int] = set()

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise NVMLError(LIBRARY_NOT_FOUND)
        self._is_ready = True

    def nvmlDeviceGetCount(self) -> int:
        assert self._is_ready, "NVML answers only after nvmlInit"
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.devices[index]

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.12"

    def nvmlDeviceGetName(self, device: Device) -> bytes:
        return b"Tesla T4"

    def nvmlDeviceGetUUID(self, device: Device) -> str:
        return "GPU-1"

    def nvmlDeviceGetUtilizationRates(self, device: Device) -> Any:
        self._answering(device, device.tells_utilisation)
        return SimpleNamespace(gpu=device.percent, memory=0)

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> Any:
        self._answering(device, True)
        return SimpleNamespace(used=2**30, total=2**34, free=2**34 - 2**30)

    def nvmlDeviceGetTemperature(self, device: Device, sensor: int) -> int:
        self._answering(device, sensor == self.NVML_TEMPERATURE_GPU)
        return 71

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[Any]:
        self._answering(device, True)
        return [SimpleNamespace(pid=pid, usedGpuMemory=device.memory.get(pid)) for pid in device.computing]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: Device) -> list[Any]:
        self._answering(device, True)
        return [SimpleNamespace(pid=pid, usedGpuMemory=device.memory.get(pid)) for pid in device.drawing]

    def nvmlDeviceGetProcessUtilization(self, device: Device, since: int) -> list[Any]:
        self._answering(device, device.tells_processes_apart)
        newer = [sample for sample in device.samples if sample[2] > since]
        if not newer:
            raise NVMLError(NOT_FOUND)
        return [SimpleNamespace(pid=pid, smUtil=percent, timeStamp=at) for pid, percent, at in newer]

    def nvmlEventSetCreate(self) -> object:
        if not self.has_events:  # Windows
            raise NVMLError(NOT_SUPPORTED)
        return self._listening

    def nvmlDeviceRegisterEvents(self, device: Device, types: int, events: set[int]) -> None:
        assert types == self.nvmlEventTypeXidCriticalError
        events.add(id(device))

    def nvmlEventSetWait(self, events: set[int], milliseconds: int) -> Any:
        assert events, "no device was registered"
        if not self.xids:
            raise NVMLError(TIMEOUT)
        return SimpleNamespace(eventData=self.xids.pop(0))

    def _answering(self, device: Device, does_support: bool) -> None:
        if device.is_lost:
            raise NVMLError(GPU_IS_LOST)
        if not does_support:
            raise NVMLError(NOT_SUPPORTED)
