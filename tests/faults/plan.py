"""The plan of a campaign: every job and every fault, all from one seed.

The same seed makes the same plan on every machine; `digest` tells two plans apart. What cannot be planned is
the order in which things then happen, so faults begin relative to their job's progress: so many seconds after
an event of it.
"""

import hashlib
import json
import random
from dataclasses import asdict, dataclass, field
from typing import Any

HANG_LIMIT_SECONDS = 3
FOREVER = 99
"""A program that misbehaves this often never ends well."""

MODES: dict[str, float] = {
    "normal": 48,
    "slow": 12,
    "busy": 4,
    "hang_start": 2,
    "hang_middle": 2,
    "hang_end": 2,
    "crash": 9,
    "orphans": 5,
    "flood": 3,
    "ignore_stop": 4,
    "memory": 2,
    "disk": 2,
    "partial": 4,
    "link": 1,
}
"""What programs do, with weights."""
MISBEHAVING = {"hang_start", "hang_middle", "hang_end", "crash", "memory", "disk", "partial", "link"}
CRASHES = (-11, -6, -9, -4, 1, 3, 42, 137, 255)
"""Signals (negative) and exit codes."""

EVENTS: dict[str, tuple[tuple[str, float], ...]] = {
    "network": (
        ("downloading", 0.1),
        ("processing", 0.5),
        ("uploading", 0.2),
        ("staging", 0.05),
        ("publishing", 0.05),
    ),
    "machine": (
        ("downloading", 0.2),
        ("processing", 0.6),
        ("uploading", 0.1),
        ("staging", 0.1),
        ("publishing", 0.05),
        ("manifest", 0.02),
    ),
    "message": (("accepted", 0.3), ("processing", 0.5), ("uploading", 0.2), ("ended", 0.5)),
    "cancel": (("accepted", 0.5), ("processing", 0.5), ("uploading", 0.2), ("staging", 0.05), ("ended", 0.2)),
    "retry": (("ended", 0.3),),
    "submit": (("accepted", 0.3),),
}
"""After which events of a job a group's faults may begin, and how many seconds later at most."""

KINDS: dict[str, tuple[str, float]] = {
    "s3_error": ("network", 12),
    "sqs_error": ("network", 8),
    "dynamodb_error": ("network", 10),
    "latency": ("network", 8),
    "black_hole": ("network", 4),
    "reset": ("network", 8),
    "truncated": ("network", 6),
    "lost_answer": ("network", 10),
    "duplicate_request": ("network", 8),
    "agent_killed": ("machine", 4),
    "agent_frozen": ("machine", 2),
    "machine_frozen": ("machine", 1.5),
    "service_stop": ("machine", 1.5),
    "spot_notice": ("machine", 1.2),
    "terminate": ("machine", 1.2),
    "clock_jump": ("machine", 4),
    "disk_full": ("machine", 2),
    "release_switch": ("machine", 2),
    "message_twice": ("message", 6),
    "message_late": ("message", 3),
    "message_exhausted": ("message", 1.5),
    "message_garbage": ("submit", 2),
    "cancel": ("cancel", 4),
    "retry": ("retry", 3),
    "submit_twice": ("submit", 4),
    "api_error": ("submit", 2),
    "api_lost_answer": ("submit", 2),
    "api_killed": ("submit", 0.5),
}
"""Every kind of fault: its group and its weight."""
FAULTS_PER_JOB = (2, 3, 3)

