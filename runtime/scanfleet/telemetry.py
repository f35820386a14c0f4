"""What is logged of jobs and requests, and the metrics that these lines carry.

A metric travels inside its log line in CloudWatch's embedded metric format, so whatever ships the log ships
the metric. Source: CloudWatch user guide, "Specification: Embedded metric format".
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanfleet.attempts import AttemptRecord, Usage
from scanfleet.contract import (
    ALL_ROUTES,
    METRIC_FACTS,
    Dimension,
    Metric,
    Pool,
)
from scanfleet.dead_letters import Burial
from scanfleet.errors import shorten
from scanfleet.jobs import LEASED_STATES, Failure, FailureClass, Job, JobState
from scanfleet.log_setup import METRIC_EXTRA
from scanfleet.metrics import PROCESS

log = logging.getLogger(__name__)

OTHER_STAGES = "other"
"""Stages that are not told apart."""
UNKNOWN_ROUTE = "unknown"
"""Requests for paths that the API does not have."""
SERVER_ERROR_FROM = 500


@dataclass(frozen=True)
class Transition:
    """A job's change of state. `previous` is None for a new job; `seconds` is the time spent in it."""

    job: Job
    previous: JobState | None
    seconds: float


def metrics(values: Mapping[Metric, float], dimensions: Mapping[Dimension, str]) -> dict[str, Any]:
    """Return the `extra` of a log call whose line carries these metrics; count them for Prometheus, too.

    Raises ValueError when a metric's dimensions are not the contract's: a dashboard would never find it.
    """
    for name in values:
        if set(dimensions) != set(METRIC_FACTS[name][1]):
            raise ValueError(f"{name} has the dimensions {METRIC_FACTS[name][1]}, not {tuple(dimensions)}")
    PROCESS.add(values, dimensions)
    return {
        METRIC_EXTRA: {
            "timestamp_ms": int(time.time() * 1000),
            "directive": {
                "Dimensions": [[str(name) for name in dimensions]],
                "Metrics": [{"Name": str(name), "Unit": METRIC_FACTS[name][0]} for name in values],
            },
            "values": {str(name): value for name, value in (*dimensions.items(), *values.items())},
        }
    }


def record_transition(transition: Transition) -> None:
    """Log one change of state, with the metric of the time spent in the state that was left."""
    job = transition.job
    facts = {
        "action": "job_state_changed",
        **_job_facts(job),
        "previous_state": transition.previous,
        "state": job.state,
    }
    metric: dict[str, Any] = {}
    if transition.previous is not None:
        dimensions = {Dimension.POOL: job.pool.value, Dimension.STATE: transition.previous.value}
        metric = metrics({Metric.STATE_DURATION: round(transition.seconds, 3)}, dimensions)
    log.info("job is %s", job.state, extra=facts | metric)
    if job.state.is_terminal:
        dimensions = {Dimension.POOL: job.pool.value, Dimension.STATE: job.state.value}
        counted = metrics({Metric.JOB_FINISHED: 1}, dimensions)
        log.info("job ended", extra={"action": "job_finished", **_job_facts(job)} | counted)
    if job.failure is not None:
        _record_failure(transition, job, job.failure)
    if transition.previous in LEASED_STATES and job.state not in LEASED_STATES:
        _record_usage(job)


def _job_facts(job: Job) -> dict[str, Any]:
    """Return what every event of a job says, whoever logs it: the trace is the job's own."""
    return {
        "job_id": job.job_id,
        "owner": job.owner,
        "processor": job.processor,
        "attempt": job.attempt,
        "agent_id": job.agent_id,
        "release": job.release,
        "trace_id": job.trace_id,
    }


def _record_usage(job: Job) -> None:
    """Log what the attempt that has just ended used, if its program ran and somebody measured it."""
    ended = _ended_attempt(job)
    if ended is None or ended.usage is None:
        return
    used = {metric: value for metric, value in _measured(ended.usage).items() if value is not None}
    facts = {
        "action": "attempt_measured",
        "job_id": job.job_id,
        "attempt": ended.attempt,
        "seconds": ended.usage.seconds,
    }
    if used:
        log.info("what the program used", extra=facts | metrics(used, {Dimension.POOL: job.pool.value}))


def _ended_attempt(job: Job) -> AttemptRecord | None:
    last = job.attempts[-1] if job.attempts else None
    return last if last is not None and last.ended_at is not None else None


def _measured(usage: Usage) -> dict[Metric, float | None]:
    return {
        Metric.JOB_CPU_MEAN: usage.cpu_percent_mean,
        Metric.JOB_CPU_PEAK: usage.cpu_percent_peak,
        Metric.JOB_MEMORY_PEAK: usage.memory_bytes_peak,
        Metric.JOB_GPU_MEAN: usage.gpu_percent_mean,
        Metric.JOB_GPU_MEMORY_PEAK: usage.gpu_memory_bytes_peak,
        Metric.JOB_IO: usage.io_bytes,
        Metric.JOB_DISK_PEAK: usage.disk_bytes_peak,
    }


