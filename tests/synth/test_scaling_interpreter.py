"""The interpreter of alarms and step policies does what AWS's guides say, example by example."""

from datetime import timedelta

import pytest

from tests.support.cloudwatch_alarms import Alarm, AlarmClock, MetricId, Samples, State, Watched, metric_math
from tests.support.step_scaling import Bounds, Group, Policy, Reading, Replay, Step, StepScaling, rounded

CPU = MetricId("AWS/EC2", "CPUUtilization")


def alarm(
    *,
    periods: int = 3,
    datapoints: int = 3,
    missing: str = "missing",
    period: int = 60,
    threshold: float = 50,
) -> Alarm:
    return Alarm(
        logical_id="Alarm",
        name="alarm",
        watched={"m": Watched(CPU, "Average", period)},
        expression="m",
        period=period,
        evaluation_periods=periods,
        datapoints_to_alarm=datapoints,
        threshold=threshold,
        comparison="GreaterThanOrEqualToThreshold",
        missing=missing,
        actions=(),
    )


# --- Missing data: the tables of "Configuring how CloudWatch alarms treat missing data" --------------------

OK, ALARM, UNKNOWN, KEPT = State.OK, State.ALARM, State.INSUFFICIENT_DATA, None
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
THREE_OF_THREE = [
    ("0-X-X", (OK, OK, OK, OK)),
    ("0----", (OK, OK, OK, OK)),
    ("-----", (UNKNOWN, KEPT, ALARM, OK)),
    ("0XX-X", (ALARM, ALARM, ALARM, ALARM)),
    ("----X", (UNKNOWN, KEPT, ALARM, OK)),
    ("X----", (ALARM, KEPT, ALARM, OK)),
]
TWO_OF_THREE = [
    ("0-X-X", (ALARM, ALARM, ALARM, ALARM)),
    ("00X0X", (ALARM, ALARM, ALARM, ALARM)),
    ("0-X--", (OK, OK, ALARM, OK)),
    ("----0", (OK, OK, ALARM, OK)),
    ("----X", (UNKNOWN, KEPT, ALARM, OK)),
]
CASES = [
    pytest.param(datapoints, line, missing, expected, id=f"{datapoints} of 3: {line}, {missing}")
    for datapoints, table in ((3, THREE_OF_THREE), (2, TWO_OF_THREE))
    for line, row in table
    for missing, expected in zip(TREATMENTS, row, strict=True)
]
VALUES = {"0": 10.0, "X": 90.0, "-": None}


@pytest.mark.parametrize(("datapoints", "line", "missing", "expected"), CASES)
def test_missing_datapoints_are_treated_as_the_guide_says(datapoints, line, missing, expected):
    tested = alarm(datapoints=datapoints, missing=missing)

    for before in State:
        state = tested.evaluate([VALUES[mark] for mark in line], before=before)
        assert state is (before if expected is KEPT else expected)


# --- When an alarm acts ------------------------------------------------------------------------------------


def invocations(tested: Alarm, *, seconds: int, step: int) -> list[int]:
    clock, samples, acted = AlarmClock(tested), Samples(), []
    for now in range(0, seconds, step):
        if clock.tick(samples, now=now) is not None:
            acted.append(now)
        samples.publish(CPU, at=now, value=90)
    return acted


def test_an_alarm_acts_when_it_rings_and_once_a_minute_while_it_does():
    assert invocations(alarm(), seconds=361, step=10) == [180, 240, 300, 360]


def test_a_high_resolution_alarm_rings_sooner_but_acts_no_more_often():
    assert invocations(alarm(period=10), seconds=151, step=10) == [30, 90, 150]


def test_an_alarm_acts_on_the_datapoints_of_its_evaluation_periods():
    samples, clock = Samples(), AlarmClock(alarm(datapoints=2))
    for minute, value in enumerate([10, 60, 70, 80]):
        samples.publish(CPU, at=minute * 60, value=value)

    assert clock.tick(samples, now=240) == [60, 70, 80]


def test_statistics_summarize_the_samples_of_a_period_its_start_included():
    samples = Samples()
    for at, value in ((0, 4), (30, 8), (60, 100)):
        samples.publish(CPU, at=at, value=value)

    found = {
        name: samples.datapoint(CPU, statistic=name, start=0, period=60)
        for name in ("Minimum", "Maximum", "Sum", "Average", "SampleCount")
    }

    assert found == {"Minimum": 4, "Maximum": 8, "Sum": 12, "Average": 6, "SampleCount": 2}


# --- Metric math -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a + b * 2", 8),
        ("a - 1 / 2", 1.5),
        ("a + gone", None),
        ("FILL(gone, 0) + a", 2),
        ("FILL(a, 7)", 2),
        ("IF(a < b, 10, 20)", 10),
        ("IF(a > b, 10, 20)", 20),
        ("IF(gone < 1, 10, 20)", None),
        ("MAX([a, b, gone])", 3),
        ("MIN([a, b])", 2),
    ],
)
def test_metric_math(expression, value):
    assert metric_math(expression, {"a": 2, "b": 3, "gone": None}) == value


@pytest.mark.parametrize("expression", ["RATE(a)", "FILL(a, REPEAT)", "unknown + 1", "a ** 2"])
def test_metric_math_that_it_does_not_know_is_refused_rather_than_guessed(expression):
    with pytest.raises(ValueError, match="does not know"):
        metric_math(expression, {"a": 2})


