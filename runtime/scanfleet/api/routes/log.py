"""`GET /job/{job_id}/log`: what the program printed."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from scanfleet.api.log_reader import Cursor, LogChunk, LogReader
from scanfleet.api.lookup import JobDep
from scanfleet.api.problems import documented
from scanfleet.api.schemas import LogPage
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.errors import NotFound

router = APIRouter(tags=["jobs"])

DEFAULT_LINES = 1000
NEXT_HEADER = "Scanfleet-Log-Next"
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Text, or JSON for `Accept: application/json`.",
        "headers": {
            NEXT_HEADER: {"description": "`next`, with text answers.", "schema": {"type": "string"}},
        },
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/LogPage"}},
        },
    },
    **documented(404, 422),
}


@router.get(
    "/job/{job_id}/log",
    response_class=Response,
    response_model=None,
    responses=RESPONSES,
    summary="What the program printed",
)
def get_log(
    *,
    job: JobDep,
    request: Request,
    services: ServicesDep,
    settings: SettingsDep,
    attempt: Annotated[int | None, Query(ge=1, description="The current or last one by default.")] = None,
    tail_lines: Annotated[int, Query(ge=1, le=10_000, description="The last lines.")] = DEFAULT_LINES,
    after: Annotated[str | None, Query(description="`next` of an answer before: only what is new.")] = None,
) -> Response:
    """Return the last lines, or with `after` what came since.

    One answer has 512 KiB at most; ask again with `next` for the rest.
    """
    if attempt is not None and attempt > job.attempt:
        raise NotFound(f"job {job.job_id} has no attempt {attempt}; it has had {job.attempt}")
    shown = attempt or job.attempt
    place = None if after is None else Cursor.parse(after)
    chunk = None
    if shown:
        reader = LogReader(services.objects, settings.artifacts_bucket, job.job_id, shown)
        is_over = shown < job.attempt or job.state.is_terminal
        chunk = (
            reader.tail(tail_lines, is_over=is_over)
            if place is None
            else reader.after(place, is_over=is_over)
        )
    return _answer(shown, chunk, as_json="application/json" in request.headers.get("accept", ""))


def _answer(attempt: int, chunk: LogChunk | None, *, as_json: bool) -> Response:
    lines = [] if chunk is None else list(chunk.lines)
    next_place = None if chunk is None else str(chunk.next)
    if as_json:
        page = LogPage(attempt=attempt, lines=lines, next=next_place)
        return JSONResponse(page.model_dump())
    headers = {} if next_place is None else {NEXT_HEADER: next_place}
    return PlainTextResponse("".join(f"{line}\n" for line in lines), headers=headers)
