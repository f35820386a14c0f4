"""Step scaling of a pool: out on the backlog per slot, in on idle instances, a fallback on SQS's numbers.

Every number here is explained in docs/decisions/0030-step-scaling.md. What is promised, whatever the pool:

- out: from zero, too; never more new slots than jobs that wait; the largest step reaches the pool's maximum;
- in: never more instances than were idle, and only after a quarter of an hour with at least one idle;
- controller silent: one instance at a time while jobs wait, and nothing is taken away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from aws_cdk import Duration
from aws_cdk.aws_autoscaling import CfnScalingPolicy
from aws_cdk.aws_cloudwatch import (
    Alarm,
    CfnAlarm,
    ComparisonOperator,
    IMetric,
    MathExpression,
    TreatMissingData,
)
from constructs import Construct

from cdk.config import DeploymentConfig
from cdk.job_queue import JobQueue
from cdk.metrics import scanfleet_metric
from scanfleet.contract import INSTANCE_WARM_UP, SAMPLE_PERIOD, Metric, Pool, fleet_name

MOST_STEPS = 20
"""Source: EC2 Auto Scaling guide, "Quotas": step adjustments per step scaling policy."""

OUT_THRESHOLD = 1
"""Jobs that wait per slot. Below one, a job waits for less than a run of the job before it: about a boot."""
OUT_DATAPOINTS, OUT_PERIODS = 2, 3
"""Two of the last three samples: one alone may have seen a batch that idle agents take in the same second."""
IN_THRESHOLD = 1
IN_PERIOD = Duration.seconds(30)
IN_PERIODS = 30
"""A quarter of an hour with an idle instance, without a gap, before one goes: about two boots. In half
minutes: an alarm whose metric falls silent goes on with its last values for some periods more."""
FALLBACK_THRESHOLD = 1
FALLBACK_PERIOD = Duration.minutes(1)
"""SQS's metrics are no finer. Source: SQS developer guide, "Available CloudWatch metrics for Amazon SQS"."""
FALLBACK_PERIODS = 5
"""Minutes without a sample and with waiting jobs: a deploy or a retry of the controller takes less."""

_SAMPLE_PERIOD = Duration.seconds(int(SAMPLE_PERIOD.total_seconds()))

SHARES = ((1, 50), (2, 100), (3, 200), (5, 400))
"""(backlog per slot, percent of the capacity to add). Each is at most what the backlog would fill."""


@dataclass(frozen=True)
class Step:
    """One step: from this metric value on, up to the next step's, change the capacity by this."""

    value: int
    change: int


@dataclass(frozen=True)
class Trigger:
    """When an alarm rings: `datapoints` of `periods` values at or above the threshold."""

    threshold: int
    datapoints: int
    periods: int


def steps_by_count(*, most_instances: int, slots: int) -> list[Step]:
    """Return how many instances to add at which backlog per slot, up to all that the pool may have.

    Without a machine in service the backlog per slot is the backlog itself, and `k` instances are added once
    it has a job for the k-th. With machines in service, the same value means more jobs, never fewer.
    Example: most 4, slots 2 -> 1: +1, 3: +2, 5: +3, 7: +4.
    """
    return [Step((count - 1) * slots + 1, count) for count in _ladder(most_instances)]


def steps_by_share() -> list[Step]:
    """Return how many percent of the capacity to add at which backlog per slot.

    For a fleet that already has many machines, where a count sized for an empty one is too small.
    """
    return [Step(value, percent) for value, percent in SHARES]


