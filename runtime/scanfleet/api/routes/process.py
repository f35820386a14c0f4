"""`POST /process`: one job of the deployment's default processor, spelled as the program's own keys."""

import difflib
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from scanfleet.api.body import JsonObject
from scanfleet.api.openapi import json_body, process_schema
from scanfleet.api.problems import documented
from scanfleet.api.schemas import Started
from scanfleet.api.submission import Accepted, FieldNames, JobRequest, SubmitterDep
from scanfleet.api.validation import shown
from scanfleet.errors import FieldError, InvalidRequest
from scanfleet.processors.medit_settings import KEYS, SOURCE_KEY, TARGET_KEY

router = APIRouter(tags=["jobs"])

NAMES = FieldNames(source=SOURCE_KEY, target=TARGET_KEY, settings_prefix="")
NAMES_LOOKED_AT = 100
"""More than the program has keys; a body may hold 100,000."""
EXAMPLE = {
    SOURCE_KEY: "s3://scans/uploads/local/case-7/",
    TARGET_KEY: "s3://scans/uploads/local/case-7-result/",
    "Use GPU": True,
    "Complete Type": 1,
}

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="The same key with the same request gives the same job again, for 7 days.",
    ),
]
REPLAYED_HEADER = "Idempotent-Replayed"
SUBMIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "headers": {
            REPLAYED_HEADER: {
                "description": "`true` when the Idempotency-Key had made this job before.",
                "schema": {"type": "string"},
            }
        }
    },
    **documented(400, 409, 413, 415, 422),
}


@router.post(
    "/process",
    status_code=202,
    response_model=Started,
    responses=SUBMIT_RESPONSES,
    openapi_extra=json_body(process_schema(), EXAMPLE),
    summary="Submit a job of the default processor",
)
def process(
    body: JsonObject,
    submitter: SubmitterDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    *,
    replace: Annotated[
        bool, Query(description="Replace the results that a completed job of yours has in the target folder.")
    ] = False,
) -> Started:
    """Take the processor's settings at the top level, beside the two folders.

    The body must be JSON; multipart requests are refused.
    """
    kind = "process?replace=true" if replace else "process"
    accepted = submitter.replay(body, kind, idempotency_key)
    if accepted is None:
        request = _job_request(body, replace=replace)
        accepted = submitter.submit(request, body, kind=kind, idempotency=idempotency_key, names=NAMES)
    return started(accepted, response)


def started(accepted: Accepted, response: Response) -> Started:
    """Return the answer to an accepted job, and mark a replay in the headers."""
    if accepted.is_replay:
        response.headers[REPLAYED_HEADER] = "true"
    return Started(job_id=accepted.job.job_id)


def _job_request(body: Mapping[str, Any], *, replace: bool) -> JobRequest:
    """Return the general form of the request. Raises InvalidRequest for the two folders."""
    folders: dict[str, str] = {}
    errors: list[FieldError] = []
    for key in (SOURCE_KEY, TARGET_KEY):
        value = body.get(key)
        if isinstance(value, str):
            folders[key] = value
        elif key in body:
            errors.append(FieldError(key, "must be a string", shown(value), "s3://bucket/folder/"))
        else:
            errors.append(FieldError(key, f"is missing{_misspelled(key, body)}", None, "s3://bucket/folder/"))
    if errors:
        raise InvalidRequest(errors)
    settings = {key: value for key, value in body.items() if key not in folders}
    return JobRequest(
        source=folders[SOURCE_KEY],
        target=folders[TARGET_KEY],
        settings=settings,
        replace_results=replace,
    )


def _misspelled(key: str, body: Mapping[str, Any]) -> str:
    unknown = [name for name in islice(body, NAMES_LOOKED_AT) if name not in KEYS]
    found = difflib.get_close_matches(key.lower(), [name.lower() for name in unknown], n=1, cutoff=0.7)
    given = next((name for name in unknown if found and name.lower() == found[0]), None)
    return "" if given is None else f"; {shown(given)} is given: is that the key meant?"
