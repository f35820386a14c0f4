"""The API's doors, by what AWS calls them in their metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Doors:
    """load_balancer: its full name ("app/<name>/<id>"); http_api: its id. AWS generates both."""

    load_balancer: str
    http_api: str
