"""How fleets grow and shrink: the synthesized policies, replayed over scripted and simulated metrics."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdk.scaling import MOST_STEPS, Step, steps_by_count, steps_by_share, steps_in
from scanfleet.contract import Metric
from scanfleet.controller.decision import backlog_per_slot
from tests.support.cloudwatch_alarms import MetricId, State
from tests.support.scaling_rules import faults
from tests.support.step_scaling import Group, Machine, Reading, Replay, StepScaling, rounded

DEV = "scanfleet-dev-windows-gpu"
BOOT = timedelta(minutes=8)
OUT, IN = Metric.BACKLOG_PER_SLOT, Metric.IDLE_INSTANCES
VISIBLE = "ApproximateNumberOfMessagesVisible"

Scale = Callable[..., Replay]


@pytest.fixture
def replay(stack) -> Scale:
    """A pool's scaling, as synthesized, with so many machines in service: replay(3, max_instances=10)."""

    def make(
        machines: int = 0, *, reading: Reading = Reading.NEWEST, boot: timedelta = BOOT, **pool: object
    ) -> Replay:
        template = stack("dev", "fleet", pools={"windows-gpu": {"max_instances": 20, **pool}})
        scaling = StepScaling.of(template, group=DEV)
        return Replay(scaling, Group(scaling.bounds, boot=boot, desired=machines), reading)

    return make


def scripted(replay: Replay, **values: float | None) -> Callable[[float], None]:
    """A controller that publishes these values: scripted(replay, BacklogPerSlot=4)."""

    def publish(now: float) -> None:
        published = {Metric.CONTROLLER_SAMPLES: 1.0, **values}
        for name, value in published.items():
            if value is not None:
                for metric in replay.scaling.metrics(name):
                    replay.samples.publish(metric, at=now, value=value)

    return publish


def queued(replay: Replay, messages: float) -> Callable[[float], None]:
    """SQS alone publishes, each minute, for each queue; the controller is silent."""

    def publish(now: float) -> None:
        if now % 60 == 0:
            for metric in replay.scaling.metrics(VISIBLE):
                replay.samples.publish(metric, at=now, value=messages)

    return publish


# --- Out ---------------------------------------------------------------------------------------------------


def test_the_first_job_launches_a_machine_within_half_a_minute(replay):
    fleet = replay()

    fleet.run(minutes=0.5, publish=scripted(fleet, BacklogPerSlot=1))

    assert fleet.group.desired == 1
    assert fleet.state(OUT) is State.ALARM


@pytest.mark.parametrize(
    ("waiting", "launched"), [(1, 1), (2, 2), (3, 3), (5, 4), (9, 8), (20, 20), (900, 20)]
)
def test_an_empty_fleet_launches_at_once_what_a_batch_fills(replay, waiting, launched):
    fleet = replay()

    fleet.run(minutes=0.5, publish=scripted(fleet, BacklogPerSlot=waiting))

    assert fleet.group.desired == launched


def test_machines_with_more_slots_are_fewer(replay):
    fleet = replay(slots_per_instance=4)

    fleet.run(minutes=0.5, publish=scripted(fleet, BacklogPerSlot=9))

    assert fleet.group.desired == 3


def test_a_running_fleet_grows_by_shares_of_itself(replay):
    fleet = replay(8)

    fleet.run(minutes=0.5, publish=scripted(fleet, BacklogPerSlot=1.5))

    assert fleet.group.desired == 12


def test_it_grows_no_further_while_the_same_backlog_waits_for_machines_that_boot(replay):
    fleet = replay()

    fleet.run(minutes=7, publish=scripted(fleet, BacklogPerSlot=4))

    assert [change.after for change in fleet.changes] == [4]
    assert len(fleet.group.booting) == 4


def test_a_batch_that_arrives_during_a_boot_launches_what_is_missing_at_once(replay):
    fleet = replay()
    fleet.run(minutes=3, publish=scripted(fleet, BacklogPerSlot=2))

    fleet.run(minutes=1.5, publish=scripted(fleet, BacklogPerSlot=12))

    assert [change.after for change in fleet.changes] == [2, 12]


