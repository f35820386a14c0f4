"""When the controller samples: the clock's ten-second periods, each once, by whoever runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.contract import CONTROLLER_PERIOD, SAMPLE_PERIOD
from scanfleet.controller.minute import Minutes

PERIOD = SAMPLE_PERIOD.total_seconds()
MINUTE = CONTROLLER_PERIOD.total_seconds()


class Minute:
    """Time that passes only while the controller sleeps or samples."""

    def __init__(self, *, sample_takes: float = 0.3) -> None:
        self.now = 1_800_000_000.0
        self.sampled: list[float] = []
        self.rollouts = 0
        self._takes = sample_takes
        self.minutes = Minutes(self._sample, clock=lambda: self.now, sleep=self._sleep)

    def invoke(self, at: float, *, timeout: float = 75) -> int:
        self.now = max(self.now, at)
        cut_off = self.now + timeout
        return self.minutes.run(remaining_seconds=lambda: cut_off - self.now, after_first=self._roll_out)

    def _sample(self) -> None:
        self.sampled.append(self.now)
        self.now += self._takes

    def _sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def _roll_out(self) -> None:
        self.rollouts += 1


@given(offset=st.floats(0, 59.9), jitter=st.lists(st.floats(0, 2), min_size=5, max_size=5))
def test_five_minutes_have_a_sample_in_each_period_and_no_two_in_one(offset, jitter):
    minute = Minute()
    start = minute.now + offset

    ends = []
    for number, late in enumerate(jitter):
        minute.invoke(start + number * MINUTE + late)
        ends.append(minute.now)

    periods = [int(at // PERIOD) for at in minute.sampled]
    assert periods == list(range(periods[0], periods[0] + len(periods)))
    assert all(end < start + (number + 1) * MINUTE for number, end in enumerate(ends))
    assert minute.rollouts == 5


def test_after_the_first_sample_all_are_at_the_start_of_a_period():
    minute = Minute()

    minute.invoke(minute.now + 37.2)

    assert [at % PERIOD for at in minute.sampled[1:]] == [0.0] * 6


def test_a_period_that_was_sampled_is_not_sampled_again_by_the_next_invocation():
    minute = Minute()
    minute.invoke(minute.now)

    assert minute.invoke(minute.now - 5 + 0.1) > 0
    assert len({int(at // PERIOD) for at in minute.sampled}) == len(minute.sampled)


def test_slow_samples_skip_periods_and_still_end_in_time():
    minute = Minute(sample_takes=14)

    minute.invoke(minute.now, timeout=75)

    assert minute.now <= 1_800_000_000 + 75
    assert len(minute.sampled) < 6


@pytest.mark.parametrize("timeout", [20, 40, 75])
def test_no_sample_starts_that_the_time_out_would_cut(timeout):
    minute = Minute(sample_takes=10)

    minute.invoke(minute.now, timeout=timeout)

    assert minute.now <= 1_800_000_000 + timeout
