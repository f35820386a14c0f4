"""Step scaling, interpreted: what EC2 Auto Scaling would do with a synthesized template and these metrics.

    scaling = StepScaling.of(template, group="scanfleet-dev-windows-gpu")
    group = Group(scaling.bounds, boot=timedelta(minutes=8))
    replay = Replay(scaling, group)
    replay.run(minutes=10, publish=lambda now: replay.samples.publish(...))

Sources: EC2 Auto Scaling user guide, "Step and simple scaling policies" (steps, rounding, warm-up, scale-in
while instances launch or terminate, several policies at once), "Set the default instance warmup" (it begins
once an instance is in service, so after its launch hook); API reference, StepAdjustment (which bound belongs
to a step). CloudWatch's half is in cloudwatch_alarms.py.

Two things are documented loosely, so both readings can be asked for: which of an alarm's values chooses the
step (`Reading`), and how long a machine takes to come and to go (`Group`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum

from tests.support.cloudwatch_alarms import (
    FINEST_PERIOD,
    Alarm,
    AlarmClock,
    MetricId,
    Samples,
    State,
    read_alarm,
)
from tests.support.template import Resource, StackTemplate

TICK = FINEST_PERIOD

_AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "Maximum": max,
    "Minimum": min,
    "Average": lambda values: sum(values) / len(values),
}


class Reading(Enum):
    """Which value chooses the step: the guide speaks of the most recent datapoints, aggregated."""

    NEWEST = "the newest datapoint alone"
    WINDOW = "the policy's aggregation of all evaluation periods"


@dataclass(frozen=True)
class Step:
    """One step adjustment; bounds relative to the threshold, None is open."""

    lower: float | None
    upper: float | None
    change: int

    def holds(self, over: float) -> bool:
        """Return whether it is for this difference between value and threshold.

        At or above the threshold the lower bound is part of the step, below it the upper one.
        """
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        return low <= over < high if over >= 0 else low < over <= high


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One step scaling policy of a template."""

    logical_id: str
    adjustment: str
    """ChangeInCapacity, PercentChangeInCapacity or ExactCapacity."""
    steps: tuple[Step, ...]
    aggregation: str
    warm_up: float
    """Seconds."""
    least_magnitude: int = 0

    def step(self, over: float) -> Step | None:
        """Return the step for a difference between value and threshold; None when there is none."""
        return next((step for step in self.steps if step.holds(over)), None)

    def capacity(self, change: int, *, base: int) -> int:
        """Return the capacity that a step's change makes of `base`."""
        match self.adjustment:
            case "ChangeInCapacity":
                return base + change
            case "PercentChangeInCapacity":
                instances = rounded(base * change / 100)
                magnitude = max(abs(instances), self.least_magnitude)
                return base + (magnitude if change > 0 else -magnitude)
            case "ExactCapacity":
                return change
        raise ValueError(f"adjustment type {self.adjustment!r} is none of Auto Scaling's")


