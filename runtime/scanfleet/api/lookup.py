"""The job that a path names, if the caller may see it."""

from typing import Annotated

from fastapi import Depends, Path

from scanfleet import log_context
from scanfleet.api.identity import Caller, CallerDep
from scanfleet.api.schemas import EXAMPLE_JOB_ID
from scanfleet.api.services import Services, ServicesDep
from scanfleet.errors import NotFound
from scanfleet.jobs import Job, is_job_id


def _visible_job(
    job_id: Annotated[str, Path(description="26 characters.", examples=[EXAMPLE_JOB_ID])],
    services: ServicesDep,
    caller: CallerDep,
) -> Job:
    return visible_job(services, caller, job_id)


def visible_job(services: Services, caller: Caller, job_id: str) -> Job:
    """Return the job. Raises NotFound, the same for a job of another owner as for one that never was."""
    if not is_job_id(job_id):
        raise NotFound(f"{job_id[:64]!r} is not a job id: those have 26 characters, like {EXAMPLE_JOB_ID}")
    log_context.add(job_id=job_id)
    job = services.store.get(job_id)
    if not caller.may_see(job.owner):
        raise NotFound(f"no job {job_id}")
    return job


JobDep = Annotated[Job, Depends(_visible_job)]
