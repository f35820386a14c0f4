"""The alarms. Each names its section of docs/runbook.md, and what no data means is decided for each.

A rate alone would ring for the first failure after a quiet night, a count alone would never fit a fleet that
grows: so rates count at least MIN_ATTEMPTS in the denominator. They are metric math.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk.aws_cloudwatch import Alarm as CloudWatchAlarm
from aws_cdk.aws_cloudwatch import ComparisonOperator, IMetric, MathExpression, TreatMissingData
from aws_cdk.aws_cloudwatch_actions import SnsAction
from aws_cdk.aws_sns import ITopic
from constructs import Construct

from cdk.aws_events import image_failed_rule_name, launch_failed_rule_name
from cdk.aws_metrics import function_metric, oldest_message, rule_metric, visible_messages
from cdk.config import DeploymentConfig
from cdk.metrics import scanfleet_metric
from cdk.system import System
from scanfleet.contract import (
    ALL_ROUTES,
    CONTROLLER_PERIOD,
    LAUNCH_HOOK_TIMEOUT,
    MAX_RECEIVE_COUNT,
    Alarm,
    Component,
    Metric,
    Pool,
    Priority,
    alarm_name,
    function_name,
)

RUNBOOK = "docs/runbook.md"

MINUTE = Duration.minutes(1)
FIVE_MINUTES = Duration.minutes(5)
HALF_HOUR = Duration.minutes(30)
HOUR = Duration.hours(1)

MIN_ATTEMPTS = 5
"""A rate's denominator at least: of fewer attempts, two must go wrong before the alarm rings."""
HANGS_PERCENT = 25
FAILURES_PERCENT = 25
DRIFT = 1.25
"""Half of DRIFT_RUNS runs that differ by a quarter from each other are beyond it by chance in one of forty
half hours, twice in a row about once in a month."""
DRIFT_RUNS = 6
DRIFT_PERIODS = 2
OLDEST_JOB = Duration.minutes(60)
"""A first boot (LAUNCH_HOOK_TIMEOUT) and two jobs of 15 minutes in front of it fit."""
OLDEST_URGENT_JOB = Duration.minutes(45)
"""A first boot and one job in front of it fit."""
SILENT_MINUTES = 3
"""The controller publishes six samples a minute; a deploy or one failed run of it takes less than three."""
UNSWEPT_PERIODS = 3
"""Periods of five minutes. What it repairs is rare, so a service's bad minutes need nobody."""
RELEASE_PERIODS = 2
"""Periods of five minutes. A machine that fails tries again within each; one missing answer needs nobody."""
BOOT_FAILURES = 2
"""Within BOOTS_WATCHED: a single one is replaced by itself."""
BOOTS_WATCHED = Duration.minutes(30)
"""Longer than a boot may take: two that fail one after the other are seen together. Rollouts wait for it."""
NO_AGENT_PERIODS = int(LAUNCH_HOOK_TIMEOUT.total_seconds() // 300) + 1
"""Periods of five minutes: one longer than an instance may take to get ready."""
API_ERRORS = 5
EVENTS_LATE_SECONDS = 30

# Failure classes and states are the runtime's words; a test compares these with the runtime's enumerations.
HANG, BAD_INPUT = "hang", "bad_input"
PROCESSING, COMPLETED, FAILED = "processing", "completed", "failed"

NOT_BREACHING, BREACHING = TreatMissingData.NOT_BREACHING, TreatMissingData.BREACHING


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alarm. `no_data`: why silence means what `missing` says."""

    alarm: Alarm
    tells: str
    metric: IMetric
    threshold: float
    periods: int = 1
    comparison: ComparisonOperator = ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
    missing: TreatMissingData = NOT_BREACHING
    no_data: str
    pool: Pool | None = None

    @property
    def is_math(self) -> bool:
        """Say whether the emulator of the local stage would refuse it."""
        return isinstance(self.metric, MathExpression)


class Alarms(Construct):
    """Every alarm of the deployment, told to one topic when it rings and when it is over.

    The local stage leaves out metric math, which its emulator refuses.
    """

    def __init__(self, scope: Construct, construct_id: str, *, system: System, topic: ITopic) -> None:
        super().__init__(scope, construct_id)
        self._system = system
        self._topic = topic
        config = system.config
        self.alarms: Mapping[tuple[Alarm, Pool | None], CloudWatchAlarm] = {
            (rule.alarm, rule.pool): self._alarm(rule)
            for rule in self._rules()
            if not (config.is_local and rule.is_math)
        }

    def of(self, pool: Pool | None) -> list[CloudWatchAlarm]:
        """Return the alarms of a pool; of the whole deployment for None."""
        return [alarm for (_, owner), alarm in self.alarms.items() if owner == pool]

    def _rules(self) -> Iterator[Rule]:
        config = self._system.config
        for pool in config.pools:
            yield from queue_rules(self._system, pool)
            yield from job_rules(config, pool)
            yield drift_rule(config, pool)
            yield from fleet_rules(config, pool)
            yield release_rule(config, pool)
            yield sweeper_rule(config, pool)
        yield from api_rules(config)
        if config.api.live_events:
            yield events_rule(config)
        yield image_rule(config)

    def _alarm(self, rule: Rule) -> CloudWatchAlarm:
        name = alarm_name(self._system.config.stage, rule.alarm, rule.pool)
        alarm = CloudWatchAlarm(
            self,
            "-".join([*([rule.pool] if rule.pool else []), rule.alarm]),
            alarm_name=name,
            alarm_description=f"{rule.tells} No data: {rule.no_data} Runbook: {RUNBOOK}#{rule.alarm}",
            metric=rule.metric,
            threshold=rule.threshold,
            evaluation_periods=rule.periods,
            datapoints_to_alarm=rule.periods,
            comparison_operator=rule.comparison,
            treat_missing_data=rule.missing,
        )
        action = SnsAction(self._topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)
        return alarm


def queue_rules(system: System, pool: Pool) -> Iterator[Rule]:
    """Return the alarms on a pool's queues."""
    queue = system.queues[pool]
    quiet = "a queue that nobody uses has no metrics, and nothing waits in it."
    yield Rule(
        alarm=Alarm.DEAD_LETTERS,
        pool=pool,
        tells=f"{pool}: a message was delivered {MAX_RECEIVE_COUNT} times and nobody could handle it.",
        metric=visible_messages(queue.dead_letters, period=MINUTE),
        threshold=1,
        no_data=quiet,
    )
    for alarm, priority, oldest in (
        (Alarm.OLDEST_JOB, Priority.NORMAL, OLDEST_JOB),
        (Alarm.OLDEST_URGENT_JOB, Priority.HIGH, OLDEST_URGENT_JOB),
    ):
        yield Rule(
            alarm=alarm,
            pool=pool,
            tells=f"{pool}: the oldest {priority} job is older than {oldest.to_minutes():.0f} minutes.",
            metric=oldest_message(queue.queues[priority], period=FIVE_MINUTES),
            threshold=oldest.to_seconds(),
            periods=2,
            no_data=quiet,
        )


def job_rules(config: DeploymentConfig, pool: Pool) -> Iterator[Rule]:
    """Return the alarms on how jobs end."""

    def count(metric: Metric, statistic: str = "Sum", **dimensions: str) -> IMetric:
        return scanfleet_metric(
            config, metric, statistic=statistic, period=HOUR, pool=pool.value, **dimensions
        )

    idle = "no job ended in this hour."
    yield Rule(
        alarm=Alarm.HANG_RATE,
        pool=pool,
        tells=f"{pool}: more than {HANGS_PERCENT} % of the last hour's program runs hung.",
        metric=_percent(
            "FILL(retried, 0) + FILL(failed, 0)",
            of="FILL(runs, 0)",
            label="hangs, % of program runs",
            retried=count(Metric.JOB_RETRIED, failure_class=HANG),
            failed=count(Metric.JOB_FAILED, failure_class=HANG),
            # Each run of a program leaves the state `processing` exactly once.
            runs=count(Metric.STATE_DURATION, "SampleCount", state=PROCESSING),
        ),
        threshold=HANGS_PERCENT,
        comparison=ComparisonOperator.GREATER_THAN_THRESHOLD,
        no_data=idle,
    )
    yield Rule(
        alarm=Alarm.FAILURE_RATE,
        pool=pool,
        tells=f"{pool}: more than {FAILURES_PERCENT} % of the last hour's jobs failed, bad input aside.",
        metric=_percent(
            "FILL(failed, 0) - FILL(bad, 0)",
            of="(FILL(failed, 0) + FILL(done, 0))",
            label="failed jobs, % of ended ones",
            failed=count(Metric.JOB_FINISHED, state=FAILED),
            bad=count(Metric.JOB_FAILED, failure_class=BAD_INPUT),
            done=count(Metric.JOB_FINISHED, state=COMPLETED),
        ),
        threshold=FAILURES_PERCENT,
        comparison=ComparisonOperator.GREATER_THAN_THRESHOLD,
        no_data=idle,
    )


def drift_rule(config: DeploymentConfig, pool: Pool) -> Rule:
    """Return the alarm on programs that take longer than they used to, for all inputs alike."""

    def ratio(statistic: str) -> IMetric:
        return scanfleet_metric(
            config, Metric.DURATION_RATIO, statistic=statistic, period=HALF_HOUR, pool=pool.value
        )

    return Rule(
        alarm=Alarm.DURATION_DRIFT,
        pool=pool,
        tells=f"{pool}: for an hour, half of all runs took over {DRIFT} times what is usual.",
        metric=MathExpression(
            expression=f"IF(runs >= {DRIFT_RUNS}, ratio, 1)",
            using_metrics={"runs": ratio("SampleCount"), "ratio": ratio("p50")},
            label="median of run times against what is usual",
            period=HALF_HOUR,
        ),
        threshold=DRIFT,
        periods=DRIFT_PERIODS,
        no_data="no run ended in this half hour.",
    )


def fleet_rules(config: DeploymentConfig, pool: Pool) -> Iterator[Rule]:
    """Return the alarms on a pool's machines, and on the controller that watches them."""

    def metric(name: Metric, statistic: str, period: Duration) -> IMetric:
        return scanfleet_metric(config, name, statistic=statistic, period=period, pool=pool.value)

    yield Rule(
        alarm=Alarm.NO_HEALTHY_AGENT,
        pool=pool,
        tells=f"{pool}: jobs wait, and no agent was ready for longer than a boot takes.",
        metric=MathExpression(
            expression="IF(backlog >= 1, IF(slots < 1, 1, 0), 0)",
            using_metrics={
                "backlog": metric(Metric.BACKLOG, "Minimum", FIVE_MINUTES),
                "slots": metric(Metric.SLOTS_IN_SERVICE, "Maximum", FIVE_MINUTES),
            },
            label="jobs wait and no agent is ready",
            period=FIVE_MINUTES,
        ),
        threshold=1,
        periods=NO_AGENT_PERIODS,
        no_data=f"the controller is silent, which is the alarm {Alarm.CONTROLLER_SILENT}.",
    )
    yield Rule(
        alarm=Alarm.BOOT_FAILURES,
        pool=pool,
        tells=f"{pool}: {BOOT_FAILURES} instances within half an hour did not get ready.",
        metric=metric(Metric.BOOT_FAILED, "Sum", BOOTS_WATCHED),
        threshold=BOOT_FAILURES,
        no_data="it is sent when a boot fails only.",
    )
    yield Rule(
        alarm=Alarm.LAUNCH_FAILURES,
        pool=pool,
        tells=f"{pool}: AWS could not start an instance: quota, capacity, image or permission.",
        metric=rule_metric(launch_failed_rule_name(config.stage, pool)),
        threshold=1,
        no_data="it is sent when a launch fails only.",
    )
    yield Rule(
        alarm=Alarm.CONTROLLER_SILENT,
        pool=pool,
        tells=f"{pool}: the controller published nothing for {SILENT_MINUTES} minutes: scaling is blind.",
        metric=metric(Metric.CONTROLLER_SAMPLES, "Sum", Duration.seconds(CONTROLLER_PERIOD.total_seconds())),
        threshold=1,
        periods=SILENT_MINUTES,
        comparison=ComparisonOperator.LESS_THAN_THRESHOLD,
        missing=BREACHING,
        no_data="that is what it watches for.",
    )
    yield Rule(
        alarm=Alarm.ROLLOUT_FAILED,
        pool=pool,
        tells=f"{pool}: the last rollout failed; the fleet does not run what it should.",
        metric=metric(Metric.ROLLOUT_FAILED, "Maximum", FIVE_MINUTES),
        threshold=1,
        no_data=f"the controller is silent, which is the alarm {Alarm.CONTROLLER_SILENT}.",
    )


def release_rule(config: DeploymentConfig, pool: Pool) -> Rule:
    """Return the alarm on machines that cannot take the active release."""
    return Rule(
        alarm=Alarm.RELEASE_FAILED,
        pool=pool,
        tells=f"{pool}: a machine cannot take the active release, and goes on with the one before.",
        metric=scanfleet_metric(
            config, Metric.RELEASE_FAILED, statistic="Sum", period=FIVE_MINUTES, pool=pool.value
        ),
        threshold=1,
        periods=RELEASE_PERIODS,
        no_data="it is sent when a machine fails to take it only.",
    )


def sweeper_rule(config: DeploymentConfig, pool: Pool) -> Rule:
    """Return the alarm on the sweeper, which is silent when it fails."""
    return Rule(
        alarm=Alarm.SWEEPER_SILENT,
        pool=pool,
        tells=f"{pool}: no run of the sweeper saw all jobs for {UNSWEPT_PERIODS * 5} minutes.",
        metric=scanfleet_metric(
            config, Metric.SWEEPER_RUNS, statistic="Sum", period=FIVE_MINUTES, pool=pool.value
        ),
        threshold=1,
        periods=UNSWEPT_PERIODS,
        comparison=ComparisonOperator.LESS_THAN_THRESHOLD,
        missing=BREACHING,
        no_data="that is what it watches for.",
    )


def api_rules(config: DeploymentConfig) -> Iterator[Rule]:
    """Return the alarms on the API: what the app answers, and what AWS does with its function."""
    function = function_name(config.stage, Component.API)
    yield Rule(
        alarm=Alarm.API_ERRORS,
        tells=f"The API answered {API_ERRORS} requests or more with 5xx within 5 minutes.",
        metric=scanfleet_metric(
            config, Metric.API_SERVER_ERROR, statistic="Sum", period=FIVE_MINUTES, route=ALL_ROUTES
        ),
        threshold=API_ERRORS,
        no_data="it is sent when the API fails only.",
    )
    yield Rule(
        alarm=Alarm.API_CRASHES,
        tells="The API's function ended without an answer: a crash, a time-out, no memory.",
        metric=function_metric(function, "Errors", statistic="Sum"),
        threshold=1,
        no_data="nobody called.",
    )
    yield Rule(
        alarm=Alarm.API_THROTTLES,
        tells="Requests were refused: the API's function had no concurrency left.",
        metric=function_metric(function, "Throttles", statistic="Sum"),
        threshold=1,
        no_data="nobody called.",
    )


def events_rule(config: DeploymentConfig) -> Rule:
    """Return the alarm on the function of live events: late or failing, its stream's records grow old."""
    return Rule(
        alarm=Alarm.EVENTS_LATE,
        tells=f"Changes of jobs reach listeners more than {EVENTS_LATE_SECONDS} s late, or not at all.",
        metric=function_metric(
            function_name(config.stage, Component.EVENTS), "IteratorAge", statistic="Maximum"
        ),
        threshold=EVENTS_LATE_SECONDS * 1000,
        periods=2,
        no_data="no job changed.",
    )


def image_rule(config: DeploymentConfig) -> Rule:
    """Return the alarm on image builds, which runs on EventBridge's count of their events."""
    return Rule(
        alarm=Alarm.IMAGE_BUILD_FAILED,
        tells="An image build failed: new machines start with the last image that passed its tests.",
        metric=rule_metric(image_failed_rule_name(config.stage)),
        threshold=1,
        no_data="it is sent when a build fails only.",
    )


def _percent(part: str, *, of: str, label: str, **metrics: IMetric) -> MathExpression:
    """Return `part` as percent of `of`, which counts as MIN_ATTEMPTS at least; both are expressions."""
    return MathExpression(
        expression=f"100 * ({part}) / IF({of} > {MIN_ATTEMPTS}, {of}, {MIN_ATTEMPTS})",
        using_metrics=metrics,
        label=label,
        period=HOUR,
    )