def rounded(change: float) -> int:
    """Return a change in whole instances: toward zero, but never to zero. Example: 12.7 -> 12, 0.6 -> 1."""
    if 0 < abs(change) < 1:
        return 1 if change > 0 else -1
    return math.trunc(change)


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest size of a group."""

    least: int
    most: int

    def clamp(self, capacity: int) -> int:
        return min(self.most, max(self.least, capacity))


@dataclass(frozen=True)
class StepScaling:
    """What scales one group: its bounds, and each alarm with the policies that it invokes."""

    bounds: Bounds
    alarms: tuple[tuple[Alarm, tuple[Policy, ...]], ...]

    @classmethod
    def of(cls, template: StackTemplate, *, group: str) -> "StepScaling":
        """Read the scaling of the group of this name."""
        (resource,) = [
            r
            for r in template.all("AWS::AutoScaling::AutoScalingGroup")
            if r.properties["AutoScalingGroupName"] == group
        ]
        policies = {
            r.logical_id: read_policy(r)
            for r in template.all("AWS::AutoScaling::ScalingPolicy")
            if r.properties["AutoScalingGroupName"] in ({"Ref": resource.logical_id}, group)
        }
        alarms = [read_alarm(r) for r in template.all("AWS::CloudWatch::Alarm") if _invokes(r, policies)]
        return cls(
            Bounds(int(resource.properties["MinSize"]), int(resource.properties["MaxSize"])),
            tuple((alarm, tuple(policies[action] for action in alarm.actions)) for alarm in alarms),
        )

    def metrics(self, name: str) -> list[MetricId]:
        """Return the metrics of a name that some alarm watches, each once."""
        found = [
            w.metric for alarm, _ in self.alarms for w in alarm.watched.values() if w.metric.name == name
        ]
        return list(dict.fromkeys(found))

    def alarm_on(self, name: str) -> tuple[Alarm, tuple[Policy, ...]]:
        """Return the one alarm, with its policies, that watches this metric and no other."""
        (found,) = [
            pair for pair in self.alarms if {w.metric.name for w in pair[0].watched.values()} == {name}
        ]
        return found


def read_policy(resource: Resource) -> Policy:
    """Return an `AWS::AutoScaling::ScalingPolicy` of a template."""
    p = resource.properties
    return Policy(
        logical_id=resource.logical_id,
        adjustment=p["AdjustmentType"],
        steps=tuple(
            Step(s.get("MetricIntervalLowerBound"), s.get("MetricIntervalUpperBound"), s["ScalingAdjustment"])
            for s in p["StepAdjustments"]
        ),
        aggregation=p.get("MetricAggregationType", "Average"),
        warm_up=p.get("EstimatedInstanceWarmup", 0),
        least_magnitude=p.get("MinAdjustmentMagnitude", 0),
    )


def _invokes(alarm: Resource, policies: dict[str, Policy]) -> bool:
    actions = alarm.properties.get("AlarmActions", [])
    return any(isinstance(action, dict) and action.get("Ref") in policies for action in actions)


@dataclass
class Machine:
    """One instance of a group. Times in seconds; None: not yet."""

    launched_at: float
    in_service_at: float | None = None
    leaving_at: float | None = None
    is_protected: bool = False
    """From scale-in: its agent is busy."""


@dataclass
class Group:
    """An Auto Scaling group: desired capacity, and machines that take a while to come and to go."""

    bounds: Bounds
    boot: timedelta = timedelta(minutes=8)
    """From launch to the launch hook's completion."""
    leave: timedelta = timedelta(minutes=1)
    """From the decision to the machine's end: the drain and the shutdown."""
    desired: int = 0
    machines: list[Machine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desired = self.bounds.clamp(self.desired)
        self.machines += [
            Machine(launched_at=-math.inf, in_service_at=-math.inf) for _ in range(self.desired)
        ]

    @property
    def staying(self) -> list[Machine]:
        return [m for m in self.machines if m.leaving_at is None]

    @property
    def in_service(self) -> list[Machine]:
        return [m for m in self.staying if m.in_service_at is not None]

    @property
    def booting(self) -> list[Machine]:
        return [m for m in self.staying if m.in_service_at is None]

    def warmed(self, *, now: float, warm_up: float) -> int:
        """Return the capacity that scale-out adds to: machines in service for at least the warm-up."""
        return sum(m.in_service_at is not None and now - m.in_service_at >= warm_up for m in self.staying)

    def is_scaling_out(self, *, now: float, warm_up: float) -> bool:
        """Return whether some machine boots or warms up: nothing is scaled in meanwhile."""
        return self.warmed(now=now, warm_up=warm_up) < len(self.staying)

    def tick(self, *, now: float) -> None:
        """Let machines come and go, and launch or end as many as `desired` asks for, the oldest first."""
        self.machines = [m for m in self.machines if m.leaving_at is None or now < m.leaving_at]
        for machine in self.booting:
            if now - machine.launched_at >= self.boot.total_seconds():
                machine.in_service_at = now
        surplus = len(self.staying) - self.desired
        for machine in [m for m in self.in_service if not m.is_protected][: max(0, surplus)]:
            machine.leaving_at = now + self.leave.total_seconds()
        self.machines += [Machine(launched_at=now) for _ in range(-surplus)]


@dataclass(frozen=True)
class Change:
    """A change of the desired capacity."""

    at: float
    alarm: str
    before: int
    after: int


@dataclass
class Replay:
    """Time: samples come in, alarms are evaluated, the group follows."""

    scaling: StepScaling
    group: Group
    reading: Reading = Reading.NEWEST
    samples: Samples = field(default_factory=Samples)
    changes: list[Change] = field(default_factory=list)
    now: float = 0

    def __post_init__(self) -> None:
        self._clocks = [(AlarmClock(alarm), policies) for alarm, policies in self.scaling.alarms]

    def run(self, *, minutes: float, publish: Callable[[float], None] = lambda _: None) -> None:
        """Let time pass. `publish` is called once every TICK seconds with the time, before alarms look."""
        for _ in range(round(minutes * 60 / TICK)):
            publish(self.now)
            self.now += TICK
            self._tick()

    def state(self, metric: str) -> State:
        """Return the state of the one alarm on this metric alone."""
        alarm, _ = self.scaling.alarm_on(metric)
        (state,) = [clock.state for clock, _ in self._clocks if clock.alarm is alarm]
        return state

    def _tick(self) -> None:
        for clock, policies in self._clocks:
            values = clock.tick(self.samples, now=self.now)
            if values is not None:
                self.invoke(clock.alarm, policies, values)
        self.group.tick(now=self.now)

    def invoke(self, alarm: Alarm, policies: Sequence[Policy], values: Sequence[float]) -> None:
        """Let policies that are in force at once decide: the largest capacity wins."""
        wanted = [self._wanted(policy, alarm, values) for policy in policies]
        capacities = [capacity for capacity in wanted if capacity is not None]
        if capacities and max(capacities) != self.group.desired:
            change = Change(self.now, alarm.name, self.group.desired, max(capacities))
            self.changes.append(change)
            self.group.desired = change.after

    def _wanted(self, policy: Policy, alarm: Alarm, values: Sequence[float]) -> int | None:
        value = values[-1] if self.reading is Reading.NEWEST else _AGGREGATIONS[policy.aggregation](values)
        step = policy.step(value - alarm.threshold)
        if step is None or step.change == 0:
            return None
        group, facts = self.group, {"now": self.now, "warm_up": policy.warm_up}
        if step.change > 0:
            # Machines that boot or warm up are not part of what is added to, so a breach counts once.
            return max(
                group.desired, group.bounds.clamp(policy.capacity(step.change, base=group.warmed(**facts)))
            )
        if group.is_scaling_out(**facts):
            return None
        # Machines that leave are still part of what is taken from, so they are not taken twice.
        return min(group.desired, group.bounds.clamp(policy.capacity(step.change, base=len(group.machines))))
