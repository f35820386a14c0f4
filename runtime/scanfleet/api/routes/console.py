"""`/`: the console, a static page that calls this API like any other client."""

from datetime import timedelta
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from scanfleet.api.page_files import BUILT, is_built, page, served, served_built, with_policy
from scanfleet.api.services import Services, ServicesDep, SettingsDep
from scanfleet.objects import S3Uri
from scanfleet.settings import ApiSettings

router = APIRouter()

NOTHING = "default-src 'none'; frame-ancestors 'none'"


@router.get("/")
def console_page(services: ServicesDep, settings: SettingsDep) -> Response:
    """Return the console. Raises a 404 that says what is missing where the pages were not built."""
    if not BUILT.is_dir():
        raise HTTPException(404, "the console's pages were not built; `make setup` does that")
    return with_policy(
        served(BUILT, "index.html"), _policy(_storage_origins(services, settings), settings.events_url)
    )


@router.get("/pages/{name}")
def console_file(name: str, request: Request) -> Response:
    """Return a style sheet or script of our pages."""
    if is_built(name):
        return with_policy(served_built(request, name), NOTHING)
    return page(name, policy=NOTHING)


def _policy(storage: set[str], events_url: str) -> str:
    """Return what the console may do: nothing that came with a text is ever run or styled.

    events_url: the WebSocket of live events where another host has it; 'self' is this host's, too.
    Source: Content Security Policy Level 3, "Does url match expression in origin with redirect count?".
    """
    origins = " ".join(sorted(storage))
    events = f" {_origin(events_url)}" if events_url else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {origins}; "
        f"connect-src 'self' {origins}{events}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _storage_origins(services: Services, settings: ApiSettings) -> set[str]:
    """Return the origins that presigned URLs lead to: files go straight to S3 and come straight from it."""
    buckets = {prefix.split("/")[2] for prefix in (*settings.allowed_prefixes, settings.uploads_uri)}
    urls = [
        services.objects.presign(S3Uri(bucket, "any"), upload=False, expires=timedelta(seconds=1)).url
        for bucket in buckets
    ]
    return {_origin(url) for url in urls}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
