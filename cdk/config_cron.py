"""Cron expressions: read field by field at synth, because AWS refuses a wrong one only when it deploys."""

import re
from dataclasses import dataclass, replace

from cdk.config_readers import Reader, Refused

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True, kw_only=True)
class _Field:
    """One field of an expression: what it is called and which values it may have."""

    name: str
    lowest: int
    highest: int
    names: tuple[str, ...] = ()
    """Words for the values, from `lowest` on."""
    special: str = r"(?!)"
    """What else this field may be, as a regular expression."""

    def refuse_wrong(self, text: str) -> None:
        """Raise Refused unless the text is a value, a range, a list of both, each with a step or not."""
        if re.fullmatch(self.special, text):
            return
        for part in text.split(","):
            body, slash, step = part.partition("/")
            if slash and not (re.fullmatch(r"[0-9]{1,4}", step) and 0 < int(step) <= self.highest):
                raise self._refusal(text)
            if body == "*":
                continue
            ends = [self._number(word) for word in body.split("-")]
            if len(ends) > 2 or None in ends or ends != sorted(ends, key=lambda n: n or 0):
                raise self._refusal(text)

    def _number(self, word: str) -> int | None:
        if word.upper() in self.names:
            return self.lowest + self.names.index(word.upper())
        is_inside = re.fullmatch(r"[0-9]{1,4}", word) and self.lowest <= int(word) <= self.highest
        return int(word) if is_inside else None

    def _refusal(self, text: str) -> Refused:
        words = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        return Refused(
            f"{self.name} from {self.lowest} to {self.highest}{words}, '*', a range, a list or a step; not"
            f" {text!r}"
        )


_MINUTE = _Field(name="minute", lowest=0, highest=59)
_HOUR = _Field(name="hour", lowest=0, highest=23)
_DAY = _Field(name="day of the month", lowest=1, highest=31)
_MONTH = _Field(name="month", lowest=1, highest=12, names=MONTHS)
_UNIX = (_MINUTE, _HOUR, _DAY, _MONTH, _Field(name="day of the week", lowest=0, highest=6, names=DAYS))
_AWS = (
    _MINUTE,
    _HOUR,
    replace(_DAY, special=r"\?|L|LW|([1-9]|[12]\d|3[01])W"),
    _MONTH,
    _Field(name="day of the week", lowest=1, highest=7, names=DAYS, special=r"\?|L|[1-7](L|#[1-5])"),
    _Field(name="year", lowest=1970, highest=2199),
)


def aws_cron(allowed: str) -> Reader[str]:
    """Read cron(minute hour day month weekday year), in which exactly one of both days is "?".

    Source: EventBridge Scheduler user guide, "Cron-based schedules"; Image Builder takes the same.
    """

    def read(value: object) -> str:
        found = re.fullmatch(r"cron\((\S+(?: \S+){5})\)", value) if isinstance(value, str) else None
        if not found or not isinstance(value, str):
            raise Refused(allowed)
        parts = found[1].split(" ")
        _refuse_wrong(parts, _AWS)
        if (parts[2] == "?") == (parts[4] == "?"):
            raise Refused("'?' as the day of the month or as the day of the week, and not as both")
        return value

    return read


def unix_cron(allowed: str) -> Reader[str]:
    """Read minute hour day month weekday. Source: EC2 Auto Scaling guide, "Scheduled scaling"."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"\S+( \S+){4}", value):
            raise Refused(allowed)
        _refuse_wrong(value.split(" "), _UNIX)
        return value

    return read


def _refuse_wrong(parts: list[str], rules: tuple[_Field, ...]) -> None:
    for part, rule in zip(parts, rules, strict=True):
        rule.refuse_wrong(part)
