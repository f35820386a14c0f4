"""Saved CloudWatch Logs Insights queries: the questions that operators ask.

Lines are JSON objects whose fields docs/logging-and-metrics.md names; Logs Insights finds them by itself.
Where a value has to be filled in, the query says so in capitals.
Source: CloudWatch Logs user guide, "CloudWatch Logs Insights language query syntax".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aws_cdk.aws_logs import CfnQueryDefinition
from constructs import Construct

from cdk.config import DeploymentConfig
from scanfleet.contract import PRODUCT, Component, log_group_name


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question. name: folder/title; lines: one Logs Insights command each."""

    name: str
    components: tuple[Component, ...]
    lines: tuple[str, ...]

    def log_groups(self, stage: str) -> list[str]:
        """Return the names of the log groups that it reads."""
        return [log_group_name(stage, component) for component in self.components]


JOB_EVENTS = (Component.JOBS, Component.API)
"""Job events are in the first group; the API's own are in the second while the first does not take them."""
EVERYTHING_OF_A_JOB = (Component.API, Component.AGENT, Component.JOBS)

JOB_TIMELINE = Query(
    name="jobs/everything about one job",
    components=EVERYTHING_OF_A_JOB,
    lines=(
        "fields @timestamp, component, action, previous_state, state, attempt, agent_id, reason, @message",
        "filter job_id = 'JOB_ID'",
        "sort @timestamp asc",
        "limit 2000",
    ),
)
TRACE = Query(
    name="jobs/everything of one trace",
    components=EVERYTHING_OF_A_JOB,
    lines=(
        "fields @timestamp, component, level, action, job_id, request_id, message",
        "filter trace_id = 'TRACE_ID'",
        "sort @timestamp asc",
        "limit 2000",
    ),
)
PROGRAM_OUTPUT = Query(
    name="jobs/what a job's program printed",
    components=(Component.PROCESSOR,),
    lines=(
        "fields @timestamp, @logStream as attempt, @message",
        "filter @logStream like 'JOB_ID'",
        "sort @timestamp asc",
        "limit 10000",
    ),
)
FAILURES = Query(
    name="jobs/failed attempts by class and reason",
    components=JOB_EVENTS,
    lines=(
        "filter action in ['job_failed', 'job_retried']",
        "stats count(*) as attempts, count_distinct(job_id) as jobs, latest(job_id) as example"
        " by failure_class, processor, exit_code, substr(reason, 0, 120) as why",
        "sort attempts desc",
        "limit 50",
    ),
)
FAILURES_BY_AGENT = Query(
    name="jobs/failed attempts by machine",
    components=JOB_EVENTS,
    lines=(
        "filter action in ['job_failed', 'job_retried']",
        "stats count(*) as attempts, count_distinct(job_id) as jobs by agent_id, failure_class",
        "sort attempts desc",
        "limit 50",
    ),
)
HANGS = Query(
    name="jobs/hangs",
    components=JOB_EVENTS,
    lines=(
        "fields @timestamp, action, job_id, attempt, agent_id, processor, reason",
        "filter failure_class = 'hang'",
        "sort @timestamp desc",
        "limit 100",
    ),
)
SLOWEST_RUNS = Query(
    name="jobs/slowest program runs",
    components=JOB_EVENTS,
    lines=(
        "fields @timestamp, job_id, owner, agent_id, StateDuration as seconds",
        "filter action = 'job_state_changed' and previous_state = 'processing'",
        "sort seconds desc",
        "limit 50",
    ),
)
LONGEST_WAITS = Query(
    name="jobs/longest waits in the queue",
    components=JOB_EVENTS,
    lines=(
        "fields @timestamp, job_id, owner, Pool, StateDuration as seconds",
        "filter action = 'job_state_changed' and previous_state = 'queued'",
        "sort seconds desc",
        "limit 50",
    ),
)
JOBS_BY_OWNER = Query(
    name="jobs/jobs ended by owner",
    components=JOB_EVENTS,
    lines=(
        "filter action = 'job_state_changed' and state in ['completed', 'failed', 'cancelled']",
        "stats count(*) as jobs by owner, state",
        "sort jobs desc",
    ),
)
REPAIRS = Query(
    name="jobs/what was found undone and repaired",
    components=(Component.SWEEPER, Component.AGENT),
    lines=(
        "fields @timestamp, repair, job_id, attempt, state, files",
        "filter action = 'repaired'",
        "sort @timestamp desc",
        "limit 200",
    ),
)
AGENT_PROBLEMS = Query(
    name="machines/warnings and errors of agents",
    components=(Component.AGENT,),
    lines=(
        "filter level in ['WARNING', 'ERROR', 'CRITICAL']",
        "stats count(*) as times, latest(message) as example, latest(@logStream) as machine by action, level",
        "sort times desc",
    ),
)
AGENTS_STARTED = Query(
    name="machines/which image each agent started with",
    components=(Component.AGENT,),
    lines=(
        "filter action = 'agent_started'",
        "stats latest(@timestamp) as started, latest(ami_id) as image, latest(instance_type) as type"
        " by instance_id",
        "sort started desc",
    ),
)
BOOTS = Query(
    name="machines/boots, step by step",
    components=(Component.USERDATA,),
    lines=(
        "fields @timestamp, @logStream as machine, level, action, message",
        "sort machine asc, @timestamp asc",
        "limit 1000",
    ),
)
BOOT_PROBLEMS = Query(
    name="machines/boots that failed",
    components=(Component.USERDATA,),
    lines=(
        "fields @timestamp, @logStream as machine, level, action, message, @message",
        "filter level in ['WARNING', 'ERROR', 'CRITICAL'] or not ispresent(level)",
        "sort @timestamp desc",
        "limit 200",
    ),
)
CONTROLLER = Query(
    name="machines/what the controller did and why",
    components=(Component.CONTROLLER,),
    lines=(
        "fields @timestamp, level, action, message",
        "filter action != 'controller_minute' and ispresent(action)",
        "sort @timestamp desc",
        "limit 200",
    ),
)
ROLLOUTS = Query(
    name="releases/rollouts",
    components=(Component.CONTROLLER,),
    lines=(
        "fields @timestamp, level, action, @message",
        "filter action like /^rollout_/ or action like /^rollback_/ or action = 'fleet_blocked'",
        "sort @timestamp desc",
        "limit 100",
    ),
)
API_ERRORS = Query(
    name="api/server errors by route",
    components=(Component.API,),
    lines=(
        "filter action = 'http_request' and status >= 500",
        "stats count(*) as answers, latest(request_id) as example by Route, method, status",
        "sort answers desc",
    ),
)
API_REFUSALS = Query(
    name="api/refused requests by route",
    components=(Component.API,),
    lines=(
        "filter action = 'http_request' and status >= 400 and status < 500",
        "stats count(*) as answers, latest(path) as example by Route, method, status",
        "sort answers desc",
    ),
)
API_SLOW = Query(
    name="api/slowest requests",
    components=(Component.API,),
    lines=(
        "fields @timestamp, method, path, status, duration_ms, request_id",
        "filter action = 'http_request'",
        "sort duration_ms desc",
        "limit 50",
    ),
)
API_REQUEST = Query(
    name="api/one request by its id",
    components=(Component.API,),
    lines=(
        "fields @timestamp, level, action, message, exception",
        "filter request_id = 'REQUEST_ID'",
        "sort @timestamp asc",
    ),
)
LIVE_EVENTS = Query(
    name="api/live events that could not be told",
    components=(Component.EVENTS,),
    lines=(
        "filter level in ['WARNING', 'ERROR', 'CRITICAL']",
        "stats count(*) as times, latest(message) as example by action, level",
        "sort times desc",
    ),
)
COLD_STARTS = Query(
    name="api/cold starts and memory",
    components=(Component.API,),
    lines=(
        "filter @type = 'REPORT'",
        "stats count(*) as calls, sum(ispresent(@initDuration)) as cold_starts,"
        " max(@initDuration) as slowest_ms, max(@maxMemoryUsed / 1000 / 1000) as memory_mb by bin(1h)",
    ),
)


def all_queries() -> Iterator[Query]:
    """Return every query of this file."""
    return (value for value in globals().values() if isinstance(value, Query))


class SavedQueries(Construct):
    """The queries, listed in the console under the stage's name."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(scope, construct_id)
        for query in all_queries():
            CfnQueryDefinition(
                self,
                query.name.replace("/", "-").replace(" ", "-").replace(",", ""),
                name=f"{PRODUCT}-{config.stage}/{query.name}",
                log_group_names=query.log_groups(config.stage),
                query_string="\n| ".join(query.lines),
            )
