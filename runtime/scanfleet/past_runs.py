"""What is kept of a run that ended well, and how it is written: one short JSON text a run."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

log = logging.getLogger(__name__)

STAGES_KEPT = 24
"""The longest ones of a run: a program may name every file that it reads a stage."""
NAME_KEPT = 64
"""Characters of a stage's, a machine's or a release's name."""


@dataclass(frozen=True)
class Expected:
    """What had been predicted for a run when it began: seconds from the program's start to its end."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run was. Empty: not known.

    busy: slots of the machine that other jobs had when it began; None: not known.
    """

    agent_id: str = ""
    instance_id: str = ""
    instance_type: str = ""
    ami_id: str = ""
    driver: str = ""
    release: str = ""
    busy: int | None = None

    @property
    def machine(self) -> str:
        """Return the machine's name: its instance's, elsewhere its agent's."""
        return self.instance_id or self.agent_id


@dataclass(frozen=True)
class PastRun:
    """A run that ended well.

    seconds: from the program's start to its end. stages: seconds of each, in their order.
    download_seconds, upload_seconds: before and after the program; None: not known.
    settings: fingerprint of the processor's settings. finished_at: epoch seconds, 0: not known.
    marks: percent (10, 20, ... 90) -> seconds from the program's start until it said that it was so far.
    """

    seconds: float
    stages: Mapping[str, float] = field(default_factory=dict)
    input_bytes: int | None = None
    settings: str = ""
    download_seconds: float | None = None
    upload_seconds: float | None = None
    marks: Mapping[int, float] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    finished_at: float = 0.0
    expected: Expected | None = None

    def times(self, factor: float) -> "PastRun":
        """Return the run as if the program had taken so many times as long."""
        stages = {name: value * factor for name, value in self.stages.items()}
        marks = {percent: value * factor for percent, value in self.marks.items()}
        return replace(self, seconds=self.seconds * factor, stages=stages, marks=marks)


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """Return eight characters that are the same for the same settings, whatever their order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def text_of(run: PastRun) -> str:
    """Return the run as it is kept: [seconds, {stage: seconds}, {everything else that is known}]."""
    expected, place = run.expected, run.place
    more: dict[str, Any] = {
        "b": run.input_bytes,
        "s": run.settings,
        "d": _short(run.download_seconds),
        "u": _short(run.upload_seconds),
        "m": {str(percent): _short(value) for percent, value in run.marks.items()},
        "a": place.agent_id[:NAME_KEPT],
        "i": place.instance_id[:NAME_KEPT],
        "t": place.instance_type[:NAME_KEPT],
        "o": place.ami_id[:NAME_KEPT],
        "g": place.driver[:NAME_KEPT],
        "r": place.release[:NAME_KEPT],
        "n": place.busy,
        "f": int(run.finished_at),
        "e": [_short(value) for value in (expected.low, expected.likely, expected.high)]
        if expected
        else None,
    }
    known = {key: value for key, value in more.items() if value not in (None, "", {})}
    stages = {name[:NAME_KEPT]: _short(value) for name, value in _longest(run.stages).items()}
    return json.dumps([_short(run.seconds), stages, known], separators=(",", ":"))


def read_run(text: str, *, input_bytes: int | None = None) -> PastRun | None:
    """Return the run that a text holds, or None for one that cannot be read.

    input_bytes: for a run from before sizes were kept. Those have two parts: [seconds, {stage: seconds}].
    """
    try:
        seconds, stages, *rest = json.loads(text)
        more = rest[0] if rest else {}
        expected = more.get("e")
        return PastRun(
            float(seconds),
            {str(name): float(value) for name, value in stages.items()},
            input_bytes=more.get("b", input_bytes),
            settings=more.get("s", ""),
            download_seconds=more.get("d"),
            upload_seconds=more.get("u"),
            marks={int(percent): float(value) for percent, value in more.get("m", {}).items()},
            place=Place(
                agent_id=more.get("a", ""),
                instance_id=more.get("i", ""),
                instance_type=more.get("t", ""),
                ami_id=more.get("o", ""),
                driver=more.get("g", ""),
                release=more.get("r", ""),
                busy=more.get("n"),
            ),
            finished_at=float(more.get("f", 0)),
            expected=Expected(*map(float, expected)) if expected else None,
        )
    except (ValueError, TypeError, AttributeError) as error:
        log.debug("a past run cannot be read: %r", error, extra={"action": "past_run_not_understood"})
        return None


def _longest(stages: Mapping[str, float]) -> Mapping[str, float]:
    if len(stages) <= STAGES_KEPT:
        return stages
    kept = set(sorted(stages, key=lambda name: -stages[name])[:STAGES_KEPT])
    return {name: seconds for name, seconds in stages.items() if name in kept}


def _short(seconds: float | None) -> float | None:
    """Return seconds as short as they are useful: tenths, of short ones milliseconds."""
    if seconds is None:
        return None
    return round(seconds, 1) if seconds >= 10 else round(seconds, 3)