def test_one_sample_that_saw_a_batch_before_idle_agents_took_it_launches_nothing(replay):
    fleet = replay(2)
    fleet.run(minutes=1, publish=scripted(fleet, BacklogPerSlot=0))

    fleet.run(minutes=1 / 6, publish=scripted(fleet, BacklogPerSlot=5))
    fleet.run(minutes=2, publish=scripted(fleet, BacklogPerSlot=0))

    assert not fleet.changes


def test_less_than_a_job_per_slot_waits_for_a_slot(replay):
    fleet = replay(4)

    fleet.run(minutes=30, publish=scripted(fleet, BacklogPerSlot=0.9))

    assert not fleet.changes


def test_the_pools_maximum_holds(replay):
    fleet = replay(18)

    fleet.run(minutes=60, publish=scripted(fleet, BacklogPerSlot=50))

    assert fleet.group.desired == 20


def test_the_largest_step_reaches_what_a_schedule_allows(stack):
    schedule = {"pool": "windows-gpu", "at": "0 7 * * MON-FRI", "min_instances": 0, "max_instances": 60}
    template = stack("dev", "fleet", pools={"windows-gpu": {"max_instances": 4}}, schedules=[schedule])

    _, policies = StepScaling.of(template, group=DEV).alarm_on(OUT)

    assert (
        max(step.change for policy in policies for step in policy.steps if policy.adjustment[0] == "C") == 60
    )


# --- In ----------------------------------------------------------------------------------------------------


def test_a_machine_that_is_idle_for_a_quarter_of_an_hour_goes(replay):
    fleet = replay(1)

    fleet.run(minutes=14.9, publish=scripted(fleet, BacklogPerSlot=0, IdleInstances=1))
    assert fleet.group.desired == 1
    fleet.run(minutes=0.2, publish=scripted(fleet, BacklogPerSlot=0, IdleInstances=1))

    assert fleet.group.desired == 0


def test_one_busy_moment_starts_the_quarter_of_an_hour_anew(replay):
    fleet = replay(1)
    fleet.run(minutes=14, publish=scripted(fleet, IdleInstances=1))
    fleet.run(minutes=1 / 6, publish=scripted(fleet, IdleInstances=0))

    fleet.run(minutes=14, publish=scripted(fleet, IdleInstances=1))

    assert not fleet.changes


@pytest.mark.parametrize("reading", Reading)
def test_many_idle_machines_go_in_steps_of_half_of_them(replay, reading):
    fleet = replay(20, reading=reading)

    fleet.run(minutes=15, publish=scripted(fleet, IdleInstances=16))

    assert fleet.group.desired == 12


def test_the_pools_minimum_holds(replay):
    fleet = replay(3, min_instances=2, scale_to_zero=False)

    fleet.run(minutes=120, publish=scripted(fleet, IdleInstances=3))

    assert fleet.group.desired == 2


def test_nothing_goes_while_a_machine_boots(replay):
    fleet = replay(2, boot=timedelta(minutes=40))
    fleet.run(minutes=1, publish=scripted(fleet, BacklogPerSlot=1))
    assert fleet.group.desired == 3

    fleet.run(minutes=40, publish=scripted(fleet, IdleInstances=1, BacklogPerSlot=0))
    assert (fleet.state(IN), fleet.group.desired) == (State.ALARM, 3)
    fleet.run(minutes=1, publish=scripted(fleet, IdleInstances=1, BacklogPerSlot=0))

    assert fleet.group.desired == 2


# --- A silent controller -----------------------------------------------------------------------------------


def test_without_the_controller_sqs_adds_one_machine_at_a_time(replay):
    fleet = replay()
    fleet.run(minutes=10, publish=queued(fleet, 40))

    (first,) = fleet.changes
    assert (first.after, first.at) == (1, 5 * 60)

    # 8 minutes of boot, 1 of warm-up, and the next one.
    fleet.run(minutes=8, publish=queued(fleet, 40))
    assert [change.after for change in fleet.changes] == [1, 2]


