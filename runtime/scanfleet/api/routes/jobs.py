"""`POST /jobs` and `GET /jobs`: submit in the general form; list."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from scanfleet.api.body import JsonObject
from scanfleet.api.identity import Caller, CallerDep
from scanfleet.api.openapi import json_body, schema_of
from scanfleet.api.problems import HttpProblem, documented
from scanfleet.api.routes.process import SUBMIT_RESPONSES, IdempotencyKey, started
from scanfleet.api.schemas import JobPage, Started, summary
from scanfleet.api.services import ServicesDep
from scanfleet.api.submission import FieldNames, JobRequest, SubmitterDep
from scanfleet.api.validation import validated
from scanfleet.errors import InvalidRequest
from scanfleet.jobs import JobState, is_job_id
from scanfleet.store import JobFilter

router = APIRouter(tags=["jobs"])

EXAMPLE = {
    "processor": "reference",
    "source": "s3://scans/uploads/local/case-7/",
    "target": "s3://scans/uploads/local/case-7-result/",
    "settings": {"Reduce Roughness": 1},
    "priority": "normal",
    "time_limit_seconds": 1800,
    "tags": {"case": "7"},
    "replace_results": False,
}

Status = Literal[
    "active", "all", "queued", "downloading", "processing", "uploading", "completed", "failed", "cancelled"
]


@router.post(
    "/jobs",
    status_code=202,
    response_model=Started,
    responses=SUBMIT_RESPONSES,
    openapi_extra=json_body(schema_of(JobRequest), EXAMPLE),
    summary="Submit a job of any processor",
)
def submit_job(
    body: JsonObject, submitter: SubmitterDep, response: Response, idempotency_key: IdempotencyKey = None
) -> Started:
    """Take the general form of a job; unknown fields are refused with the nearest known name."""
    accepted = submitter.replay(body, "jobs", idempotency_key)
    if accepted is None:
        request = validated(JobRequest, body)
        accepted = submitter.submit(
            request, body, kind="jobs", idempotency=idempotency_key, names=FieldNames()
        )
    return started(accepted, response)


@router.get("/jobs", responses=documented(422), summary="List jobs")
def list_jobs(
    *,
    services: ServicesDep,
    caller: CallerDep,
    status: Annotated[Status, Query(description="`active`: unfinished jobs.")] = "active",
    owner: Annotated[
        str | None,
        Query(min_length=1, max_length=128, description="For operators; others see their own jobs."),
    ] = None,
    tag: Annotated[str | None, Query(description="key:value", examples=["case:7"])] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
) -> JobPage:
    """Return jobs, newest first."""
    if cursor is not None and not is_job_id(cursor):
        raise InvalidRequest.of(
            "cursor", "is not a cursor", value=cursor, allowed="next_cursor of the page before"
        )
    wanted = JobFilter(owner=_listed_owner(caller, owner), states=_states(status), tag=_tag(tag))
    page = services.store.list_jobs(wanted, limit=limit, before=cursor)
    return JobPage(jobs=[summary(job, services.estimates) for job in page.jobs], next_cursor=page.next_cursor)


def _listed_owner(caller: Caller, owner: str | None) -> str | None:
    """Return whose jobs to list: an operator's choice (None: everybody's), else the caller's own."""
    if caller.is_operator:
        return owner
    if owner is not None and owner != caller.owner:
        raise HttpProblem(403, "only operators list other owners' jobs")
    return caller.owner


def _states(status: Status) -> tuple[JobState, ...] | None:
    if status == "active":
        return None
    return tuple(JobState) if status == "all" else (JobState(status),)


def _tag(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, colon, value = text.partition(":")
    if not key or not colon:
        raise InvalidRequest.of("tag", "is not a tag", value=text, allowed="key:value")
    return key, value
