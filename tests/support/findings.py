"""What the checkers of templates say, in one form, and what of it was agreed on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

AGREED_FILE = Path(__file__).with_name("agreed_findings.yaml")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that a checker found."""

    tool: str
    rule: str
    where: str
    """Stage, stack and logical ID. Example: "dev/data/JobsTable10C8EDF6"."""
    detail: str = ""


@dataclass(frozen=True)
class Agreed:
    """Findings that are known and meant to stay."""

    tool: str
    rule: str
    where: tuple[str, ...]
    """Patterns of `Finding.where`, with * and ?."""
    detail: str
    """Pattern of `Finding.detail`."""
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Return whether this agreement is about the finding."""
        return (
            (self.tool, self.rule) == (finding.tool, finding.rule)
            and any(fnmatchcase(finding.where, pattern) for pattern in self.where)
            and fnmatchcase(finding.detail, self.detail)
        )


def read_agreed(path: Path = AGREED_FILE) -> list[Agreed]:
    """Return every agreement of the file: tool -> list of rule, where, detail (any by default), reason."""
    return [
        Agreed(
            tool=tool,
            rule=entry["rule"],
            where=tuple(entry["where"]),
            detail=entry.get("detail", "*"),
            reason=entry["reason"],
        )
        for tool, entries in yaml.safe_load(path.read_text(encoding="utf-8")).items()
        for entry in entries
    ]


def not_agreed(findings: Iterable[Finding], agreed: Sequence[Agreed]) -> list[Finding]:
    """Return the findings that nobody agreed on."""
    return sorted({f for f in findings if not any(entry.covers(f) for entry in agreed)})


def not_needed(findings: Iterable[Finding], agreed: Sequence[Agreed], *, tool: str) -> list[Agreed]:
    """Return a tool's agreements that no finding needs any more."""
    seen = list(findings)
    return [e for e in agreed if e.tool == tool and not any(e.covers(finding) for finding in seen)]
