"""What must hold of a fleet's template and what no linter sees: found faults, as sentences."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from scanfleet import contract
from scanfleet.contract import METRIC_FACTS, Metric
from tests.support.cloudwatch_alarms import Alarm, read_alarm
from tests.support.step_scaling import Policy, Step, read_policy
from tests.support.template import Resource, StackTemplate

MOST_STEPS = 20
"""Source: EC2 Auto Scaling guide, "Quotas for Auto Scaling resources and groups"."""
ADJUSTMENTS = {"ChangeInCapacity", "PercentChangeInCapacity"}
"""ExactCapacity is one of Auto Scaling's, too, but would set a fleet's size whatever it is doing."""
DAY = 86_400

_LAUNCH = "autoscaling:EC2_INSTANCE_LAUNCHING"
_TERMINATE = "autoscaling:EC2_INSTANCE_TERMINATING"


def faults(template: StackTemplate) -> list[str]:
    """Return everything that is wrong with the scaling and the groups of a template; empty: nothing."""
    policies = {r.logical_id: r for r in template.all("AWS::AutoScaling::ScalingPolicy")}
    alarms = [r for r in template.all("AWS::CloudWatch::Alarm") if _targets(r) & set(policies)]
    groups = template.all("AWS::AutoScaling::AutoScalingGroup")
    found = [fault for policy in policies.values() for fault in _policy_faults(policy)]
    found += [fault for alarm in alarms for fault in _alarm_faults(alarm, policies)]
    found += [fault for group in groups for fault in _group_faults(group)]
    invoked = {target for alarm in alarms for target in _targets(alarm)}
    found += [f"{name}: no alarm invokes it" for name in sorted(set(policies) - invoked)]
    found += [f"{name}: no such policy" for name in sorted(invoked - set(policies))]
    found += [
        f"{g.logical_id}: nothing scales it {way}" for g in groups for way in _missing_ways(g, policies)
    ]
    return found


def _targets(alarm: Resource) -> set[str]:
    return {str(action["Ref"]) for action in alarm.properties.get("AlarmActions", []) if "Ref" in action}


# --- Policies ----------------------------------------------------------------------------------------------


def _policy_faults(resource: Resource) -> Iterator[str]:
    name, kind = resource.logical_id, resource.properties.get("PolicyType")
    if kind != "StepScaling":
        yield f"{name}: its type is {kind!r}, not StepScaling"
        return
    adjustment = resource.properties.get("AdjustmentType")
    if adjustment not in ADJUSTMENTS:
        yield f"{name}: its adjustment type is {adjustment!r}, not one of {sorted(ADJUSTMENTS)}"
    yield from (f"{name}: {fault}" for fault in step_faults(read_policy(resource).steps))


def step_faults(steps: tuple[Step, ...]) -> Iterator[str]:
    """Return what is wrong with the steps of an alarm that rings at and above its threshold."""
    if not 1 <= len(steps) <= MOST_STEPS:
        yield f"{len(steps)} steps, not 1 to {MOST_STEPS}"
        return
    if any(step.lower is None for step in steps):
        yield "a step is open below: it would hold for values that never ring"
        return
    ordered = sorted(steps, key=lambda step: step.lower or 0)
    if ordered[0].lower != 0:
        yield f"no step for the threshold itself: the first begins {ordered[0].lower} above it"
    for step, following in pairwise(ordered):
        if step.upper is None or (following.lower is not None and step.upper > following.lower):
            yield f"two steps for {following.lower} above the threshold"
        elif step.upper != following.lower:
            yield f"no step from {step.upper} to {following.lower} above the threshold"
    if ordered[-1].upper is not None:
        yield f"no step from {ordered[-1].upper} above the threshold on"
    changes = [step.change for step in ordered]
    if 0 in changes or len({change > 0 for change in changes}) > 1:
        yield f"the steps {changes} do not all change the capacity one way"
    if any(abs(later) < abs(earlier) for earlier, later in pairwise(changes)):
        yield f"the steps {changes} do less for more"


# --- Alarms ------------------------------------------------------------------------------------------------


def _alarm_faults(resource: Resource, policies: dict[str, Resource]) -> Iterator[str]:
    alarm, name = read_alarm(resource), resource.logical_id
    if "TreatMissingData" not in resource.properties:
        yield f"{name}: nobody decided what missing data means"
    if alarm.comparison != "GreaterThanOrEqualToThreshold":
        yield f"{name}: {alarm.comparison} gives the threshold itself no step"
    if alarm.period * alarm.evaluation_periods > DAY:
        yield f"{name}: looks back further than a day"
    if not 1 <= alarm.datapoints_to_alarm <= alarm.evaluation_periods:
        yield f"{name}: rings at {alarm.datapoints_to_alarm} of {alarm.evaluation_periods} datapoints"
    for watched in alarm.watched.values():
        yield from (f"{name}: {fault}" for fault in _metric_faults(watched.metric, resource))
        if watched.period % 60 and (
            watched.period not in (10, 30) or watched.metric.namespace.startswith("AWS/")
        ):
            yield f"{name}: {watched.metric.name} has no datapoints each {watched.period} s"
    for policy in (read_policy(policies[target]) for target in alarm.actions if target in policies):
        yield from (f"{policy.logical_id}: {fault}" for fault in _removal_faults(policy, alarm))


def _metric_faults(metric: Any, resource: Resource) -> Iterator[str]:
    if metric.namespace.startswith("AWS/"):
        return
    if metric.name not in set(Metric):
        yield f"nothing emits {metric.name}"
        return
    unit, dimensions = METRIC_FACTS[Metric(metric.name)]
    if {name for name, _ in metric.dimensions} != set(dimensions):
        yield f"{metric.name} has the dimensions {[d.value for d in dimensions]}"
    if resource.properties.get("Unit", unit) != unit:
        yield f"{metric.name} is emitted in {unit}, not in {resource.properties['Unit']}"


def _removal_faults(policy: Policy, alarm: Alarm) -> Iterator[str]:
    if all(step.change > 0 for step in policy.steps):
        return
    if policy.adjustment != "ChangeInCapacity":
        yield f"removes by {policy.adjustment}: that can be more than are idle"
    if {w.metric.name for w in alarm.watched.values()} != {Metric.IDLE_INSTANCES}:
        yield "removes on something else than idle instances"
    if {w.statistic for w in alarm.watched.values()} != {"Minimum"} or policy.aggregation != "Minimum":
        yield "removes by more than the fewest idle instances of a period"
    if alarm.missing == "breaching":
        yield "removes when nothing is known"
    for step in policy.steps:
        idle = alarm.threshold + (step.lower or 0)
        if -step.change > idle:
            yield f"removes {-step.change} when {idle:g} are idle"


# --- Groups ------------------------------------------------------------------------------------------------


def _group_faults(resource: Resource) -> Iterator[str]:
    name, p = resource.logical_id, resource.properties
    if "DesiredCapacity" in p:
        yield f"{name}: each deploy would reset the desired capacity"
    if p.get("HealthCheckType") != "ELB":
        yield f"{name}: nobody asks the agents for their health"
    if p.get("NewInstancesProtectedFromScaleIn"):
        yield f"{name}: a machine that never ran a job could never go"
    if _launches(p)["Version"] != contract.FIRST_TEMPLATE_VERSION:
        yield f"{name}: each deploy would take the template's version from the rollout"
    hooks = {hook["LifecycleTransition"]: hook for hook in p.get("LifecycleHookSpecificationList", [])}
    if missing := {_LAUNCH, _TERMINATE} - set(hooks):
        yield f"{name}: no hook for {', '.join(sorted(missing))}"
        return
    launch, terminate = hooks[_LAUNCH], hooks[_TERMINATE]
    if launch["DefaultResult"] != "ABANDON":
        yield f"{name}: a machine whose agent never came would be in service"
    if terminate["HeartbeatTimeout"] <= contract.DRAIN_GRACE.total_seconds():
        yield f"{name}: machines end before the drain's grace period does"
    if launch["HeartbeatTimeout"] <= contract.AGENT_READY_TIMEOUT.total_seconds():
        yield f"{name}: launches are abandoned before the agent may be late"
    names = (launch["LifecycleHookName"], terminate["LifecycleHookName"])
    if names != (contract.LAUNCH_HOOK, contract.TERMINATE_HOOK):
        yield f"{name}: the agent completes other hooks than {names}"


def _launches(p: dict[str, Any]) -> dict[str, Any]:
    if "MixedInstancesPolicy" in p:
        chosen = p["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
    else:
        chosen = p["LaunchTemplate"]
    return dict(chosen)


def _missing_ways(group: Resource, policies: dict[str, Resource]) -> list[str]:
    own = [p for p in policies.values() if p.properties["AutoScalingGroupName"] == {"Ref": group.logical_id}]
    changes = [s["ScalingAdjustment"] for p in own for s in p.properties.get("StepAdjustments", [])]
    ways = {"out": any(c > 0 for c in changes), "in": any(c < 0 for c in changes)}
    return [way for way, is_there in ways.items() if not is_there]
