"""When an agent tells a load balancer that it should be replaced."""

from datetime import timedelta

import pytest

from scanfleet.agent.readiness import QUEUE_SILENCE_TOLERATED, Readiness
from scanfleet.errors import Unavailable

SILENCE = Unavailable("receive message: the queue answered ServiceUnavailable")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, by: timedelta) -> None:
        self.now += by.total_seconds()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def readiness(clock):
    return Readiness(clock=clock)


def test_a_new_agent_is_not_ready_before_the_queue_has_answered(readiness):
    assert readiness.problem == "not started yet"

    readiness.queue_failed(SILENCE)
    assert "ServiceUnavailable" in readiness.problem

    readiness.serves()
    assert readiness.problem is None


def test_an_outage_of_the_queue_replaces_no_machine_that_has_served(readiness, clock):
    readiness.serves()

    for _ in range(14):
        readiness.queue_failed(SILENCE)
        clock.forward(timedelta(minutes=1))

    assert readiness.problem is None


def test_a_machine_that_alone_hears_nothing_for_long_is_replaced(readiness, clock):
    readiness.serves()
    readiness.queue_failed(SILENCE)
    clock.forward(QUEUE_SILENCE_TOLERATED)

    readiness.queue_failed(SILENCE)

    assert "does not answer" in readiness.problem


def test_each_silence_counts_from_its_own_beginning(readiness, clock):
    readiness.serves()
    readiness.queue_failed(SILENCE)
    clock.forward(QUEUE_SILENCE_TOLERATED - timedelta(seconds=1))
    readiness.serves()
    clock.forward(timedelta(minutes=1))

    readiness.queue_failed(SILENCE)

    assert readiness.problem is None
