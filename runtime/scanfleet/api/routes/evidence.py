"""`GET /job/{job_id}/evidence`: what was seen of a program before its watch ended it."""

from typing import Annotated

from fastapi import APIRouter, Query

from scanfleet.api.lookup import JobDep
from scanfleet.api.problems import documented
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.errors import NotFound
from scanfleet.evidence import Evidence, evidence_uri
from scanfleet.jobs import Job

router = APIRouter(tags=["jobs"])


@router.get(
    "/job/{job_id}/evidence", responses=documented(404, 422), summary="Why a program was ended, with evidence"
)
def get_evidence(
    *,
    job: JobDep,
    services: ServicesDep,
    settings: SettingsDep,
    attempt: Annotated[
        int | None, Query(ge=1, description="The last one that has evidence, by default.")
    ] = None,
) -> Evidence:
    """Return an attempt's bundle: the verdict, the last lines, the processes, what they used, the machine.

    Attempts whose program was ended by its watch have one; a 404 says which do.
    """
    known = [failure.attempt for failure in job.failures if failure.has_evidence]
    wanted = attempt or (known[-1] if known else None)
    if wanted is None:
        raise NotFound(_nothing(job, None, known))
    uri = evidence_uri(settings.artifacts_bucket, job.job_id, wanted)
    try:
        # Asked for by number it is looked for whatever the record says: an attempt that lost its lease while
        # it saved a bundle could not write that down.
        return Evidence.model_validate_json(services.objects.get_bytes(uri))
    except NotFound:
        raise NotFound(_nothing(job, wanted, [other for other in known if other != wanted])) from None


def _nothing(job: Job, attempt: int | None, known: list[int]) -> str:
    of = "" if attempt is None else f" of attempt {attempt}"
    there = f"there is some of: {', '.join(map(str, known))}" if known else "no attempt has any"
    return f"job {job.job_id} has no evidence{of}; {there}"
