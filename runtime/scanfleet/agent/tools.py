"""What every attempt of one agent works with, and what is known of one run of a program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scanfleet.agent.lease import Pulse
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.publication import Publication
from scanfleet.agent.runner import Runner
from scanfleet.agent.transfer import Transfer
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.watch import Watch
from scanfleet.agent.workspace import Scratch, Workspace
from scanfleet.attempts import Machine
from scanfleet.jobs import Job
from scanfleet.leases import Leases
from scanfleet.log_groups import LogStream
from scanfleet.objects import ObjectStore
from scanfleet.processors.base import Processor
from scanfleet.queue import JobQueues
from scanfleet.s3_uri import AllowedPrefixes


@dataclass(frozen=True)
class Tools:
    """What every attempt of one agent works with."""

    leases: Leases
    queues: JobQueues
    objects: ObjectStore
    transfer: Transfer
    publication: Publication
    scratch: Scratch
    runner: Runner
    processors: Mapping[str, Processor]
    allowed_prefixes: AllowedPrefixes
    artifacts_bucket: str
    pulse: Pulse
    new_watch: "NewWatch"
    machine: Machine = field(default_factory=Machine)
    """Where this agent runs."""
    new_log_stream: Callable[[Job], LogStream] | None = None
    """Where to show what programs print, besides the artifacts bucket."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one program, as its watch gets to know it."""

    job: Job
    processor: Processor
    workspace: Workspace
    program_log: ProgramLog
    board: ProgressBoard
    input_bytes: int
    machine: Machine = field(default_factory=Machine)
    usage: UsageMeter = field(default_factory=UsageMeter)
    """Takes what the watch sees."""
    beside: int | None = None
    """How many other attempts ran on the machine when it began; None: not known."""


NewWatch = Callable[[Run], Watch]
"""Makes the watch of one run, right before the program starts."""
