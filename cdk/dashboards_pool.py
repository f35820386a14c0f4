"""One pool in detail: why it scales as it does, how its machines come and go, what its jobs do."""

from collections.abc import Mapping

from aws_cdk import Arn, ArnComponents, ArnFormat, Duration, Stack
from aws_cdk.aws_cloudwatch import Alarm as CloudWatchAlarm
from aws_cdk.aws_cloudwatch import AlarmStatusWidget, IAlarm, IMetric, IWidget
from constructs import Construct

from cdk.alarms import DRIFT, Alarms
from cdk.aws_metrics import function_metric, group_metric, oldest_message, visible_messages
from cdk.config import DeploymentConfig
from cdk.dashboards_jobs import used
from cdk.dashboards_parts import endings, graph, heading, percentiles, search
from cdk.metrics import scanfleet_metric
from cdk.system import System
from scanfleet.contract import (
    Alarm,
    Component,
    Dimension,
    Metric,
    Pool,
    fleet_name,
    function_name,
)

MINUTE = Duration.minutes(1)
"""No finer: what is finer than a minute is kept for three hours only. Source: CloudWatch user guide, "Metrics
retention"."""

SCALING_ALARMS = ("scale-out", "scale-in", "scale-fallback")
"""What cdk/scaling.py names them, after the fleet; a test compares."""


def rows(system: System, pool: Pool, alarms: Alarms) -> list[list[IWidget]]:
    """Return the dashboard's rows."""
    config, fleet = system.config, fleet_name(system.config.stage, pool)
    fixed = {Dimension.POOL: pool.value}
    return [
        [
            AlarmStatusWidget(title="What rings", alarms=alarms.of(pool), width=16, height=4),
            AlarmStatusWidget(title="Scaling", alarms=_scaling_alarms(alarms, fleet), width=8, height=4),
        ],
        [heading("### Work and slots")],
        _work(config, pool),
        [heading("### Machines")],
        _machines(config, pool),
        _group(fleet),
        [heading("### Jobs")],
        [
            graph("Jobs that ended", *endings(config, pool), unit="jobs", stacked=True),
            graph(
                "Jobs that failed, by class",
                search(config, Metric.JOB_FAILED, statistic="Sum", fixed=fixed),
                unit="jobs",
                stacked=True,
            ),
            graph(
                "Attempts that were retried, by class",
                search(config, Metric.JOB_RETRIED, statistic="Sum", fixed=fixed),
                unit="attempts",
                stacked=True,
            ),
        ],
        [
            graph(
                "Time in each state",
                *percentiles(config, Metric.STATE_DURATION, fixed=fixed),
                unit="seconds",
                width=6,
            ),
            graph(
                "Time in each stage of the program",
                *percentiles(config, Metric.STAGE_DURATION, fixed=fixed),
                unit="seconds",
                width=6,
            ),
            _drift(config, pool),
            _queues(system, pool),
        ],
        [heading("### What a job's program uses")],
        *used(config, fixed),
    ]


def _drift(config: DeploymentConfig, pool: Pool) -> IWidget:
    def ratio(statistic: str) -> IMetric:
        return scanfleet_metric(
            config, Metric.DURATION_RATIO, statistic=statistic, label=statistic, pool=pool.value
        )

    return graph(
        "Run times against what is usual",
        ratio("p50"),
        ratio("p90"),
        unit="times",
        limit=(DRIFT, Alarm.DURATION_DRIFT),
        width=6,
    )


def _work(config: DeploymentConfig, pool: Pool) -> list[IWidget]:
    def sampled(metric: Metric, label: str) -> IMetric:
        return scanfleet_metric(
            config, metric, statistic="Maximum", period=MINUTE, label=label, pool=pool.value
        )

    return [
        graph(
            "Waiting and in flight",
            sampled(Metric.BACKLOG, "waiting"),
            sampled(Metric.IN_FLIGHT, "in flight"),
            unit="messages",
            period=MINUTE,
        ),
        graph(
            "Slots",
            sampled(Metric.SLOTS_BUSY, "busy"),
            sampled(Metric.SLOTS_IN_SERVICE, "in service"),
            sampled(Metric.SLOTS_BOOTING, "booting"),
            unit="slots",
            period=MINUTE,
        ),
        graph(
            "What scales: backlog per slot out, idle instances in",
            sampled(Metric.BACKLOG_PER_SLOT, "backlog per slot"),
            right=[sampled(Metric.IDLE_INSTANCES, "idle instances")],
            right_unit="instances",
            limit=(1, "scale-out"),
            period=MINUTE,
        ),
    ]


