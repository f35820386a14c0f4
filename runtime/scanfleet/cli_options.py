"""What the command line accepts: options that every verb has, and how their texts are read."""

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, NoReturn

import typer

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        show_default=False,
        help="Address of the Scanfleet API. Default: $SCANFLEET_URL, else http://127.0.0.1:8080.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="JSON on stdout; errors as JSON on stderr; no progress.")
]

EXIT_CODES = """Exit codes: 0 fine, 1 the job failed, 2 usage or invalid request, 3 not found, 4 conflict,
5 service unavailable, 6 the job was cancelled, 130 interrupted."""

_DURATION = re.compile(
    r"(?:(?P<hours>\d+(?:\.\d+)?)h)?(?:(?P<minutes>\d+(?:\.\d+)?)m)?(?:(?P<seconds>\d+(?:\.\d+)?)s?)?"
)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """Return processor settings from "Key=Value" texts.

    A value that is a JSON scalar (true, 3, 0.5, null, "text") is that; anything else is text as it stands.
    Raises typer.BadParameter for a text without "=" or a key that comes twice.
    """
    return {key: _scalar(value) for key, value in _pairs(texts, option="--set", example='"Use GPU=false"')}


def parse_tags(texts: Sequence[str]) -> dict[str, str]:
    """Return tags from "key=value" texts. Raises typer.BadParameter like `parse_settings`."""
    return dict(_pairs(texts, option="--tag", example="patient=12"))


def parse_duration(text: str) -> timedelta:
    """Return the duration that "90", "90s", "15m" or "1h30m" means; a bare number is seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise typer.BadParameter(f"{text!r} is not a duration; allowed: 90, 90s, 15m, 1h30m")
    return timedelta(**{unit: float(number) for unit, number in match.groupdict().items() if number})


def _pairs(texts: Sequence[str], *, option: str, example: str) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise typer.BadParameter(
                f"{text!r} is not KEY=VALUE, as in {option} {example}", param_hint=option
            )
        if key in pairs:
            raise typer.BadParameter(f"the key {key!r} comes twice", param_hint=option)
        pairs[key] = value
    return list(pairs.items())


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text
    return text if isinstance(value, dict | list) else value


def _refuse(name: str) -> NoReturn:
    """JSON has no NaN and no Infinity, though Python's reader knows them."""
    raise ValueError(name)
