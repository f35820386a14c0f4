"""The FastAPI app: one for uvicorn on one machine and for Lambda on AWS.

It keeps nothing between requests (no start-up or shutdown hooks, no threads that outlive a request's work),
so that a Lambda that freezes between requests loses nothing.
"""

from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from scanfleet.api import guard, openapi, problems
from scanfleet.api.identity_doors import identity_provider
from scanfleet.api.parameters import refuse_unknown_parameters
from scanfleet.api.readiness import Readiness
from scanfleet.api.routes import (
    console,
    dead_letters,
    documentation,
    events,
    evidence,
    job,
    jobs,
    log,
    metrics,
    process,
    processors,
    receipt,
    status,
    uploads,
    variance,
    websocket,
)
from scanfleet.api.services import Services
from scanfleet.contract import PRODUCT
from scanfleet.events.hub import Hub
from scanfleet.settings import ApiSettings

__all__ = ["Services", "create_app"]


def create_app(services: Services, settings: ApiSettings, *, hub: Hub | None = None) -> FastAPI:
    """Return the app over these services. Without a hub of events, as in Lambda, nothing is streamed."""
    app = FastAPI(
        title="Scanfleet",
        version=version(PRODUCT),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        # FastAPI's own pages load scripts from another host; routes/documentation.py serves ours.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.services = services
    app.state.settings = settings
    app.state.events = hub
    app.state.identity = identity_provider(settings)
    app.state.readiness = Readiness(services, settings)
    problems.install(app)
    app.add_middleware(guard.Guard, hosts=guard.answered_hosts(settings))
    calls, pages = (
        (
            process,
            jobs,
            job,
            log,
            events,
            evidence,
            receipt,
            processors,
            status,
            metrics,
            variance,
            uploads,
            dead_letters,
        ),
        (documentation, console),
    )
    for module in calls:
        app.include_router(
            module.router,
            dependencies=[Depends(refuse_unknown_parameters)],
            responses=problems.documented(403, 421, 422, 500, 503),
        )
    for module in pages:
        app.include_router(module.router, include_in_schema=False)
    app.include_router(websocket.router)
    app.state.routes = [route for module in (*calls, *pages) for route in module.router.routes]
    openapi.install(app)
    return app


def _operation_id(route: APIRoute) -> str:
    """Return the handler's name: generated clients get readable method names."""
    return route.name
