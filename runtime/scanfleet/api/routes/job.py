"""`/job/{job_id}`: everything about one job; cancel and retry it."""

from fastapi import APIRouter

from scanfleet import contract
from scanfleet.api.identity import CallerDep
from scanfleet.api.lookup import JobDep
from scanfleet.api.problems import documented
from scanfleet.api.queueing import enqueue
from scanfleet.api.schemas import JobDetail, ManifestPage, Result, durations_so_far, summary_fields
from scanfleet.api.services import Services, ServicesDep, SettingsDep
from scanfleet.api.submission import target_conflict
from scanfleet.api.waiting import waiting
from scanfleet.errors import Conflict, NotFound
from scanfleet.jobs import Job, JobState, Manifest, PublishedFile, utc
from scanfleet.objects import S3Uri
from scanfleet.receipt import attempt_facts
from scanfleet.settings import ApiSettings
from scanfleet.target_claims import TargetTaken

router = APIRouter(prefix="/job/{job_id}", tags=["jobs"])

FILES_SHOWN = 1000
MANIFEST_BYTES_SHOWN = 512 * 1024
"""Keys may have 1,024 bytes each, and an ALB takes 1 MB from a Lambda target."""
CANCEL_TRIES = 3
"""A queued job may be taken, and a taken one requeued, between our look and our write; then look again."""


@router.get("", responses=documented(404), summary="Everything about a job")
def get_job(job: JobDep, services: ServicesDep, settings: SettingsDep) -> JobDetail:
    """Return the job as it is now."""
    return _detail(job, services, settings)


@router.post("/cancel", status_code=202, responses=documented(404, 409), summary="Cancel a job")
def cancel_job(job: JobDep, services: ServicesDep, settings: SettingsDep) -> JobDetail:
    """Cancel a queued job at once; ask the agent of a running one to stop its program.

    Asking again is harmless. A job that has ended, or whose results are being published, cannot be
    cancelled.
    """
    return _detail(_cancelled(job, services), services, settings)


@router.post("/retry", status_code=202, responses=documented(404, 409), summary="Retry a job")
def retry_job(job: JobDep, services: ServicesDep, settings: SettingsDep, caller: CallerDep) -> JobDetail:
    """Put a failed or cancelled job back into the queue; its earlier failures no longer count.

    A job that is queued already only gets another message: that repairs a lost one and ends a wait between
    attempts.
    """
    try:
        again = job if job.state is JobState.QUEUED else _requeued(job, services)
    except TargetTaken as taken:
        raise target_conflict(taken, caller) from taken
    enqueue(again, services)
    return _detail(again, services, settings)


def _cancelled(job: Job, services: Services) -> Job:
    for _ in range(CANCEL_TRIES):
        if job.state.is_terminal:
            break
        try:
            return services.store.request_cancel(job)
        except Conflict:
            if job.committed_attempt is not None:
                raise Conflict(f"job {job.job_id} is {job.state}: its results are being published") from None
            job = services.store.get(job.job_id)
            if job.state is JobState.CANCELLED:
                return job  # another cancel at the same time, or our own whose answer was lost
    raise Conflict(f"job {job.job_id} is {job.state}; only unfinished jobs can be cancelled")


def _requeued(job: Job, services: Services) -> Job:
    try:
        return services.store.retry(job)
    except TargetTaken:
        raise
    except Conflict as conflict:
        now = services.store.get(job.job_id)
        if now.state is JobState.QUEUED:
            return now  # somebody else's retry, or our own whose answer was lost: it needs its message
        raise Conflict(
            f"job {now.job_id} is {now.state}; only failed or cancelled jobs can be retried"
        ) from conflict


def _detail(job: Job, services: Services, settings: ApiSettings) -> JobDetail:
    waits = waiting(job, services) if job.state is JobState.QUEUED else None
    return JobDetail(
        **summary_fields(job, services.estimates),
        settings=job.settings,
        time_limit_seconds=job.time_limit_seconds,
        durations_seconds=dict(durations_so_far(job, services.clock())),
        stage_since=None if job.stage_since is None else utc(job.stage_since),
        stage_seconds=job.stage_seconds,
        input_bytes=job.input_bytes,
        usage=job.usage,
        attempts=tuple(map(attempt_facts, job.attempts)),
        failures=job.failures,
        result=_result(job, services, settings),
        replaces=job.replaces,
        superseded_by=job.superseded_by,
        trace_id=job.trace_id,
        why_waiting=waits.why if waits else None,
        queue_position=waits.position if waits else None,
    )


def _result(job: Job, services: Services, settings: ApiSettings) -> Result | None:
    if job.result is None:
        return None
    kept = S3Uri(
        settings.artifacts_bucket, f"{contract.MANIFESTS_PREFIX}{job.job_id}/{job.result.attempt}.json"
    )
    return Result(
        attempt=job.result.attempt,
        files=job.result.files,
        size_bytes=job.result.size_bytes,
        manifest_uri=job.target_uri + contract.MANIFEST_NAME,
        manifest=_manifest(kept, services),
    )


def _manifest(kept: S3Uri, services: Services) -> ManifestPage | None:
    try:
        manifest = Manifest.model_validate_json(services.objects.get_bytes(kept))
    except NotFound:
        return None
    shown = _first_files(manifest.files)
    return ManifestPage(files=shown, is_truncated=len(manifest.files) > len(shown))


def _first_files(files: tuple[PublishedFile, ...]) -> tuple[PublishedFile, ...]:
    size = 0
    for index, file in enumerate(files[:FILES_SHOWN]):
        size += len(file.model_dump_json().encode())
        if size > MANIFEST_BYTES_SHOWN:
            return files[:index]
    return files[:FILES_SHOWN]
