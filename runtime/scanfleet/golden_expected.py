"""What a golden set expects of its result: `expected.json`, and which of its bounds a result breaks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scanfleet.errors import ConfigurationError
from scanfleet.processors.medit_autotest import MeditAutoTest

REPORT = "report.json"
EXPECTED = "expected.json"
SCANS = "scans"


class NumberBound(BaseModel):
    """A number in a JSON file of the result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = REPORT
    path: str = Field(min_length=1, description="Keys joined by dots, such as quality.inlier_rmse_median.")
    at_least: float | None = None
    at_most: float | None = None


class FileBound(BaseModel):
    """A file that the result must have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes_at_least: int = Field(default=1, ge=0)
    bytes_at_most: int | None = None


class Expected(BaseModel):
    """`expected.json` of a golden set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str = MeditAutoTest.name
    settings: dict[str, Any] = Field(default_factory=dict)
    seconds_at_most: float | None = Field(
        default=None, gt=0, description="Tighter than the image's own limit."
    )
    files: tuple[FileBound, ...] = Field(min_length=1)
    numbers: tuple[NumberBound, ...] = ()


def read_expected(folder: Path) -> Expected:
    """Return what a golden set expects. Raises ConfigurationError that says what is wrong with it."""
    try:
        found = Expected.model_validate_json((folder / EXPECTED).read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"the golden set has no {EXPECTED}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            f"{EXPECTED}: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
        ) from error
    if not (folder / SCANS).is_dir():
        raise ConfigurationError(f"the golden set has no folder {SCANS}/")
    return found


def broken_bounds(expected: Expected, output: Path) -> Iterator[str]:
    """Yield a sentence for each bound that the result does not keep."""
    for file in expected.files:
        path = output / file.name
        size = path.stat().st_size if path.is_file() else None
        most = file.bytes_at_most
        if size is None:
            yield f"{file.name} is missing"
        elif size < file.bytes_at_least or (most is not None and size > most):
            yield f"{file.name} has {size} bytes, {file.bytes_at_least} to {most or 'any'} are allowed"
    for number in expected.numbers:
        value = _number(output / number.file, number.path)
        low, high = number.at_least, number.at_most
        if value is None:
            yield f"{number.file}: {number.path} is no number"
        elif (low is not None and value < low) or (high is not None and value > high):
            yield f"{number.file}: {number.path} is {value}, allowed is {low} to {high}"


def _number(path: Path, keys: str) -> float | None:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        for key in keys.split("."):
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
