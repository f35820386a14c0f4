"""Static files of the package, served with the headers that keep a page to this host."""

import gzip
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

PAGES = files("scanfleet.api") / "pages"
BUILT = PAGES / "built"
"""What `make setup` makes of the console's sources. Its scripts and styles are there compressed only."""
CHECKED = "no-cache"
"""Kept by browsers but checked each time, so that an upgrade is seen at once."""
FOR_EVER = "public, max-age=31536000, immutable"
"""For files whose names change with their content."""

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}


def page(name: str, *, policy: str) -> Response:
    """Return one of our pages with this Content-Security-Policy."""
    return with_policy(served(PAGES, name), policy)


def with_policy(response: Response, policy: str) -> Response:
    """Return the response, with this Content-Security-Policy."""
    response.headers["Content-Security-Policy"] = policy
    return response


def served(folder: Traversable, name: str) -> Response:
    """Return a file of the folder. Raises the 404 for anything else, paths out of the folder included."""
    suffix = _suffix(name)
    found = next((one for one in folder.iterdir() if one.name == name), None)
    if found is None or suffix not in MEDIA_TYPES:
        raise HTTPException(404)
    return Response(found.read_bytes(), media_type=MEDIA_TYPES[suffix], headers={"Cache-Control": CHECKED})


def is_built(name: str) -> bool:
    """Say whether the console's build has made a compressed file of this name."""
    return _compressed(name) is not None


def served_built(request: Request, name: str) -> Response:
    """Return a file that the console's build has made: compressed, unless the caller does not take that.

    Raises the 404 for anything else.
    """
    data = _compressed(name)
    if data is None:
        raise HTTPException(404)
    headers = {"Cache-Control": FOR_EVER if "-" in name else CHECKED, "Vary": "Accept-Encoding"}
    if _takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
    else:
        data = gzip.decompress(data)
    return Response(data, media_type=MEDIA_TYPES[_suffix(name)], headers=headers)


@lru_cache(maxsize=32)
def _compressed(name: str) -> bytes | None:
    if _suffix(name) not in MEDIA_TYPES:
        return None
    try:
        found = next((one for one in BUILT.iterdir() if one.name == f"{name}.gz"), None)
    except FileNotFoundError:
        return None  # `make setup` has not run
    return None if found is None else found.read_bytes()


def _takes_gzip(request: Request) -> bool:
    """Source: RFC 9110, 12.5.3; a coding with weight 0 is one that the caller refuses."""
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]
