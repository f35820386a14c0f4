"""Checks of alarms and dashboards: what they ask for is emitted, and they are there."""

import json
from collections.abc import Iterator

from scanfleet.contract import Alarm, Component, Dimension, Pool, alarm_name, fleet_name, function_name
from scanfleet.jobs import FailureClass, JobState
from tests.support.dashboards import ShownMetric, WrongDashboard, check_dashboard
from tests.support.deployment import Deployment, spelled
from tests.support.findings import Finding
from tests.support.metrics_in_use import alarm_metrics, exists, period_is_allowed, unit_is_emitted

ALARM, DASHBOARD = "AWS::CloudWatch::Alarm", "AWS::CloudWatch::Dashboard"


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="metrics", rule=rule, where=where, detail=detail)


def metric_names(deployment: Deployment) -> Iterator[Finding]:
    """Each metric of an alarm or a dashboard is emitted: its name, dimensions, values, unit and period."""
    stage = deployment.config.stage
    for where, alarm in deployment.everywhere(ALARM):
        for metric, unit, period in alarm_metrics(alarm):
            yield from _metric(deployment, where, metric)
            if not unit_is_emitted(metric, unit, stage=stage):
                yield _found("UNIT", where, f"{metric.name} in {unit}")
            if not period_is_allowed(metric, period):
                yield _found("PERIOD", where, f"{metric.name} every {period} s")
    for where, dashboard in deployment.everywhere(DASHBOARD):
        try:
            shown = check_dashboard(spelled(dashboard.properties["DashboardBody"]))
        except WrongDashboard:
            continue  # `dashboards` says so
        for metric in shown:
            yield from _metric(deployment, where, metric)


def _metric(deployment: Deployment, where: str, metric: ShownMetric) -> Iterator[Finding]:
    if not exists(metric, stage=deployment.config.stage):
        yield _found("NOBODY_EMITS", where, f"{metric.namespace} {metric.name} {sorted(metric.dimensions)}")
    values = _values(deployment)
    for name, value in metric.dimensions.items():
        if name in values and value is not None and not value.startswith("<") and value not in values[name]:
            yield _found("NO_SUCH_VALUE", where, f"{metric.name}: {name} {value}")


def _values(deployment: Deployment) -> dict[str, set[str]]:
    """Return the values that dimensions of known sets may have."""
    stage, pools = deployment.config.stage, deployment.config.pools
    return {
        Dimension.POOL: {str(pool) for pool in pools},
        Dimension.STATE: {str(state) for state in JobState},
        Dimension.FAILURE_CLASS: {str(failure) for failure in FailureClass},
        "AutoScalingGroupName": {fleet_name(stage, pool) for pool in pools},
        "FunctionName": {
            function_name(stage, part) for part in (Component.API, Component.CONTROLLER, Component.EVENTS)
        },
    }


def dashboards(deployment: Deployment) -> Iterator[Finding]:
    """CloudWatch would show each dashboard as meant: places, views, periods, searches."""
    for where, dashboard in deployment.everywhere(DASHBOARD):
        try:
            check_dashboard(spelled(dashboard.properties["DashboardBody"]))
        except (WrongDashboard, json.JSONDecodeError) as wrong:
            yield _found("DASHBOARD", where, str(wrong))


def alarms(deployment: Deployment) -> Iterator[Finding]:
    """Every alarm of the contract is there, says what to do, what silence means, and tells people."""
    names = {}
    for where, alarm in deployment.everywhere(ALARM):
        properties = alarm.properties
        names[properties.get("AlarmName")] = where
        if not properties.get("AlarmActions") or properties.get("ActionsEnabled") is False:
            yield _found("TELLS_NOBODY", where)
        if properties.get("TreatMissingData") not in {"breaching", "notBreaching"}:
            yield _found("SILENCE", where, str(properties.get("TreatMissingData")))
        if where.startswith("monitoring/") and "docs/runbook.md#" not in properties.get(
            "AlarmDescription", ""
        ):
            yield _found("NO_RUNBOOK", where)
    for name in _wanted(deployment):
        if name not in names:
            yield _found("NO_ALARM", "monitoring", name)


NOT_OF_A_POOL = {
    Alarm.API_ERRORS,
    Alarm.API_CRASHES,
    Alarm.API_THROTTLES,
    Alarm.EVENTS_LATE,
    Alarm.IMAGE_BUILD_FAILED,
}


def _wanted(deployment: Deployment) -> Iterator[str]:
    """Yield the names of the alarms that have to be there; the budget is no CloudWatch alarm."""
    for alarm in set(Alarm) - {Alarm.BUDGET}:
        pools = (
            [None]
            if alarm in NOT_OF_A_POOL
            else [p for p in deployment.config.pools if p is Pool.WINDOWS_GPU]
        )
        for pool in pools:
            yield alarm_name(deployment.config.stage, alarm, pool)