def _record_failure(transition: Transition, job: Job, failure: Failure) -> None:
    """Log what the job's last failure led to, if this change of state is its consequence."""
    if job.state is JobState.FAILED:
        _log_failure("job failed", "job_failed", Metric.JOB_FAILED, job, failure)
    elif transition.previous in LEASED_STATES and job.state is JobState.QUEUED:
        _log_failure("job goes back to the queue", "job_retried", Metric.JOB_RETRIED, job, failure)
    elif _was_taken_over(transition) and failure.failure_class is FailureClass.LOST_MACHINE:
        _log_failure("job is taken over", "job_retried", Metric.JOB_RETRIED, job, failure)


def _was_taken_over(transition: Transition) -> bool:
    """Say whether another agent took the lease of a silent one: the job never was in the queue's state."""
    state, previous = transition.job.state, transition.previous
    is_restart = state is JobState.DOWNLOADING and previous in LEASED_STATES
    return is_restart or (state is JobState.UPLOADING and previous is JobState.UPLOADING)


def _log_failure(message: str, action: str, metric: Metric, job: Job, failure: Failure) -> None:
    dimensions = {Dimension.POOL: job.pool.value, Dimension.FAILURE_CLASS: failure.failure_class.value}
    facts = {
        "action": action,
        **_job_facts(job),
        "attempt": failure.attempt,
        "agent_id": failure.agent_id,
        "failure_class": failure.failure_class,
        "exit_code": failure.exit_code,
        "reason": failure.reason,
    }
    log.info(message, extra=facts | metrics({metric: 1}, dimensions))
    if failure.failure_class is FailureClass.HANG:
        counted = metrics({Metric.HANGS_DETECTED: 1}, {Dimension.POOL: job.pool.value})
        ids = {name: facts[name] for name in ("job_id", "processor", "attempt", "agent_id")}
        log.info("the attempt hung", extra={"action": "hang_detected", **ids} | counted)


def record_stages(job: Job, seconds: Mapping[str, float], *, known: frozenset[str]) -> None:
    """Log how long a program that succeeded spent in each of its stages.

    Stages that are not `known` are counted together as "other": each value of a dimension is a metric that
    is paid for, and a program may name every file that it reads a stage.
    """
    by_name: dict[str, float] = {}
    for stage, spent in seconds.items():
        name = stage if stage in known else OTHER_STAGES
        by_name[name] = by_name.get(name, 0.0) + spent
    for name, spent in by_name.items():
        dimensions = {Dimension.POOL: job.pool.value, Dimension.STAGE: name}
        timed = metrics({Metric.STAGE_DURATION: round(spent, 3)}, dimensions)
        log.info("stage took %.1f s", spent, extra={"action": "stage_timed", "job_id": job.job_id} | timed)


def record_request(facts: Mapping[str, Any], *, route: str | None, status: int, seconds: float) -> None:
    """Log one request that the API answered, with its metrics. `route`: its template; None: no such path."""
    dimensions = {Dimension.ROUTE: route or UNKNOWN_ROUTE}
    measured = metrics({Metric.API_REQUEST_DURATION: round(seconds, 4)}, dimensions)
    log.info("%s %s -> %s", facts["method"], facts["path"], status, extra={**facts, **measured})
    if status >= SERVER_ERROR_FROM:
        # Alarms cannot add up over a dimension's values, so the sum is a value of its own.
        for name in (dimensions[Dimension.ROUTE], ALL_ROUTES):
            counted = metrics({Metric.API_SERVER_ERROR: 1}, {Dimension.ROUTE: name})
            log.info("server error", extra={"action": "server_error", **_ids(facts), **counted})


def _ids(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"request_id": facts["request_id"], "status": facts["status"]}


def record_dead_letter(pool: Pool, body: str, burial: Burial) -> None:
    """Log that a message was moved to the pool's dead-letter queue, and why."""
    counted = metrics({Metric.MESSAGES_DEAD_LETTERED: 1}, {Dimension.POOL: pool.value})
    facts = {
        "action": "message_dead_lettered",
        "cause": burial.cause,
        "reason": burial.reason,
        "agent_id": burial.agent_id,
        "body": shorten(body),
    }
    log.warning("message is a dead letter: %s", burial.reason, extra=facts | counted)


def record_ratio(job: Job, ratio: float) -> None:
    """Log how long a run took against what is usual for its size and settings: 2 is twice as long."""
    timed = metrics({Metric.DURATION_RATIO: round(ratio, 3)}, {Dimension.POOL: job.pool.value})
    facts = {"action": "run_compared", "job_id": job.job_id, "processor": job.processor}
    log.info("run took %.2f times what is usual", ratio, extra=facts | timed)


def record_bytes(metric: Metric, job: Job, size_bytes: int) -> None:
    """Log how many bytes an attempt moved."""
    counted = metrics({metric: size_bytes}, {Dimension.POOL: job.pool.value})
    log.info("bytes moved", extra={"action": "bytes_moved", "job_id": job.job_id} | counted)
