"""What is kept of a job's attempts: where each ran, how long, what it used."""

from pydantic import BaseModel, ConfigDict, Field


class Machine(BaseModel):
    """The machine that an attempt ran on. Empty: not known, as for everything of EC2 outside of it."""

    model_config = ConfigDict(frozen=True)

    instance_id: str = ""
    instance_type: str = ""
    ami_id: str = ""
    region: str = ""
    system: str = Field(default="", description="windows or linux: they cost differently.")
    driver: str = Field(default="", description="Version of the GPU's driver.")
    slots: int = 1
    booted_at: float | None = Field(default=None, description="When EC2 launched the instance.")


class Usage(BaseModel):
    """What a program's whole process tree used, from its start to `seconds` later.

    Percentages of CPU are of one core, so four busy cores are 400. None: this machine does not tell.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float = Field(description="How long was measured.")
    cpu_percent_mean: float | None = None
    cpu_percent_peak: float | None = None
    memory_bytes_mean: int | None = None
    memory_bytes_peak: int | None = None
    gpu_percent_mean: float | None = None
    gpu_percent_peak: float | None = None
    gpu_memory_bytes_peak: int | None = None
    io_bytes: int | None = Field(default=None, description="Read and written.")
    disk_bytes_peak: int | None = Field(default=None, description="Of the attempt's workspace.")


class Work(BaseModel):
    """What an attempt has done, as its agent knows it when it gives the lease up."""

    model_config = ConfigDict(frozen=True)

    stage_seconds: dict[str, float] = Field(default_factory=dict)
    bytes_downloaded: int = 0
    bytes_published: int = 0
    usage: Usage | None = None
    idle_seconds: float = Field(default=0.0, description="See `AttemptRecord.idle_seconds`.")


class AttemptRecord(BaseModel):
    """What one attempt was: where it ran, how long, what it used. Times are epoch seconds.

    Opened in the write that takes the lease, closed in the one that gives it up or takes it over: so each has
    its machine, and one that lost its machine has what its last heartbeat told.
    """

    model_config = ConfigDict(frozen=True)

    attempt: int
    agent_id: str
    machine: Machine = Field(default_factory=Machine)
    release: str | None = None
    queued_at: float = Field(description="When the job last entered the queue before it.")
    started_at: float
    ended_at: float | None = None
    outcome: str | None = Field(
        default=None, description="completed, cancelled, or the failure class; None while it runs."
    )
    state_seconds: dict[str, float] = Field(default_factory=dict)
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    bytes_downloaded: int = 0
    bytes_published: int = 0
    usage: Usage | None = None
    boot_seconds: float = Field(
        default=0.0, description="Of the machine's time: its boot, if it was the first."
    )
    idle_seconds: float = Field(
        default=0.0,
        description="Of the machine's time: in which nothing ran before it, and slots beside it were free.",
    )
