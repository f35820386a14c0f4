"""Jobs of all pools: how many, how they end, where their time goes, why they fail."""

from collections.abc import Mapping

from aws_cdk.aws_cloudwatch import IMetric, IWidget

from cdk.aws_metrics import oldest_message, visible_messages
from cdk.config import DeploymentConfig
from cdk.dashboards_parts import endings, graph, heading, log_table, percentiles, search
from cdk.queries import FAILURES, HANGS, LONGEST_WAITS
from cdk.system import System
from scanfleet.contract import Dimension, Metric

HANG = {Dimension.FAILURE_CLASS: "hang"}


def rows(system: System) -> list[list[IWidget]]:
    """Return the dashboard's rows."""
    config = system.config
    return [
        [heading("### How many jobs, and how they end")],
        [
            graph("Jobs that ended", *endings(config, *config.pools), unit="jobs", stacked=True),
            graph("Age of the oldest job", *_oldest(system), unit="seconds"),
            graph("Dead letters", *_dead_letters(system), unit="messages", limit=(1, "dead-letters")),
        ],
        [heading("### What goes wrong")],
        [
            graph(
                "Jobs that failed, by class",
                search(config, Metric.JOB_FAILED, statistic="Sum"),
                unit="jobs",
                stacked=True,
            ),
            graph(
                "Attempts that were retried, by class",
                search(config, Metric.JOB_RETRIED, statistic="Sum"),
                unit="attempts",
                stacked=True,
            ),
            graph("Hangs", *hangs(config), unit="attempts"),
        ],
        [log_table(config, FAILURES, width=12), log_table(config, HANGS, width=12)],
        [
            graph(
                "What was found undone and repaired",
                search(config, Metric.SWEEPER_REPAIRS, statistic="Sum"),
                unit="repairs",
                width=12,
                stacked=True,
            ),
            graph(
                "Sweeper: runs in five minutes",
                search(config, Metric.SWEEPER_RUNS, statistic="Sum"),
                unit="runs",
                width=12,
                limit=(1, "sweeper-silent"),
            ),
        ],
        [heading("### Where their time goes")],
        [
            graph(
                "Time in each state", *percentiles(config, Metric.STATE_DURATION), unit="seconds", width=12
            ),
            graph(
                "Time in each stage of the program",
                *percentiles(config, Metric.STAGE_DURATION),
                unit="seconds",
                width=12,
            ),
        ],
        [
            graph(
                "Wait in the queue",
                *percentiles(config, Metric.STATE_DURATION, fixed={Dimension.STATE: "queued"}),
                unit="seconds",
            ),
            graph("Input fetched", search(config, Metric.BYTES_DOWNLOADED, statistic="Sum"), unit="bytes"),
            graph("Results published", search(config, Metric.BYTES_PUBLISHED, statistic="Sum"), unit="bytes"),
        ],
        [heading("### What a job's program uses")],
        *used(config),
        [log_table(config, LONGEST_WAITS)],
    ]


def used(config: DeploymentConfig, fixed: Mapping[Dimension, str] | None = None) -> list[list[IWidget]]:
    """Return two rows of what programs use: CPU, GPU, memory, disk. fixed: the pool, if only one is asked."""

    def of(metric: Metric, label: str, statistic: str) -> IMetric:
        return search(config, metric, statistic=statistic, label=label, fixed=fixed)

    return [
        [
            graph(
                "CPU of a job, of one core",
                of(Metric.JOB_CPU_MEAN, "mean", "p50"),
                of(Metric.JOB_CPU_PEAK, "peak p95", "p95"),
                unit="percent",
            ),
            graph(
                "Memory of a job",
                of(Metric.JOB_MEMORY_PEAK, "peak p50", "p50"),
                of(Metric.JOB_MEMORY_PEAK, "peak max", "Maximum"),
                unit="bytes",
            ),
            graph("GPU of a job", of(Metric.JOB_GPU_MEAN, "mean", "p50"), unit="percent"),
        ],
        [
            graph(
                "GPU memory of a job",
                of(Metric.JOB_GPU_MEMORY_PEAK, "peak p50", "p50"),
                of(Metric.JOB_GPU_MEMORY_PEAK, "peak max", "Maximum"),
                unit="bytes",
            ),
            graph(
                "Read and written by a job",
                of(Metric.JOB_IO, "p50", "p50"),
                of(Metric.JOB_IO, "max", "Maximum"),
                unit="bytes",
            ),
            graph(
                "Disk of a job",
                of(Metric.JOB_DISK_PEAK, "peak p50", "p50"),
                of(Metric.JOB_DISK_PEAK, "peak max", "Maximum"),
                unit="bytes",
            ),
        ],
    ]


def hangs(config: DeploymentConfig) -> list[IMetric]:
    """Return detected hangs, and those of them that ended their job."""
    return [
        search(config, Metric.HANGS_DETECTED, statistic="Sum", label="detected"),
        search(config, Metric.JOB_FAILED, statistic="Sum", label="job failed", fixed=HANG),
    ]


def _oldest(system: System) -> list[IMetric]:
    return [
        oldest_message(queue, label=f"{pool} {priority}")
        for pool, queues in system.queues.items()
        for priority, queue in queues.queues.items()
    ]


def _dead_letters(system: System) -> list[IMetric]:
    moved = search(system.config, Metric.MESSAGES_DEAD_LETTERED, statistic="Sum", label="moved by agents")
    return [
        *(visible_messages(queues.dead_letters, label=pool) for pool, queues in system.queues.items()),
        moved,
    ]