ERRORS: dict[str, tuple[tuple[int, str], ...]] = {
    "s3": ((500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable")),
    "sqs": ((400, "ThrottlingException"), (500, "InternalFailure"), (503, "ServiceUnavailable")),
    "dynamodb": (
        (400, "ProvisionedThroughputExceededException"),
        (400, "ThrottlingException"),
        (500, "InternalServerError"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class PlannedFault:
    """One fault: begins `delay` seconds after the job's first event of this name.

    count: requests or deliveries that it hits; seconds: how long it lasts or delays.
    """

    number: int
    kind: str
    job: int
    event: str
    delay: float
    count: int = 1
    seconds: float = 0.0
    service: str = "any"
    error: tuple[int, str] = (500, "InternalError")
    luck: float = 0.0
    """0 to 1: decides whatever else is to be decided."""


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """One job. inputs: size in bytes of each input file."""

    number: int
    priority: str
    inputs: tuple[int, ...]
    settings: dict[str, Any] = field(hash=False)
    time_limit_seconds: int | None
    faults: tuple[PlannedFault, ...]

    @property
    def mode(self) -> str:
        """Return what its program does."""
        return str(self.settings["mode"])

    @property
    def is_doomed(self) -> bool:
        """Say whether its program never ends well."""
        return int(self.settings["times"]) >= FOREVER


@dataclass(frozen=True)
class Plan:
    """All of it."""

    seed: int
    jobs: tuple[PlannedJob, ...]

    @property
    def faults(self) -> tuple[PlannedFault, ...]:
        """Return every fault."""
        return tuple(fault for job in self.jobs for fault in job.faults)

    @property
    def digest(self) -> str:
        """Return what two equal plans share."""
        text = json.dumps([asdict(job) for job in self.jobs], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_plan(*, jobs: int, seed: int, only: tuple[str, ...] = (), modes: tuple[str, ...] = ()) -> Plan:
    """Return the plan of this seed. only: kinds of faults to draw from; modes: what programs may do."""
    dice = random.Random(f"scanfleet faults {seed}")
    kinds = {kind: facts for kind, facts in KINDS.items() if not only or kind in only}
    weights = {mode: weight for mode, weight in MODES.items() if not modes or mode in modes}
    made: list[PlannedJob] = []
    number = 0
    for index in range(jobs):
        job = _job(dice, index, weights)
        faults = []
        for _ in range(dice.choice(FAULTS_PER_JOB)):
            faults.append(_fault(dice, number, index, kinds, job))
            number += 1
        made.append(PlannedJob(**{**vars(job), "faults": tuple(faults)}))
    return Plan(seed, tuple(made))


def _job(dice: random.Random, number: int, weights: dict[str, float]) -> PlannedJob:
    mode = _drawn(dice, weights)
    settings: dict[str, Any] = {
        "mode": mode,
        "seconds": round(_seconds(dice, mode), 3),
        "files": dice.randint(1, 6),
        "file_bytes": dice.choice((0, 100, 5_000, 200_000)),
        "times": 0,
        "how": dice.choice(CRASHES),
    }
    if mode in MISBEHAVING:
        settings["times"] = FOREVER if dice.random() < 0.2 else 1
    if mode == "ignore_stop":
        settings["times"] = FOREVER
    return PlannedJob(
        number=number,
        priority="high" if dice.random() < 0.2 else "normal",
        inputs=tuple(dice.choice((10, 1_000, 60_000)) for _ in range(dice.randint(1, 4))),
        settings=settings,
        time_limit_seconds=HANG_LIMIT_SECONDS if mode.startswith("hang") else None,
        faults=(),
    )


def _seconds(dice: random.Random, mode: str) -> float:
    if mode in ("slow", "ignore_stop"):
        return dice.uniform(1.0, 4.0)
    return dice.uniform(0.3, 1.0) if mode == "busy" else dice.uniform(0.02, 0.6)


def _fault(
    dice: random.Random, number: int, job: int, kinds: dict[str, tuple[str, float]], planned: PlannedJob
) -> PlannedFault:
    kind = _drawn(dice, {name: weight for name, (_, weight) in kinds.items()})
    event, latest = dice.choice(EVENTS[KINDS[kind][0]])
    if event == "processing":
        latest = max(latest, planned.settings["seconds"])
    facts: dict[str, Any] = {"count": dice.choice((1, 1, 2, 4)), "service": _service(dice, kind)}
    if kind.endswith("error"):
        facts["error"] = dice.choice(ERRORS["s3" if kind == "api_error" else facts["service"]])
    if kind == "api_error":
        facts["service"], facts["error"] = "dynamodb", dice.choice(ERRORS["dynamodb"])
    return PlannedFault(
        number=number,
        kind=kind,
        job=job,
        event=event,
        delay=round(dice.uniform(0, latest), 3),
        seconds=round(_lasts(dice, kind), 3),
        luck=round(dice.random(), 6),
        **facts,
    )


def _service(dice: random.Random, kind: str) -> str:
    service = kind.removesuffix("_error")
    if service in ERRORS:
        return service
    if kind in ("latency", "black_hole", "lost_answer", "duplicate_request"):
        return dice.choice(tuple(ERRORS))
    return "any"


def _lasts(dice: random.Random, kind: str) -> float:
    if kind in ("agent_frozen", "machine_frozen"):
        return dice.uniform(4.5, 8.0)
    if kind == "black_hole":
        return dice.uniform(1.0, 6.0)
    if kind == "clock_jump":
        return dice.choice((-1.0, 1.0)) * dice.uniform(1.0, 20.0)
    if kind == "message_late":
        return dice.uniform(3.0, 20.0)
    return dice.uniform(0.2, 1.5)


def _drawn(dice: random.Random, weights: dict[str, float]) -> str:
    return dice.choices(list(weights), list(weights.values()))[0]