def _machines(config: DeploymentConfig, pool: Pool) -> list[IWidget]:
    def of(metric: Metric, statistic: str, label: str, period: Duration = MINUTE) -> IMetric:
        return scanfleet_metric(
            config, metric, statistic=statistic, period=period, label=label, pool=pool.value
        )

    boots = Duration.minutes(5)
    return [
        graph(
            "Instances and their cost",
            of(Metric.INSTANCES, "Maximum", "running"),
            right=[of(Metric.FLEET_COST_PER_HOUR, "Maximum", "US dollars per hour")],
            unit="instances",
            right_unit="US dollars per hour",
            period=MINUTE,
        ),
        graph(
            "Boots: launch to ready agent",
            of(Metric.BOOT_DURATION, "p50", "p50", boots),
            of(Metric.BOOT_DURATION, "p95", "p95", boots),
            right=[
                of(Metric.BOOT_DURATION, "SampleCount", "ready", boots),
                of(Metric.BOOT_FAILED, "Sum", "given up", boots),
                of(Metric.BREAKER_OPENED, "Sum", "suspected", boots),
            ],
            unit="seconds",
            right_unit="instances",
        ),
        graph(
            "Controller",
            of(Metric.CONTROLLER_SAMPLES, "Sum", "samples"),
            function_metric(
                function_name(config.stage, Component.CONTROLLER),
                "Errors",
                statistic="Sum",
                period=MINUTE,
                label="crashes",
            ),
            of(Metric.ROLLOUT_FAILED, "Maximum", "rollout failed"),
            period=MINUTE,
        ),
    ]


def _group(fleet: str) -> list[IWidget]:
    """Source of the names: EC2 Auto Scaling user guide, "CloudWatch metrics for Amazon EC2 Auto Scaling"."""

    def of(names: Mapping[str, str]) -> list[IMetric]:
        return [group_metric(fleet, name, period=MINUTE, label=label) for name, label in names.items()]

    return [
        graph(
            "Auto Scaling group",
            *of(
                {
                    "GroupDesiredCapacity": "desired",
                    "GroupInServiceInstances": "in service",
                    "GroupMinSize": "minimum",
                    "GroupMaxSize": "maximum",
                }
            ),
            unit="instances",
            period=MINUTE,
        ),
        graph(
            "Launches and terminations under way",
            *of({"GroupPendingInstances": "launching", "GroupTerminatingInstances": "terminating"}),
            unit="instances",
            period=MINUTE,
        ),
        graph(
            "Warm pool",
            *of({"WarmPoolWarmedCapacity": "warm", "WarmPoolPendingCapacity": "being prepared"}),
            unit="instances",
            period=MINUTE,
        ),
    ]


def _queues(system: System, pool: Pool) -> IWidget:
    queues = system.queues[pool]
    return graph(
        "Age of the oldest job, and dead letters",
        *(oldest_message(queue, label=priority) for priority, queue in queues.queues.items()),
        right=[visible_messages(queues.dead_letters, label="dead letters")],
        unit="seconds",
        right_unit="messages",
        width=6,
    )


def _scaling_alarms(scope: Construct, fleet: str) -> list[IAlarm]:
    """Return the fleet's scaling alarms by their names: no reference to its stack."""
    return [
        CloudWatchAlarm.from_alarm_arn(
            scope,
            f"{fleet}-{name}",
            Arn.format(
                ArnComponents(
                    service="cloudwatch",
                    resource="alarm",
                    resource_name=f"{fleet}-{name}",
                    arn_format=ArnFormat.COLON_RESOURCE_NAME,
                ),
                Stack.of(scope),
            ),
        )
        for name in SCALING_ALARMS
    ]
