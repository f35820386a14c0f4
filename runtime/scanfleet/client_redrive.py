"""A whole redrive, call after call: one call of the API has a few seconds only."""

from collections.abc import Sequence
from typing import Any

from scanfleet.client_http import HttpApi
from scanfleet.client_models import RedrivenLetter, RedriveReport

KEPT = "kept"


def redrive(
    api: HttpApi, *, pool: str | None, job_ids: Sequence[str], purge: Sequence[str], dry_run: bool
) -> RedriveReport:
    """Return the reports of as many calls as it takes, as one."""
    named: dict[str, Any] = {"job_ids": list(job_ids), "purge": list(purge), "dry_run": dry_run}
    if pool is not None:
        named["pool"] = pool
    letters: dict[str, RedrivenLetter] = {}
    while True:
        # Not repeated by itself: a second answer would not tell what the first one did.
        report = api.post("/dead-letters/redrive", RedriveReport, body=named, may_repeat=False)
        letters |= {letter.letter_id: letter for letter in report.letters}
        has_acted = any(letter.outcome != KEPT for letter in report.letters)
        if not report.remaining or dry_run or not has_acted:
            return report.model_copy(update={"letters": tuple(letters.values())})
