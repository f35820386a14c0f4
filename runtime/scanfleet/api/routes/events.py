"""`/events`, `/job/{job_id}/events`: changes of jobs as they happen; `/events/ticket`: the ways to them."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from scanfleet.api.event_stream import MEDIA_TYPE, EventStream
from scanfleet.api.identity import CallerDep
from scanfleet.api.lookup import JobDep
from scanfleet.api.present import present_jobs
from scanfleet.api.problems import HttpProblem, documented
from scanfleet.api.schemas import EventWays
from scanfleet.api.services import ServicesDep, SettingsDep
from scanfleet.contract import TICKET_VALID
from scanfleet.events.hub import Hub
from scanfleet.events.messages import END_ID, Message
from scanfleet.events.topics import ALL_JOBS, Topic

router = APIRouter(tags=["jobs"])

POLL_SECONDS = 2.0
"""What clients that poll are asked to keep to."""
NO_STREAMS = (
    "this server does not stream: it answers from AWS Lambda; POST /events/ticket tells the address of a "
    "WebSocket, if there is one, or ask GET /job/{job_id} from time to time"
)

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
    204: {"description": "All was said: the job has ended."},
}
LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="What browsers send when they come again. Not needed."),
]


@router.get(
    "/job/{job_id}/events",
    response_class=Response,
    responses=EVENTS | documented(404, 501),
    summary="A job's changes as server-sent events",
)
async def job_events(
    request: Request, job: JobDep, services: ServicesDep, caller: CallerDep, last_event_id: LastEventId = None
) -> Response:
    """Send the job as it is now, then at each change; the stream ends after the job's end."""
    hub = _hub(request)
    if last_event_id == END_ID and job.state.is_terminal:
        return Response(status_code=204)  # a browser then comes no more. Source: WHATWG HTML

    async def present() -> Iterable[Message]:
        return await run_in_threadpool(lambda: (hub.encode(services.store.get(job.job_id)),))

    return EventStream(hub, caller, Topic(job.job_id), present)


@router.get(
    "/events",
    response_class=Response,
    responses=EVENTS | documented(501),
    summary="Changes of all your jobs as server-sent events",
)
async def all_events(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    _last_event_id: LastEventId = None,
) -> Response:
    """Send the newest unfinished jobs as they are now, then every change of any; operators get everybody's.

    After `subscribed`, which follows the present state, ask `GET /jobs` for what had ended meanwhile.
    """
    hub = _hub(request)

    async def present() -> Iterable[Message]:
        return await run_in_threadpool(lambda: [*map(hub.encode, present_jobs(services.store, caller))])

    return EventStream(hub, caller, ALL_JOBS, present)


@router.post("/events/ticket", summary="How to be told of changes")
def event_ticket(
    request: Request, services: ServicesDep, settings: SettingsDep, caller: CallerDep
) -> EventWays:
    """Return the ways to changes, the best first: a WebSocket, server-sent events, asking from time to time.

    The WebSocket's address may hold a ticket, which works once and for a short time.
    """
    streams = request.app.state.events is not None
    websocket, valid = None, 0
    if settings.events_url:
        websocket = f"{settings.events_url}?ticket={services.tickets.issue(caller)}"
        valid = int(TICKET_VALID.total_seconds())
    elif streams:
        url = request.url_for("events_by_websocket")
        websocket = str(url.replace(scheme="wss" if request.url.scheme == "https" else "ws"))
    return EventWays(
        websocket=websocket,
        server_sent_events=streams,
        poll_seconds=POLL_SECONDS,
        expires_in_seconds=valid,
    )


def _hub(request: Request) -> Hub:
    hub: Hub | None = request.app.state.events
    if hub is None:
        raise HttpProblem(501, NO_STREAMS)
    return hub