def test_without_the_controller_and_without_jobs_nothing_changes(replay):
    fleet = replay(3)

    fleet.run(minutes=60, publish=queued(fleet, 0))

    assert not fleet.changes


@pytest.mark.parametrize("spoken_minutes", [3, 14.5, 15.5, 16])
def test_without_the_controller_nothing_goes_on_numbers_older_than_a_minute(replay, spoken_minutes):
    fleet = replay(20)
    fleet.run(minutes=spoken_minutes, publish=scripted(fleet, IdleInstances=8))

    fleet.run(minutes=60)

    assert fleet.group.desired >= 20 - 3 * 4
    assert all(change.at <= (spoken_minutes + 1) * 60 for change in fleet.changes)
    assert fleet.state(IN) is State.OK


def test_while_the_controller_speaks_the_fallback_keeps_out_of_it(replay):
    fleet = replay()

    def publish(now: float) -> None:
        scripted(fleet, BacklogPerSlot=0)(now)
        queued(fleet, 40)(now)

    fleet.run(minutes=60, publish=publish)

    assert not fleet.changes


def test_a_minute_without_the_controller_is_no_silence(replay):
    fleet = replay()
    for _ in range(10):
        fleet.run(minutes=4, publish=queued(fleet, 40))
        fleet.run(minutes=1, publish=scripted(fleet, BacklogPerSlot=0))

    assert not fleet.changes


# --- Whatever the pool -------------------------------------------------------------------------------------

unhurried = settings(deadline=None)
"""Tests run several at a time."""
pools = st.fixed_dictionaries({"most": st.integers(1, 500), "slots": st.integers(1, 64)})


def chosen(steps: list[Step], value: float) -> int:
    return [step.change for step in steps if step.value <= value][-1]


@unhurried
@given(pools, st.integers(1, 40_000), st.integers(0, 500))
def test_no_step_launches_more_slots_than_jobs_wait(pool, waiting, machines):
    slots = pool["slots"]
    per_slot = waiting / max(1, machines * slots)
    if per_slot >= 1:
        by_count = chosen(steps_by_count(most_instances=pool["most"], slots=slots), per_slot)
        by_share = rounded(machines * chosen(steps_by_share(), per_slot) / 100)

        # The last machine launched has at least one job to run.
        assert (max(by_count, by_share) - 1) * slots < waiting


@unhurried
@given(pools)
def test_a_backlog_that_fills_the_whole_pool_launches_the_whole_pool(pool):
    steps = steps_by_count(most_instances=pool["most"], slots=pool["slots"])

    assert chosen(steps, pool["most"] * pool["slots"]) == pool["most"]
    assert steps[0] == Step(1, 1)


@unhurried
@given(pools, st.integers(1, 500))
def test_an_empty_fleet_launches_at_least_two_thirds_of_what_a_batch_fills(pool, wanted):
    wanted = min(wanted, pool["most"])
    steps = steps_by_count(most_instances=pool["most"], slots=pool["slots"])

    assert chosen(steps, wanted * pool["slots"]) >= math.ceil(wanted * 2 / 3)


@unhurried
@given(pools, st.integers(1, 600))
def test_no_step_removes_more_machines_than_are_idle(pool, idle):
    assert 1 <= -chosen(steps_in(most_instances=pool["most"]), idle) <= idle


@unhurried
@given(pools)
def test_no_policy_has_more_steps_than_auto_scaling_takes(pool):
    policies = (
        steps_by_count(most_instances=pool["most"], slots=pool["slots"]),
        steps_by_share(),
        steps_in(most_instances=pool["most"]),
    )

    assert all(len(steps) <= MOST_STEPS for steps in policies)
    assert all(sorted({step.value for step in s}) == [step.value for step in s] for s in policies)


@pytest.mark.parametrize(
    "pool",
    [
        {"max_instances": 1},
        {"max_instances": 500, "slots_per_instance": 64, "warm_instances": 5},
        {"max_instances": 30, "spot_percent": 80, "instance_types": ["g4dn.xlarge", "g5.xlarge"]},
    ],
)
def test_every_pools_scaling_is_without_fault(stack, pool):
    assert faults(stack("dev", "fleet", pools={"windows-gpu": pool})) == []


