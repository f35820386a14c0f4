"""The fleet at a glance: every pool's slots, backlog, machines and cost, and what rings."""

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import AlarmStatusWidget, IMetric, IWidget

from cdk.alarms import Alarms
from cdk.config import DeploymentConfig
from cdk.dashboards_parts import COLUMNS, graph, heading, numbers, search
from cdk.metrics import scanfleet_metric
from scanfleet.contract import Metric, Pool

MINUTE = Duration.minutes(1)


def rows(config: DeploymentConfig, alarms: Alarms) -> list[list[IWidget]]:
    """Return the dashboard's rows."""
    return [
        [AlarmStatusWidget(title="What rings", alarms=list(alarms.alarms.values()), width=COLUMNS, height=5)],
        *([_summary(config, pool)] for pool in config.pools),
        [heading("### Work and room for it")],
        [
            graph("Backlog", _per_pool(config, Metric.BACKLOG), unit="messages"),
            graph("Backlog per slot", _per_pool(config, Metric.BACKLOG_PER_SLOT)),
            graph("Busy slots", _per_pool(config, Metric.SLOTS_BUSY), unit="slots", stacked=True),
        ],
        [
            graph("Slots in service", _per_pool(config, Metric.SLOTS_IN_SERVICE), unit="slots"),
            graph("Slots that boot", _per_pool(config, Metric.SLOTS_BOOTING), unit="slots"),
            graph("In flight", _per_pool(config, Metric.IN_FLIGHT), unit="messages"),
        ],
        [heading("### Machines and what they cost")],
        [
            graph("Running instances", _per_pool(config, Metric.INSTANCES), unit="instances", stacked=True),
            graph("Idle instances", _per_pool(config, Metric.IDLE_INSTANCES), unit="instances"),
            graph(
                "Cost per hour, on-demand list price",
                _per_pool(config, Metric.FLEET_COST_PER_HOUR),
                unit="US dollars",
                stacked=True,
            ),
        ],
        [
            graph(
                "Boots: launch to ready agent",
                search(config, Metric.BOOT_DURATION, statistic="p50", label="p50"),
                search(config, Metric.BOOT_DURATION, statistic="p95", label="p95"),
                unit="seconds",
            ),
            graph(
                "Instances that got ready, and that were given up",
                search(config, Metric.BOOT_DURATION, statistic="SampleCount", label="ready"),
                search(config, Metric.BOOT_FAILED, statistic="Sum", label="given up"),
                unit="instances",
            ),
            graph(
                "Controller: samples a minute",
                search(config, Metric.CONTROLLER_SAMPLES, statistic="Sum", period=MINUTE),
                unit="samples",
                limit=(1, "controller-silent"),
                period=MINUTE,
            ),
        ],
    ]


def _summary(config: DeploymentConfig, pool: Pool) -> IWidget:
    """Return one pool's numbers of now."""

    def now(metric: Metric, label: str) -> IMetric:
        return scanfleet_metric(
            config, metric, statistic="Maximum", period=MINUTE, label=label, pool=pool.value
        )

    return numbers(
        f"{pool} now",
        now(Metric.BACKLOG, "waiting"),
        now(Metric.IN_FLIGHT, "in flight"),
        now(Metric.SLOTS_BUSY, "slots busy"),
        now(Metric.SLOTS_IN_SERVICE, "slots in service"),
        now(Metric.SLOTS_BOOTING, "slots booting"),
        now(Metric.INSTANCES, "instances"),
        now(Metric.FLEET_COST_PER_HOUR, "US dollars per hour"),
    )


def _per_pool(config: DeploymentConfig, metric: Metric) -> IMetric:
    return search(config, metric, statistic="Maximum", period=MINUTE)
