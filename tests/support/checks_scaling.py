"""Checks of step scaling: linters take any steps, Auto Scaling refuses some, others lose jobs or machines."""

import math
from collections.abc import Iterator

from scanfleet.contract import SAMPLE_PERIOD, Metric, Pool, fleet_name
from tests.support.cloudwatch_alarms import Alarm
from tests.support.deployment import Deployment
from tests.support.findings import Finding
from tests.support.scaling_rules import faults
from tests.support.step_scaling import Policy, StepScaling

SLOWEST_OUT = 60
"""Seconds of samples that scale-out may look at: a boot takes minutes already."""
HASTIEST_IN = 10 * 60
"""Seconds with an idle machine before one goes, at least: about a boot."""


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="scaling", rule=rule, where=where, detail=detail)


def scaling_rules(deployment: Deployment) -> Iterator[Finding]:
    """Steps have no gaps and one direction, take idle machines only; hooks give agents their time."""
    for sentence in faults(deployment.stack("fleet")):
        name, _, detail = sentence.partition(": ")
        yield _found("RULE", f"fleet/{name}", detail)


def scaling_moves(deployment: Deployment) -> Iterator[Finding]:
    """Out works from zero, soon, and adds no slot without a job; in waits; silence has a fallback."""
    for pool, config in deployment.config.pools.items():
        if pool is not Pool.WINDOWS_GPU:
            continue
        group = fleet_name(deployment.config.stage, pool)
        watched = {
            frozenset(w.metric.name for w in alarm.watched.values()): (alarm, policies)
            for alarm, policies in StepScaling.of(deployment.stack("fleet"), group=group).alarms
        }
        out = watched.get(frozenset({Metric.BACKLOG_PER_SLOT.value}))
        in_ = watched.get(frozenset({Metric.IDLE_INSTANCES.value}))
        if not any(len(names) > 1 and Metric.CONTROLLER_SAMPLES in names for names in watched):
            yield _found("NO_FALLBACK", group, "no alarm watches the queues while the controller is silent")
        if out is None or in_ is None:
            yield _found("NO_SCALING", group, "on the backlog per slot and on idle instances")
            continue
        yield from _out(group, *out, slots=config.slots_per_instance)
        yield from _in(*in_)


def _out(group: str, alarm: Alarm, policies: tuple[Policy, ...], *, slots: int) -> Iterator[Finding]:
    counts = [policy for policy in policies if policy.adjustment == "ChangeInCapacity"]
    if not counts:
        yield _found("NOT_FROM_ZERO", group, "a share of no machine is no machine")
    for policy in counts:
        for step in policy.steps:
            # The step's least backlog per slot; an empty fleet counts as one slot, so that these are jobs.
            jobs = alarm.threshold + (step.lower or 0)
            if step.change > math.ceil(jobs / slots):
                yield _found("TOO_MANY", f"fleet/{policy.logical_id}", f"{step.change} for {jobs:g} jobs")
    where = f"fleet/{alarm.logical_id}"
    if alarm.period != SAMPLE_PERIOD.total_seconds():
        yield _found("PERIOD", where, f"{alarm.period} s; a sample comes every {SAMPLE_PERIOD}")
    if alarm.period * alarm.evaluation_periods > SLOWEST_OUT:
        yield _found("SLOW", where, f"{alarm.evaluation_periods} x {alarm.period} s")
    if alarm.missing != "notBreaching":
        yield _found("SILENCE", where, f"no data is {alarm.missing}")


def _in(alarm: Alarm, policies: tuple[Policy, ...]) -> Iterator[Finding]:
    if alarm.period * alarm.datapoints_to_alarm < HASTIEST_IN:
        where = f"fleet/{alarm.logical_id}"
        yield _found("HASTY", where, f"{alarm.datapoints_to_alarm} x {alarm.period} s")
