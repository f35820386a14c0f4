"""Checks of Lambda functions and of what starts them."""

from collections.abc import Iterator
from datetime import timedelta

from scanfleet.contract import (
    CONTROLLER_PERIOD,
    SWEEPER_PERIOD,
    Component,
    function_name,
    log_group_name,
)
from tests.support.deployment import Deployment
from tests.support.findings import Finding

FUNCTION, LAYER, SCHEDULE = "AWS::Lambda::Function", "AWS::Lambda::LayerVersion", "AWS::Scheduler::Schedule"
LONGEST = 900


def _found(rule: str, where: str, detail: str = "") -> Finding:
    return Finding(tool="functions", rule=rule, where=where, detail=detail)


def functions(deployment: Deployment) -> Iterator[Finding]:
    """Our functions run their layer's Python, are bounded and traced, and write to their own log group."""
    names = {
        function_name(deployment.config.stage, c): log_group_name(deployment.config.stage, c)
        for c in Component
    }
    for where, function in deployment.everywhere(FUNCTION):
        properties = function.properties
        name = properties.get("FunctionName")
        if name not in names:  # the CDK's own, for custom resources
            continue
        runtimes = {
            str(runtime)
            for _, layer in deployment.everywhere(LAYER)
            for runtime in layer.properties["CompatibleRuntimes"]
        }
        if properties.get("Runtime") not in runtimes:
            yield _found(
                "RUNTIME", where, f"{properties.get('Runtime')}; the layer is for {sorted(runtimes)}"
            )
        if properties.get("Architectures") != ["arm64"]:
            yield _found("ARCHITECTURE", where, str(properties.get("Architectures")))
        if not properties.get("ReservedConcurrentExecutions"):
            yield _found("UNBOUNDED", where, "no reserved concurrency: it could use up the account's")
        if properties.get("TracingConfig") != {"Mode": "Active"}:
            yield _found("NO_TRACES", where)
        if properties.get("LoggingConfig", {}).get("LogGroup") != names[name]:
            yield _found("LOG_GROUP", where, str(properties.get("LoggingConfig")))
        if not 0 < properties.get("Timeout", 3) <= LONGEST:
            yield _found("TIMEOUT", where, str(properties.get("Timeout")))


def controller(deployment: Deployment) -> Iterator[Finding]:
    """One controller, started each minute by a schedule that is on."""
    yield from _started(deployment, Component.CONTROLLER, CONTROLLER_PERIOD)


def sweeper(deployment: Deployment) -> Iterator[Finding]:
    """One sweeper, started each minute by a schedule that is on."""
    yield from _started(deployment, Component.SWEEPER, SWEEPER_PERIOD)


def _started(deployment: Deployment, component: Component, period: timedelta) -> Iterator[Finding]:
    wanted = function_name(deployment.config.stage, component)
    found = {
        f.logical_id: f
        for _, f in deployment.everywhere(FUNCTION)
        if f.properties.get("FunctionName") == wanted
    }
    minutes = int(period.total_seconds() // 60)
    rate = f"rate({minutes} minute{'s' if minutes > 1 else ''})"
    starts = 0
    for where, schedule in deployment.everywhere(SCHEDULE):
        target = schedule.properties["Target"]["Arn"].get("Fn::GetAtt", [""])[0]
        if target not in found:
            continue
        starts += 1
        if schedule.properties.get("State", "ENABLED") != "ENABLED":
            yield _found("OFF", where)
        if schedule.properties.get("ScheduleExpression") != rate:
            yield _found("PACE", where, str(schedule.properties.get("ScheduleExpression")))
    if starts != 1:
        where = f"fleet/{component.title()}Schedule"
        yield _found("STARTS", where, f"{starts} schedules start the {component}")
    for name, function in found.items():
        if function.properties.get("ReservedConcurrentExecutions") != 1:
            yield _found("TWO_AT_ONCE", f"fleet/{name}")
