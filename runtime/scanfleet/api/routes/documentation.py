"""`/docs` and `/redoc`: FastAPI's two pages, without loading anything from another host."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from scanfleet.api.page_files import page, served

router = APIRouter()

# Both programs write style attributes; Redoc draws its search in a worker made from a blob.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'"
)


@router.get("/docs")
def swagger_page() -> Response:
    """Return Swagger UI over /openapi.json."""
    return page("docs.html", policy=POLICY)


@router.get("/redoc")
def redoc_page() -> Response:
    """Return Redoc over /openapi.json."""
    return page("redoc.html", policy=POLICY)


@router.get("/docs/static/{name}")
def bundle(name: str) -> Response:
    """Return a file of the Swagger UI and Redoc bundles."""
    return served(files("fastapi_offline") / "static", name)
