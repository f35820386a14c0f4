"""`/dead-letters`: what agents and SQS gave up on; look at it, and send it back."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from scanfleet.api.body import JsonObject
from scanfleet.api.identity import CallerDep
from scanfleet.api.openapi import json_body, schema_of
from scanfleet.api.problems import HttpProblem, documented
from scanfleet.api.redrive import MOST_LETTERS, Handled, Order, Outcome, Redrive, Seen
from scanfleet.api.schemas import EXAMPLE_JOB_ID
from scanfleet.api.services import Services, ServicesDep
from scanfleet.api.validation import validated
from scanfleet.contract import Pool
from scanfleet.dead_letters import Cause
from scanfleet.errors import InvalidRequest, shorten
from scanfleet.jobs import JobState, utc

BODY_SHOWN = 1000
JOB_ID_PATTERN = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"
"""A ULID. Source: https://github.com/ulid/spec."""
MOST_NAMES = 100


def _require_operator(caller: CallerDep) -> None:
    if not caller.is_operator:
        raise HttpProblem(403, "only operators handle dead letters")


router = APIRouter(prefix="/dead-letters", tags=["operations"], dependencies=[Depends(_require_operator)])


class RedriveRequest(BaseModel):
    """Which dead letters to redrive; all of them when nothing is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: Pool | None = Field(default=None, description="Only this pool's.")
    job_ids: list[Annotated[str, Field(pattern=JOB_ID_PATTERN)]] = Field(
        default_factory=list, max_length=MOST_NAMES, description="Only these jobs' letters."
    )
    purge: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        default_factory=list,
        max_length=MOST_NAMES,
        description="`letter_id`s to delete for good, unless their jobs still wait for them. With `purge` or "
        "`job_ids`, letters that neither names are left alone.",
    )
    dry_run: StrictBool = Field(default=False, description="Only say what would become of each.")


class LetterView(BaseModel):
    """A dead letter."""

    letter_id: str = Field(description="SQS's message id.")
    pool: Pool
    body: str = Field(description="The message, its first 1,000 characters.")
    job_id: str | None = Field(description="null: the message names no job.")
    cause: Cause
    reason: str
    agent_id: str | None = Field(description="Which agent moved it; null: SQS did.")
    at: datetime = Field(description="When it was moved, or sent when SQS moved it.")
    job_status: JobState | None = Field(description="The job's state now; null: there is no such job.")
    quarantined: datetime | None = Field(description="Since when the job is quarantined.")


class LetterPage(BaseModel):
    """Dead letters, in no order."""

    letters: list[LetterView]
    remaining: int = Field(description="About how many more there are; 0 when these are all.")


class HandledLetter(LetterView):
    """A dead letter and what became of it."""

    outcome: Outcome
    detail: str


class RedriveReport(BaseModel):
    """What became of each letter that was named."""

    letters: list[HandledLetter]
    remaining: int = Field(description="About how many this call did not come to; call again while not 0.")
    dry_run: bool


@router.get("", responses=documented(422), summary="Look at dead letters")
def list_dead_letters(
    *,
    services: ServicesDep,
    pool: Annotated[Pool | None, Query(description="Only this pool's.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LETTERS)] = 50,
) -> LetterPage:
    """Return dead letters; they stay where they are. Two callers at the same moment share them."""
    found, remaining = Redrive(services).look(_pools(services, pool), limit=limit)
    return LetterPage(letters=[_view(seen) for seen in found], remaining=remaining)


@router.post(
    "/redrive",
    responses=documented(400, 413, 415, 422),
    openapi_extra=json_body(schema_of(RedriveRequest), {"job_ids": [EXAMPLE_JOB_ID], "dry_run": True}),
    summary="Send dead letters back",
)
def redrive(body: JsonObject, services: ServicesDep) -> RedriveReport:
    """Queue failed jobs again, send waiting ones' messages once more, drop letters without purpose.

    Unreadable letters stay, unless `purge` names them.
    """
    request = validated(RedriveRequest, body)
    order = Order(
        pools=_pools(services, request.pool),
        job_ids=frozenset(request.job_ids),
        purge=frozenset(request.purge),
        is_dry_run=request.dry_run,
    )
    handled, remaining = Redrive(services).run(order)
    return RedriveReport(
        letters=[_handled_view(one) for one in handled], remaining=remaining, dry_run=request.dry_run
    )


def _pools(services: Services, pool: Pool | None) -> tuple[Pool, ...]:
    known = services.queues.dead_letters.pools
    if pool is None:
        return known
    if pool not in known:
        message = "is not part of this deployment"
        raise InvalidRequest.of("pool", message, value=pool, allowed=", ".join(known))
    return (pool,)


def _view(seen: Seen) -> LetterView:
    letter, job = seen.letter, seen.job
    quarantined_at = None if job is None else job.quarantined_at
    return LetterView(
        letter_id=letter.letter_id,
        pool=letter.pool,
        body=shorten(letter.body, BODY_SHOWN),
        job_id=seen.job_id,
        cause=letter.cause,
        reason=letter.reason,
        agent_id=letter.agent_id,
        at=utc(letter.at),
        job_status=None if job is None else job.state,
        quarantined=None if quarantined_at is None else utc(quarantined_at),
    )


def _handled_view(one: Handled) -> HandledLetter:
    return HandledLetter(**_view(one.seen).model_dump(), outcome=one.outcome, detail=one.detail)
