"""Static files of the package, served with the headers that keep a page to this host."""

from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi.responses import Response
from starlette.exceptions import HTTPException

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


def page(name: str, *, policy: str) -> Response:
    """Return one of our pages with this Content-Security-Policy."""
    response = served(files("scanfleet.api") / "pages", name)
    response.headers["Content-Security-Policy"] = policy
    return response


def served(folder: Traversable, name: str) -> Response:
    """Return a file of the folder. Raises the 404 for anything else, paths out of the folder included."""
    suffix = name[name.rfind(".") :]
    found = next((one for one in folder.iterdir() if one.name == name), None)
    if found is None or suffix not in MEDIA_TYPES:
        raise HTTPException(404)
    # no-cache: kept by browsers but checked, so that an upgrade is seen at once.
    return Response(found.read_bytes(), media_type=MEDIA_TYPES[suffix], headers={"Cache-Control": "no-cache"})