def steps_in(*, most_instances: int) -> list[Step]:
    """Return how many instances to remove at how many idle ones: about half of them, once a minute.

    Half, because the number is a minute old at most, but need not have lasted for the alarm's quarter of an
    hour: that promises one idle instance only.
    Example: most 8 -> 1: -1, 4: -2, 8: -4.
    """
    values = [1] + [2**n for n in range(2, 12) if 2**n <= most_instances]
    return [Step(value, -max(1, value // 2)) for value in values]


def _ladder(most: int) -> list[int]:
    """Return 1, 2, 3, 4, 6, 8, 12, 16, ... and `most` itself: fine below, coarse above, 19 rungs to 500."""
    rungs = {1, 2, 3, most} | {m * 2**n for m in (2, 3) for n in range(12)}
    return sorted(rung for rung in rungs if rung <= most)


class StepScaling(Construct):
    """The alarms and policies that move a pool's Auto Scaling group.

    `most_instances`: the most that the group may ever have, a schedule's maximum included.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: DeploymentConfig,
        pool: Pool,
        queue: JobQueue,
        group: str,
        most_instances: int,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config, self._pool, self._group = config, pool, group
        # Where calibrations say it, the controller counts an empty fleet as one machine, not as one slot.
        slots = config.pools[pool].slots_per_instance or 1
        self._alarm(
            "Out",
            does="adds instances: jobs wait for slots",
            metric=self._metric(Metric.BACKLOG_PER_SLOT, statistic="Maximum", period=_SAMPLE_PERIOD),
            trigger=Trigger(OUT_THRESHOLD, OUT_DATAPOINTS, OUT_PERIODS),
            policies=[
                self._policy(
                    "OutByCount",
                    steps_by_count(most_instances=most_instances, slots=slots),
                    threshold=OUT_THRESHOLD,
                    aggregation="Maximum",
                ),
                self._policy(
                    "OutByShare",
                    steps_by_share(),
                    threshold=OUT_THRESHOLD,
                    aggregation="Maximum",
                    adjustment="PercentChangeInCapacity",
                ),
            ],
        )
        self._alarm(
            "In",
            does="removes instances: they have been idle for a while",
            metric=self._metric(Metric.IDLE_INSTANCES, statistic="Minimum", period=IN_PERIOD),
            trigger=Trigger(IN_THRESHOLD, IN_PERIODS, IN_PERIODS),
            policies=[
                self._policy(
                    "InByIdle",
                    steps_in(most_instances=most_instances),
                    threshold=IN_THRESHOLD,
                    aggregation="Minimum",
                )
            ],
        )
        self._alarm(
            "Fallback",
            does="adds an instance: jobs wait, and the controller is silent",
            metric=self._waiting_unwatched(queue),
            trigger=Trigger(FALLBACK_THRESHOLD, FALLBACK_PERIODS, FALLBACK_PERIODS),
            policies=[
                self._policy(
                    "OutByOne",
                    [Step(FALLBACK_THRESHOLD, 1)],
                    threshold=FALLBACK_THRESHOLD,
                    aggregation="Maximum",
                )
            ],
        )

    def _metric(self, metric: Metric, *, statistic: str, period: Duration) -> IMetric:
        return scanfleet_metric(
            self._config, metric, statistic=statistic, period=period, pool=self._pool.value
        )

    def _waiting_unwatched(self, queue: JobQueue) -> IMetric:
        """Return the jobs that wait by SQS's count while the controller publishes nothing, else 0."""
        waiting: Mapping[str, IMetric] = {
            f"waiting_{priority}": q.metric_approximate_number_of_messages_visible(
                statistic="Maximum", period=FALLBACK_PERIOD
            )
            for priority, q in queue.queues.items()
        }
        samples = self._metric(Metric.CONTROLLER_SAMPLES, statistic="Sum", period=FALLBACK_PERIOD)
        total = " + ".join(f"FILL({name}, 0)" for name in waiting)
        return MathExpression(
            expression=f"IF(FILL(samples, 0) < 1, {total}, 0)",
            using_metrics={"samples": samples, **waiting},
            label="jobs that wait while the controller is silent",
            period=FALLBACK_PERIOD,
        )

    def _policy(
        self,
        construct_id: str,
        steps: Sequence[Step],
        *,
        threshold: int,
        aggregation: str,
        adjustment: str = "ChangeInCapacity",
    ) -> CfnScalingPolicy:
        return CfnScalingPolicy(
            self,
            construct_id,
            auto_scaling_group_name=self._group,
            policy_type="StepScaling",
            adjustment_type=adjustment,
            metric_aggregation_type=aggregation,
            estimated_instance_warmup=INSTANCE_WARM_UP.total_seconds(),
            step_adjustments=list(_adjustments(steps, threshold=threshold)),
        )

    def _alarm(
        self,
        construct_id: str,
        *,
        does: str,
        metric: IMetric,
        trigger: Trigger,
        policies: Sequence[CfnScalingPolicy],
    ) -> None:
        name = fleet_name(self._config.stage, self._pool)
        alarm = Alarm(
            self,
            construct_id,
            alarm_name=f"{name}-scale-{construct_id.lower()}",
            alarm_description=f"{name} {does}. No reason to worry: this is how it scales.",
            metric=metric,
            threshold=trigger.threshold,
            comparison_operator=ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            datapoints_to_alarm=trigger.datapoints,
            evaluation_periods=trigger.periods,
            # Silence is no reason to scale: it ends what the last sample started; the fallback takes over.
            treat_missing_data=TreatMissingData.NOT_BREACHING,
        )
        cast("CfnAlarm", alarm.node.default_child).alarm_actions = [policy.ref for policy in policies]


def _adjustments(
    steps: Sequence[Step], *, threshold: int
) -> Iterable[CfnScalingPolicy.StepAdjustmentProperty]:
    """Return the steps as Auto Scaling wants them: bounds relative to the threshold, the last one open."""
    ends = [step.value - threshold for step in steps[1:]]
    for step, end in zip(steps, [*ends, None], strict=True):
        yield CfnScalingPolicy.StepAdjustmentProperty(
            metric_interval_lower_bound=step.value - threshold,
            metric_interval_upper_bound=end,
            scaling_adjustment=step.change,
        )
