"""GPUs through NVML, over a stand-in that keeps NVML's rules."""

import sys

import pytest

from scanfleet.agent.gpu import Gpus, RunGpus, driver_version, open_gpus
from tests.support.fake_nvml import Device, FakeNvml

OURS, OTHERS = 100, 200


def gpus_of(*devices: Device, **options: bool) -> RunGpus:
    nvml = FakeNvml(*devices, **options)
    nvml.nvmlInit()
    return RunGpus(Gpus(nvml))


def test_the_programs_own_samples_count():
    gpus = gpus_of(Device(percent=90, samples=[(OURS, 40, 1), (OTHERS, 50, 1)], computing=[OURS, OTHERS]))

    assert gpus.percent([OURS]) == 40


def test_old_samples_do_not_count_again():
    device = Device(percent=40, samples=[(OURS, 40, 1), (OTHERS, 50, 2)], computing=[OURS, OTHERS])
    gpus = gpus_of(device)
    gpus.percent([OURS])
    device.samples.append((OTHERS, 95, 3))

    assert gpus.percent([OURS]) == 0


def test_runs_side_by_side_do_not_take_each_others_samples():
    nvml = FakeNvml(Device(percent=90, samples=[(OURS, 40, 1), (OTHERS, 50, 1)], computing=[OURS, OTHERS]))
    nvml.nvmlInit()
    gpus = Gpus(nvml)

    assert RunGpus(gpus).percent([OURS]) == 40
    assert RunGpus(gpus).percent([OTHERS]) == 50


def test_a_device_that_others_use_is_not_ours():
    assert gpus_of(Device(percent=100, computing=[OTHERS])).percent([OURS]) == 0


def test_a_long_kernel_leaves_no_sample_but_is_work():
    assert gpus_of(Device(percent=100, computing=[OURS])).percent([OURS]) == 100


def test_a_long_kernel_is_work_also_where_a_neighbour_leaves_samples():
    """As on Windows, where the desktop draws on every device and leaves its samples."""
    device = Device(percent=99, samples=[(OTHERS, 3, 1)], computing=[OURS], drawing=[OURS, OTHERS])

    assert gpus_of(device).percent([OURS]) == 96


def test_what_neighbours_do_not_quite_explain_is_no_work():
    device = Device(percent=97, samples=[(OTHERS, 60, 1), (OTHERS, 90, 2)], computing=[OURS, OTHERS])

    assert gpus_of(device).percent([OURS]) == 0


def test_where_processes_cannot_be_told_apart_the_whole_device_counts():
    device = Device(percent=77, computing=[OURS, OTHERS], tells_processes_apart=False)

    assert gpus_of(device).percent([OURS]) == 77


def test_a_container_that_hides_processes_leaves_the_whole_device():
    assert gpus_of(Device(percent=60)).percent([OURS]) == 60


def test_samples_of_hidden_processes_may_be_ours():
    assert gpus_of(Device(percent=60, samples=[(OTHERS, 60, 1)])).percent([OURS]) == 60


def test_a_program_that_only_draws_uses_the_device():
    assert gpus_of(Device(percent=30, drawing=[OURS])).percent([OURS]) == 30


def test_the_busiest_device_counts():
    idle, busy = Device(percent=3, computing=[OURS]), Device(percent=80, computing=[OURS])

    assert gpus_of(idle, busy).percent([OURS]) == 80


def test_a_device_that_does_not_tell_is_no_signal():
    assert gpus_of(Device(tells_utilisation=False, tells_processes_apart=False)).percent([OURS]) is None


def test_a_lost_device_is_no_signal_and_the_others_still_are():
    assert gpus_of(Device(is_lost=True)).percent([OURS]) is None
    assert gpus_of(Device(is_lost=True), Device(percent=5, computing=[OURS])).percent([OURS]) == 5


def test_a_programs_memory_is_its_own_on_all_devices():
    both = Device(computing=[OURS, OTHERS], drawing=[OURS], memory={OURS: 700, OTHERS: 9000})
    gpus = gpus_of(both, Device(computing=[OURS], memory={OURS: 5}), Device(computing=[OTHERS]))

    assert gpus.memory_bytes([OURS]) == 705


def test_memory_that_is_not_told_apart_is_the_devices():
    assert gpus_of(Device(computing=[OURS, OTHERS])).memory_bytes([OURS]) == 2**30
    assert gpus_of(Device()).memory_bytes([OURS]) == 2**30  # a container that hides processes


def test_memory_of_a_device_that_others_use_is_not_ours():
    assert gpus_of(Device(computing=[OTHERS], memory={OTHERS: 9000})).memory_bytes([OURS]) == 0


def test_a_lost_device_tells_no_memory():
    assert gpus_of(Device(is_lost=True)).memory_bytes([OURS]) is None


def test_the_drivers_version_is_empty_without_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(has_driver=False))
    assert driver_version() == ""
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(Device()))
    assert driver_version() == "580.12"


def test_the_state_has_what_people_ask_for():
    gpus = gpus_of(Device(percent=12, computing=[OURS], drawing=[OURS, OTHERS]))

    assert gpus.state() == {
        "driver": "580.12",
        "devices": [
            {
                "name": "Tesla T4",
                "uuid": "GPU-1",
                "utilisation_percent": 12,
                "memory_used_bytes": 2**30,
                "memory_total_bytes": 2**34,
                "temperature_celsius": 71,
                "processes": [
                    {"pid": OURS, "memory_bytes": None},
                    {"pid": OTHERS, "memory_bytes": None},
                ],
            }
        ],
        "xids": [],
    }


def test_the_state_of_a_lost_device_is_what_is_left():
    state = gpus_of(Device(is_lost=True)).state()

    assert state["devices"][0]["utilisation_percent"] is None
    assert state["devices"][0]["processes"] == []
    assert state["driver"] == "580.12"


def test_critical_errors_are_in_the_state_for_ever():
    nvml = FakeNvml(Device())
    nvml.nvmlInit()
    gpus = Gpus(nvml)
    nvml.xids += [79, 31]

    assert gpus.state()["xids"] == [79, 31]
    assert gpus.state()["xids"] == [79, 31]


def test_a_system_without_events_has_no_critical_errors():
    assert gpus_of(Device(), has_events=False).state()["xids"] == []


@pytest.fixture
def module(monkeypatch):
    def install(nvml: FakeNvml) -> str:
        monkeypatch.setitem(sys.modules, "fake_pynvml", nvml)
        return "fake_pynvml"

    return install


def test_a_machine_without_a_driver_has_no_gpus(module):
    assert open_gpus(module(FakeNvml(has_driver=False))) is None


def test_a_machine_without_the_package_has_no_gpus():
    assert open_gpus("no_such_package") is None


def test_a_machine_with_a_driver_has_its_gpus(module):
    gpus = open_gpus(module(FakeNvml(Device(percent=8))))

    assert gpus is not None
    assert RunGpus(gpus).percent([OURS]) == 8


def test_nvidias_own_module_has_every_name_that_is_used_here():
    import pynvml

    calls = {name for name in dir(FakeNvml) if name.startswith(("nvml", "NVML"))}
    assert {name for name in calls if not hasattr(pynvml, name)} == set()


def test_the_real_module_on_this_machine_answers_or_says_that_there_is_no_gpu():
    gpus = open_gpus()

    assert gpus is None or gpus.state()["driver"]
