"""Metrics of the dashboards that can never get data on one machine, each with its reason.

The pictures show the reason instead of a bare "no data", and the system test of the dashboards wants data of
every other one.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from scanfleet.contract import METRIC_FACTS, Dimension, Metric, Pool
from scanfleet.dashboards.body import Line
from scanfleet.dashboards.search import parse_search


@dataclass(frozen=True)
class Gap:
    """What has no data and why. namespace, metric: patterns as for file names. pool: of metrics of jobs."""

    reason: str
    namespace: str = "Scanfleet/*"
    metric: str = "*"
    pool: Pool | None = None


NO_BOOT = "processes here are not booted"
ON_ONE_MACHINE = (
    Gap("the emulator measures no queues", "AWS/SQS"),
    Gap("the emulator measures no tables", "AWS/DynamoDB"),
    Gap("nothing is a Lambda function here", "AWS/Lambda"),
    Gap("there is no load balancer here", "AWS/ApplicationELB"),
    Gap("there is no HTTP API in front here", "AWS/ApiGateway"),
    Gap("there is no Auto Scaling group here", "AWS/AutoScaling"),
    Gap("no images are built here", "AWS/Events"),
    Gap(NO_BOOT, metric=Metric.BOOT_DURATION),
    Gap(NO_BOOT, metric=Metric.BOOT_FAILED),
    Gap("there are no instances to roll out to", metric=Metric.ROLLOUT_FAILED),
    Gap("this machine has no price by the hour", metric=Metric.FLEET_COST_PER_HOUR),
    Gap("the reference processor has no releases", metric=Metric.RELEASE_FAILED),
    Gap("only with an NVIDIA GPU", metric=Metric.JOB_GPU_MEAN),
    Gap("only with an NVIDIA GPU", metric=Metric.JOB_GPU_MEMORY_PEAK),
    Gap("nobody serves this pool here", pool=Pool.WINDOWS_GPU),
)
SAMPLED = frozenset(
    {
        Metric.BACKLOG,
        Metric.IN_FLIGHT,
        Metric.BACKLOG_PER_SLOT,
        Metric.SLOTS_IN_SERVICE,
        Metric.SLOTS_BOOTING,
        Metric.SLOTS_BUSY,
        Metric.IDLE_INSTANCES,
        Metric.INSTANCES,
        Metric.CONTROLLER_SAMPLES,
        Metric.SWEEPER_RUNS,
    }
)
"""Looked at for every pool, whether or not anybody serves it."""


def reason_on_one_machine(line: Line) -> str | None:
    """Return why the line has no data on one machine; None: it should have."""
    search = parse_search(line.expression) if line.expression else None
    namespace, name = (search.namespace, search.name) if search else (line.namespace, line.name)
    pool = (search.wanted if search else dict(line.dimensions)).get(Dimension.POOL)
    for gap in ON_ONE_MACHINE:
        if not (fnmatchcase(namespace, gap.namespace) and fnmatchcase(name, gap.metric)):
            continue
        if gap.pool is None or (gap.pool == pool and name in set(METRIC_FACTS) - SAMPLED):
            return gap.reason
    return None
