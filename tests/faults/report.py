"""What a campaign found, as JSON, as a table, and as the one line that says whether it passed."""

import json
import statistics
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scanfleet.jobs import Job
from tests.faults.injector import Injection
from tests.faults.journal import Journal
from tests.faults.plan import Plan
from tests.faults.problems import KINDS, Problems

FAULTS_PER_JOB = 2
SHOWN_PROBLEMS = 40


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A campaign that has ended."""

    plan: Plan
    broken: str
    jobs: dict[str, Job]
    injections: list[Injection]
    problems: Problems
    journal: Journal
    harness_errors: list[str]
    seconds: float
    seconds_repeated: float
    garbage: tuple[int, int]
    """Messages of garbage sent, and found in the dead-letter queue."""

    @property
    def happened(self) -> list[Injection]:
        """Return the faults that really happened."""
        return [injection for injection in self.injections if injection.happened_at is not None]

    @property
    def is_complete(self) -> bool:
        """Say whether as many jobs and faults happened as were asked for."""
        enough = len(self.happened) >= FAULTS_PER_JOB * len(self.plan.jobs)
        return enough and len(self.jobs) >= len(self.plan.jobs) and not self.harness_errors

    @property
    def has_passed(self) -> bool:
        """Say whether every invariant held in a complete campaign."""
        return self.is_complete and not self.problems.found

    def recoveries(self) -> dict[str, list[float]]:
        """Return, by kind of fault, the seconds from each fault to its job's next change of state.

        Only of faults that came while the job ran: a job in the queue waits for those before it.
        """
        found: dict[str, list[float]] = defaultdict(list)
        for injection in self.happened:
            at = injection.happened_at or 0.0
            later = [w.at - at for w in self.journal.states(injection.job_id) if w.at > at]
            if later and injection.planned.event not in ("accepted", "ended"):
                found[injection.planned.kind].append(later[0])
        return dict(found)

    def line(self) -> str:
        """Return the last line."""
        counts = self.problems.counts()
        every = [seconds for found in self.recoveries().values() for seconds in found]
        shown = " ".join(f"{kind}={counts[kind]}" for kind in KINDS)
        return (
            f"FAULTS jobs={len(self.jobs)} faults={len(self.happened)} {shown}"
            f" p95_recovery_s={percentile(every, 95):.1f}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        recoveries = self.recoveries()
        every = [seconds for found in recoveries.values() for seconds in found]
        missed = Counter((i.planned.kind, i.why_not) for i in self.injections if i.happened_at is None)
        return {
            "seed": self.plan.seed,
            "plan": self.plan.digest,
            "broken": self.broken,
            "passed": self.has_passed,
            "complete": self.is_complete,
            "seconds": round(self.seconds, 1),
            "jobs_by_state": dict(Counter(job.state.value for job in self.jobs.values())),
            "jobs_by_mode": dict(Counter(job.mode for job in self.plan.jobs)),
            "failures_by_class": dict(
                Counter(f.failure_class.value for job in self.jobs.values() for f in job.failures)
            ),
            "faults_planned": len(self.injections),
            "faults_happened": len(self.happened),
            "faults_by_kind": dict(Counter(i.planned.kind for i in self.happened).most_common()),
            "faults_missed": {f"{kind}: {why}": count for (kind, why), count in missed.items()},
            "invariants_checked": self.problems.checks,
            "problems": self.problems.counts(),
            "problem_list": [asdict(problem) for problem in self.problems.found],
            "recovery_seconds": {
                "median": percentile(every, 50),
                "p95": percentile(every, 95),
                "by_kind": {
                    kind: {"count": len(s), "median": percentile(s, 50), "p95": percentile(s, 95)}
                    for kind, s in sorted(recoveries.items())
                },
            },
            "seconds_of_work_repeated": round(self.seconds_repeated, 1),
            "garbage_messages": {"sent": self.garbage[0], "in_dead_letter_queue": self.garbage[1]},
            "auto_scaling_calls": self.journal.fleet_calls(),
            "harness_errors": self.harness_errors,
        }


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile, rounded to 10 ms; 0 of nothing."""
    if len(values) < 2:
        return round(values[0], 2) if values else 0.0
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 2)


def write_report(outcome: Outcome, file: Path) -> None:
    """Write the JSON report."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(outcome.as_json(), indent=1) + "\n")


def table(outcome: Outcome) -> str:
    """Return the report for people."""
    facts = outcome.as_json()
    recoveries = facts["recovery_seconds"]["by_kind"]
    lines = [f"{'fault':<20} {'happened':>8} {'recovery median':>16} {'p95':>8}"]
    for kind, count in facts["faults_by_kind"].items():
        of_kind = recoveries.get(kind)
        shown = f"{of_kind['median']:>14.2f} s {of_kind['p95']:>6.2f} s" if of_kind else f"{'-':>16}"
        lines.append(f"{kind:<20} {count:>8} {shown}")
    lines += ["", f"{'invariant':<56} {'checked':>8}"]
    lines += [f"{what:<56} {count:>8}" for what, count in facts["invariants_checked"].items()]
    lines += ["", "jobs: " + _pairs(facts["jobs_by_state"])]
    lines.append("failures of attempts: " + _pairs(facts["failures_by_class"]))
    garbage = facts["garbage_messages"]
    lines.append(
        f"garbage: {garbage['sent']} sent, {garbage['in_dead_letter_queue']} in the dead-letter queue"
    )
    missed = facts["faults_planned"] - facts["faults_happened"]
    lines.append(f"faults planned {facts['faults_planned']}, without effect {missed}")
    median, p95 = facts["recovery_seconds"]["median"], facts["recovery_seconds"]["p95"]
    lines.append(f"recovery: median {median:.2f} s, p95 {p95:.2f} s")
    lines.append(f"work repeated: {facts['seconds_of_work_repeated']} s, in {facts['seconds']} s")
    lines += [f"PROBLEM {p.kind} {p.job_id}: {p.text}" for p in outcome.problems.found[:SHOWN_PROBLEMS]]
    lines += [f"HARNESS {error}" for error in outcome.harness_errors[:SHOWN_PROBLEMS]]
    return "\n".join(lines)


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
