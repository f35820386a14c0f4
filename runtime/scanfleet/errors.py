"""Every error that Scanfleet raises on purpose, named for what the caller does about it.

ScanfleetError
|-- InvalidRequest       tell the caller which field, which value, what is allowed
|-- NotFound             there is no such job (or it is somebody else's)
|-- Conflict             the job's state does not allow this
|-- ConfigurationError   do not start; an operator has to change a setting
|-- TargetLost           the results cannot go where they should; end the job
|-- LeaseLost            stop working on the job at once; another owner has it
|-- JobFailure           the attempt failed; its class decides about a retry
|-- CancelRequested      the owner cancelled; stop the program and settle
`-- Unavailable          a service did not answer; try again later
"""

from dataclasses import dataclass

from scanfleet.jobs import FailureClass


class ScanfleetError(Exception):
    """Root of every error raised on purpose."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with a request: the field, the value got, what is allowed.

    `value` is the JSON text of what was got, cut to 200 characters.
    """

    field: str
    message: str
    value: str | None = None
    allowed: str | None = None

    def __str__(self) -> str:
        got = "" if self.value is None else f" (got {self.value})"
        allowed = "" if self.allowed is None else f"; allowed: {self.allowed}"
        return f"{self.field}: {self.message}{got}{allowed}"


class InvalidRequest(ScanfleetError):
    """The request cannot be accepted as it is."""

    def __init__(self, errors: list[FieldError]) -> None:
        self.errors = errors
        super().__init__("; ".join(map(str, errors)))

    @classmethod
    def of(
        cls, field: str, message: str, *, value: object = None, allowed: str | None = None
    ) -> "InvalidRequest":
        """Return the error for one field."""
        shown = None if value is None else shorten(str(value))
        return cls([FieldError(field=field, message=message, value=shown, allowed=allowed)])


class NotFound(ScanfleetError):
    """There is no such thing, or the caller may not know of it."""


class Conflict(ScanfleetError):
    """The present state does not allow the call."""


class TargetLost(ScanfleetError):
    """The job's target folder has become another job's."""


class ConfigurationError(ScanfleetError):
    """A setting is missing or wrong; nothing was started."""


class LeaseLost(ScanfleetError):
    """Another owner holds the job, or the job has finished."""


class CancelRequested(ScanfleetError):
    """The job's owner asked to cancel it."""


class Unavailable(ScanfleetError):
    """A service that the call needs did not answer."""


class JobFailure(ScanfleetError):
    """The attempt failed. `failure_class` decides whether and how it is retried."""

    def __init__(
        self,
        failure_class: FailureClass,
        reason: str,
        *,
        exit_code: int | None = None,
        has_evidence: bool = False,
        condemns_machine: bool = False,
    ) -> None:
        """has_evidence: a bundle was saved. condemns_machine: it must take no further job at all."""
        self.failure_class = failure_class
        self.reason = reason
        self.exit_code = exit_code
        self.has_evidence = has_evidence
        self.condemns_machine = condemns_machine
        super().__init__(f"{failure_class}: {reason}")


def shorten(text: str, limit: int = 200) -> str:
    """Return `text` cut to `limit` characters, with a mark where it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
