"""Who pays for a machine's time: every second belongs to one attempt, but for those after the last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent.machine_time import MachineTime, boot_seconds
from scanfleet.attempts import Machine


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def paid(share, slots: int) -> float:
    """Return the machine's seconds that a share's attempt pays for: boot, idle, and its own slot's work."""
    beside = share.end()
    return share.boot_seconds + share.idle_seconds + beside + (share.ended_at - share.began_at) / slots


def test_the_first_attempt_pays_for_boot_and_wait():
    clock = Clock()
    machine = MachineTime(1, boot_seconds=300, clock=clock)
    clock.now += 40
    first = machine.begin()
    clock.now += 100
    first.end()
    second = machine.begin()

    assert (first.boot_seconds, first.idle_seconds) == (300, 40)
    assert (second.boot_seconds, second.idle_seconds) == (0, 0)


def test_who_runs_alone_on_four_slots_pays_for_the_free_ones():
    clock = Clock()
    share = MachineTime(4, clock=clock).begin()
    clock.now += 100

    assert share.end() == pytest.approx(75)


def test_full_slots_leave_nothing_idle():
    clock = Clock()
    machine = MachineTime(2, clock=clock)
    shares = [machine.begin(), machine.begin()]
    clock.now += 100

    assert [share.end() for share in shares] == [0, 0]


def test_an_end_that_is_told_twice_counts_once():
    clock = Clock()
    share = MachineTime(2, clock=clock).begin()
    clock.now += 100
    first = share.end()
    clock.now += 1000

    assert share.end() == first == 50


def test_what_did_not_become_an_attempt_is_paid_by_the_next():
    clock = Clock()
    machine = MachineTime(2, boot_seconds=300, clock=clock)
    clock.now += 10
    share = machine.begin()
    clock.now += 5
    share.undo()
    clock.now += 1
    attempt = machine.begin()

    assert (attempt.boot_seconds, attempt.idle_seconds) == (300, 16)


@given(
    slots=st.integers(1, 4),
    boot=st.floats(0, 600),
    steps=st.lists(
        st.tuples(st.floats(0, 500), st.sampled_from(["begin", "end", "undo"]), st.integers(0, 3)),
        max_size=60,
    ),
)
def test_all_time_until_the_last_end_is_paid_exactly_once(slots, boot, steps):
    clock = Clock()
    machine = MachineTime(slots, boot_seconds=boot, clock=clock)
    running, ended = [], []
    for seconds, what, which in steps:
        clock.now += seconds
        if what == "begin" and len(running) < slots:
            running.append(machine.begin())
        elif what == "end" and running:
            ended.append(running.pop(which % len(running)))
            ended[-1].end()
        elif what == "undo" and running:
            running.pop(which % len(running)).undo()
    for share in running:
        share.end()
    last = machine.begin()  # has what nobody has paid yet
    clock.now += 1
    last.end()

    total = sum(paid(share, slots) for share in (*ended, *running, last))
    assert total == pytest.approx(boot + clock.now - 1000, abs=1e-6)


def test_an_agent_that_is_started_again_counts_no_boot():
    machine = Machine(booted_at=10_000.0)

    assert boot_seconds(machine, 10_240.0) == 240
    assert boot_seconds(machine, 10_000.0 + 86_400) == 0
    assert boot_seconds(machine, 9_000.0) == 0  # a clock that is not right yet
    assert boot_seconds(Machine(), 10_240.0) == 0