# --- A fleet that works ------------------------------------------------------------------------------------


@dataclass
class Work:
    """Jobs, agents and the controller around a replay: what is published follows from what was done."""

    replay: Replay
    slots: int
    waiting: int = 0
    running: list[tuple[Machine, float]] = field(default_factory=list)
    """(machine, when it ends)"""
    lost: int = 0
    is_auto: bool = False
    """Whether the controller knows the slots from a calibration, and the steps do not."""

    def arrive(self, jobs: int) -> None:
        self.waiting += jobs

    def run(self, *, minutes: float, job: timedelta = timedelta(minutes=10)) -> None:
        self.replay.run(minutes=minutes, publish=lambda now: self._tick(now, job.total_seconds()))

    def _tick(self, now: float, job_seconds: float) -> None:
        group = self.replay.group
        self.lost += sum(machine not in group.machines for machine, _ in self.running)
        self.running = [(m, ends) for m, ends in self.running if ends > now and m in group.machines]
        for machine in group.in_service:
            free = self.slots - sum(m is machine for m, _ in self.running)
            for _ in range(min(free, self.waiting)):
                self.waiting -= 1
                self.running.append((machine, now + job_seconds))
        busy = [m for m, _ in self.running]
        for machine in group.machines:
            machine.is_protected = any(m is machine for m in busy)
        idle = sum(not machine.is_protected for machine in group.in_service) if not self.waiting else 0
        in_service = len(group.in_service) * self.slots
        per_slot = backlog_per_slot(self.waiting, in_service, empty=self.slots if self.is_auto else 1)
        scripted(self.replay, BacklogPerSlot=per_slot, IdleInstances=idle)(now)


def test_a_batch_is_worked_off_and_the_fleet_is_gone_half_an_hour_later(replay):
    work = Work(replay(slots_per_instance=2), slots=2)

    work.arrive(30)
    work.run(minutes=30)
    assert (work.waiting, work.lost) == (0, 0)
    work.run(minutes=50)

    assert (work.replay.group.desired, work.replay.group.machines) == (0, [])
    assert max(change.after for change in work.replay.changes) <= 15


arrivals = st.lists(st.tuples(st.integers(0, 25), st.integers(1, 40)), min_size=1, max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=arrivals, slots=st.integers(1, 2), reading=st.sampled_from(Reading))
def test_no_machine_goes_under_its_job_and_no_fleet_is_larger_than_its_work(replay, arrivals, slots, reading):
    work = Work(replay(reading=reading, slots_per_instance=slots), slots=slots)
    total = 0

    for jobs, minutes in arrivals:
        work.arrive(jobs)
        total += jobs
        work.run(minutes=minutes)
        assert work.replay.group.desired <= min(20, math.ceil(total / slots))
    work.run(minutes=180)

    assert work.lost == 0
    assert (work.waiting, work.running, work.replay.group.desired) == (0, [], 0)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=arrivals, slots=st.integers(1, 6), reading=st.sampled_from(Reading))
def test_a_fleet_whose_slots_a_calibration_says_is_no_larger_than_its_work_either(
    replay, arrivals, slots, reading
):
    """The steps know nothing of the slots: the controller's metric does."""
    work = Work(replay(reading=reading, slots_per_instance="auto"), slots=slots, is_auto=True)
    total = 0

    for jobs, minutes in arrivals:
        work.arrive(jobs)
        total += jobs
        work.run(minutes=minutes)
        assert work.replay.group.desired <= min(20, math.ceil(total / slots))
    work.run(minutes=180)

    assert work.lost == 0
    assert (work.waiting, work.running, work.replay.group.desired) == (0, [], 0)


def test_metrics_of_other_pools_scale_nothing(replay):
    fleet = replay()
    other = MetricId("Scanfleet/dev", OUT, (("Pool", "linux-cpu"),))

    fleet.run(minutes=5, publish=lambda now: fleet.samples.publish(other, at=now, value=50))

    assert not fleet.changes
