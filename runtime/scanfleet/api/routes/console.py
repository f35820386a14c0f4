"""`/`: the console, a static page that calls this API like any other client."""

from datetime import timedelta
from urllib.parse import urlsplit

from fastapi import APIRouter
from fastapi.responses import Response

from scanfleet.api.page_files import page
from scanfleet.api.services import Services, ServicesDep, SettingsDep
from scanfleet.objects import S3Uri
from scanfleet.settings import ApiSettings

router = APIRouter()


@router.get("/")
def console_page(services: ServicesDep, settings: SettingsDep) -> Response:
    """Return the console."""
    return page("console.html", policy=_policy(_image_hosts(services, settings)))


@router.get("/pages/{name}")
def console_file(name: str) -> Response:
    """Return a style sheet or script of our pages."""
    return page(name, policy="default-src 'none'")


def _policy(image_hosts: set[str]) -> str:
    images = " ".join(sorted(image_hosts))
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {images}; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )


def _image_hosts(services: Services, settings: ApiSettings) -> set[str]:
    """Return the origins that presigned URLs lead to: previews are shown straight from S3."""
    buckets = {prefix.split("/")[2] for prefix in (*settings.allowed_prefixes, settings.uploads_uri)}
    urls = [
        services.objects.presign(S3Uri(bucket, "any"), upload=False, expires=timedelta(seconds=1)).url
        for bucket in buckets
    ]
    return {f"{parts.scheme}://{parts.netloc}" for parts in map(urlsplit, urls)}