# --- Steps: the example of "Step and simple scaling policies" ---------------------------------------------

OUT = Policy(
    logical_id="Out",
    adjustment="PercentChangeInCapacity",
    steps=(Step(0, 10, 0), Step(10, 20, 10), Step(20, None, 30)),
    aggregation="Average",
    warm_up=300,
)
SHRINK = Policy(
    logical_id="In",
    adjustment="PercentChangeInCapacity",
    steps=(Step(-10, 0, 0), Step(-20, -10, -10), Step(None, -20, -30)),
    aggregation="Average",
    warm_up=300,
)


class Guide:
    """The guide's group: its alarms, whose threshold is 50, ring for the values that a test says."""

    def __init__(self, *policies: Policy, size: int = 10) -> None:
        self.group = Group(Bounds(0, 100), boot=timedelta(seconds=10), desired=size)
        self.replay = Replay(StepScaling(self.group.bounds, ((alarm(), policies),)), self.group)

    def metric(self, value: float) -> int:
        """Return the desired capacity after one breach at this value."""
        ringing, policies = self.replay.scaling.alarms[0]
        self.replay.invoke(ringing, policies, [value])
        self.group.tick(now=self.replay.now)
        return self.group.desired

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds // 10)):
            self.replay.now += 10
            self.group.tick(now=self.replay.now)


def test_the_guides_example_of_scaling_out():
    guide = Guide(OUT)

    assert guide.metric(59) == 10  # the first step changes nothing
    assert guide.metric(60) == 11  # ten percent of ten
    guide.wait(600)  # running, and warmed up
    assert guide.metric(70) == 14  # thirty percent of eleven, rounded down


def test_the_guides_example_of_scaling_in():
    guide = Guide(SHRINK, size=14)

    assert guide.metric(41) == 14
    assert guide.metric(40) == 13  # ten percent of fourteen, rounded down
    guide.wait(600)
    assert guide.metric(30) == 10  # thirty percent of thirteen, rounded down


def test_the_guides_example_of_a_warm_up():
    guide = Guide(OUT)

    assert guide.metric(60) == 11
    assert guide.metric(62) == 11  # the same step: its machine is on the way
    assert guide.metric(70) == 13  # three of ten, one of which is on the way


def test_nothing_is_scaled_in_while_machines_boot_or_warm_up():
    guide = Guide(OUT, SHRINK)
    guide.metric(60)

    assert guide.metric(30) == 11
    guide.wait(300)
    assert guide.metric(30) == 11
    guide.wait(20)
    assert guide.metric(30) == 8


def test_machines_that_leave_are_not_taken_twice():
    guide = Guide(SHRINK, size=20)
    guide.group.leave = timedelta(minutes=15)

    assert guide.metric(40) == 18
    guide.wait(60)
    assert guide.metric(40) == 18
    guide.wait(900)
    assert guide.metric(40) == 17


def test_of_policies_in_force_at_once_the_largest_capacity_wins():
    by_count = Policy(
        logical_id="Count",
        adjustment="ChangeInCapacity",
        steps=(Step(0, None, 2),),
        aggregation="Average",
        warm_up=0,
    )

    assert Guide(OUT, by_count).metric(60) == 12
    assert Guide(OUT, by_count).metric(75) == 13


@pytest.mark.parametrize(("value", "whole"), [(12.7, 12), (0.67, 1), (-0.58, -1), (-6.67, -6), (0, 0)])
def test_shares_are_rounded_as_the_guide_says(value, whole):
    assert rounded(value) == whole


def test_a_share_has_its_least_magnitude():
    policy = Policy(
        logical_id="P",
        adjustment="PercentChangeInCapacity",
        steps=(),
        aggregation="Average",
        warm_up=0,
        least_magnitude=2,
    )

    assert policy.capacity(25, base=4) == 6


@pytest.mark.parametrize(("over", "is_held"), [(0, True), (9.99, True), (10, False), (-0.1, False)])
def test_above_the_threshold_the_lower_bound_belongs_to_a_step(over, is_held):
    assert Step(0, 10, 1).holds(over) is is_held


@pytest.mark.parametrize(("over", "is_held"), [(-10, False), (-9.99, True), (-0.1, True)])
def test_below_the_threshold_the_upper_bound_belongs_to_a_step(over, is_held):
    assert Step(-10, 0, -1).holds(over) is is_held


def test_a_protected_machine_stays_whatever_the_desired_capacity():
    group = Group(Bounds(0, 10), desired=2)
    group.machines[0].is_protected = True

    group.desired = 0
    group.tick(now=0)
    group.tick(now=3600)

    assert group.machines == [group.staying[0]]


def test_the_value_that_chooses_the_step_can_be_read_both_ways():
    policy = Policy(
        logical_id="P",
        adjustment="ChangeInCapacity",
        steps=(Step(0, 40, 1), Step(40, None, 5)),
        aggregation="Minimum",
        warm_up=0,
    )
    desired = {}
    for reading in Reading:
        guide = Guide(policy)
        guide.replay.reading = reading
        ringing, policies = guide.replay.scaling.alarms[0]
        guide.replay.invoke(ringing, policies, [60, 95])
        desired[reading] = guide.group.desired

    assert desired == {Reading.NEWEST: 15, Reading.WINDOW: 11}
