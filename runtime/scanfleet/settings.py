"""The environment, read once and typed. No other module reads environment variables.

Each setting is declared once; its description says what happens by default. `AWS_*` variables (region,
credentials, endpoint) are boto3's own and are left to it.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from scanfleet import contract
from scanfleet.contract import Auth, Pool, Priority
from scanfleet.errors import ConfigurationError, shorten
from scanfleet.log_levels import LEVELS

ENV_PREFIX = "SCANFLEET_"

LONGEST_TIME = 366 * 86_400
"""Of any time setting, whatever its unit."""

QueueUrls = dict[Pool, dict[Priority, str]]


def _auto_slots(value: object) -> object:
    """Return the number that "auto" stands for."""
    return contract.AUTO_SLOTS if value == "auto" else value


Slots = Annotated[int, BeforeValidator(_auto_slots), Field(ge=contract.AUTO_SLOTS, le=contract.MOST_SLOTS)]


def _parsed(value: object) -> object:
    """Return what a JSON text holds. Not left to pydantic-settings: its errors do not say what was got."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore", allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        """Refuse times that no clock of ours can add up."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            is_time = name.endswith(("_seconds", "_minutes")) and value is not None
            if is_time and value > LONGEST_TIME:
                allowed = f"at most {LONGEST_TIME} is allowed (got {shorten(str(value))})"
                raise ValueError(f"{ENV_PREFIX}{name.upper()}: {allowed}")
        return self


class _ProcessSettings(_Settings):
    """What every process of a deployment needs: the job table, and how it logs."""

    stage: str = Field(default="local", description="Which deployment this is; part of log lines.")
    job_table: str = Field(description="Name of the DynamoDB job table. Required.")
    log_level: str = Field(default="INFO", description="Log lines from this level up are written.")
    log_level_look_seconds: float = Field(
        default=15,
        ge=0,
        le=30,
        description="How often to look for log levels that operators have set; 0: never.",
    )

    @field_validator("log_level")
    @classmethod
    def _check_level(cls, value: str) -> str:
        if value.upper() not in LEVELS:
            raise ValueError(f"one of {', '.join(LEVELS)} is allowed")
        return value.upper()


class _JobSettings(_ProcessSettings):
    """Where jobs are: the table, the queues."""

    queues: Annotated[QueueUrls, NoDecode] = Field(
        description="JSON: pool -> priority -> SQS queue URL. Required."
    )

    @field_validator("queues", mode="before")
    @classmethod
    def _decode(cls, value: object) -> object:
        return _parsed(value)


class SystemSettings(_JobSettings):
    """What every server process needs to find the rest of the system."""

    artifacts_bucket: str = Field(description="Bucket for staged results and program logs. Required.")
    allowed_prefixes: Annotated[tuple[str, ...], NoDecode] = Field(
        description="Comma-separated s3://bucket/prefix/ URIs that jobs may read and write. Required."
    )
    allow_unknown_settings: bool = Field(
        default=False, description="Unknown processor keys are refused unless this is true."
    )
    reference_pool: Pool = Field(
        default=Pool.LINUX_CPU, description="The pool whose agents run the reference processor."
    )
    medit_release_folder: Path | None = Field(
        default=None,
        description="Folder that holds Medit_AutoTest.exe. Unset: this machine does not run that program.",
    )

    dead_letters: Annotated[dict[Pool, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON: pool -> URL of its dead-letter queue. Required for every pool that has queues.",
    )

    @field_validator("dead_letters", mode="before")
    @classmethod
    def _decode_dead_letters(cls, value: object) -> object:
        return _parsed(value)

    @model_validator(mode="after")
    def _check_dead_letters(self) -> Self:
        if lost := sorted(set(self.queues) - set(self.dead_letters)):
            raise ValueError(f"SCANFLEET_DEAD_LETTERS has no queue of the pools {', '.join(lost)}")
        return self

    @field_validator("allowed_prefixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        prefixes = tuple(part.strip() for part in value.split(",") if part.strip())
        wrong = [p for p in prefixes if not (p.startswith("s3://") and p.endswith("/"))]
        if wrong or not prefixes:
            raise ValueError("each prefix has the form s3://bucket/ or s3://bucket/folder/")
        return prefixes


class TenantSettings(BaseModel):
    """Callers who share folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    callers: tuple[str, ...]
    allowed_prefixes: tuple[str, ...]


class _PriceSettings(_Settings):
    """What machines cost."""

    hourly_prices: Annotated[dict[str, Annotated[float, Field(gt=0)]], NoDecode] = Field(
        default_factory=dict,
        description="JSON: instance type -> US dollars per hour, instead of the pinned list prices.",
    )

    @field_validator("hourly_prices", mode="before")
    @classmethod
    def _decode_prices(cls, value: object) -> object:
        return _parsed(value)


class ApiSettings(SystemSettings, _PriceSettings):
    """The API server."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; this machine only by default.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated host names that the API answers for. On a loopback address this "
        "machine's local names always count; on any other address every name does until this is set.",
    )
    default_processor: str = Field(
        default="medit_autotest", description="The processor that `POST /process` runs."
    )
    uploads_uri: str = Field(
        description="s3://bucket/prefix/ under which presigned uploads and their results go. Required."
    )
    presign_seconds: int = Field(
        default=900, ge=1, le=604800, description="Presigned URLs stop working after this long."
    )
    max_upload_bytes: int = Field(
        default=5 * 1024**3, ge=1, le=5 * 1024**3, description="Largest file of one presigned upload."
    )

    events_url: str = Field(
        default="",
        description="wss:// address of the WebSocket API of live events, for which tickets are given out. "
        "Unset: the server's own `/ws` where it has one.",
    )

    auth_mode: Auth = Field(
        default=Auth.LOCAL,
        description="Who calls: local (whoever reaches this machine's API), iam or jwt (who the door in "
        "front of the Lambda function says).",
    )
    operators: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated callers who see every job: ARNs of roles or users, or JWT subjects.",
    )
    tenants: Annotated[dict[str, TenantSettings], NoDecode] = Field(
        default_factory=dict,
        description='JSON: name -> {"callers", "allowed_prefixes"}: what only these callers may use.',
    )
    jobs_log_group: str = Field(
        default="",
        description="CloudWatch log group for changes of jobs' states. Unset: they stay in the API's log.",
    )
    jwt_issuer: str = Field(default="", description="Whose tokens count. Required when the mode is jwt.")
    jwt_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Comma-separated audiences that tokens may have. Required as the issuer is."
    )

    @field_validator("uploads_uri")
    @classmethod
    def _check_uploads(cls, value: str) -> str:
        bucket, slash, _ = value.removeprefix("s3://").partition("/")
        if not (value.startswith("s3://") and bucket and slash and value.endswith("/")):
            raise ValueError("the form s3://bucket/prefix/ is needed")
        return value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())

    @field_validator("operators", "jwt_audience", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("tenants", mode="before")
    @classmethod
    def _decode_tenants(cls, value: object) -> object:
        return _parsed(value)

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.auth_mode is Auth.JWT and not (self.jwt_issuer and self.jwt_audience):
            raise ValueError(
                "SCANFLEET_JWT_ISSUER and SCANFLEET_JWT_AUDIENCE are needed,"
                " because SCANFLEET_AUTH_MODE is jwt"
            )
        return self


LONGEST_BUDGET = 24 * 3600.0
"""Seconds that the watchdog may be told to wait."""


class WatchdogStage(BaseModel):
    """Budgets of one stage of a program; unset: the general ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    idle_seconds: float | None = Field(default=None, gt=0, le=LONGEST_BUDGET)
    seconds: float | None = Field(default=None, gt=0, le=LONGEST_BUDGET)


class AgentSettings(SystemSettings):
    """The agent on one machine."""

    medit_releases: Path | None = Field(
        default=None,
        description="Folder of releases of the closed program; the agent fetches the stage's active one into "
        "it. Unset: nothing is fetched. Not together with SCANFLEET_MEDIT_RELEASE_FOLDER.",
    )
    release_bucket: str = Field(
        default="", description="Bucket of the releases. Required with SCANFLEET_MEDIT_RELEASES."
    )
    release_look_seconds: float = Field(
        default=60, gt=0, le=240, description="The agent asks this often which release is active."
    )
    needs_gpu: bool = Field(
        default=False, description="Without a GPU the agent takes no job. Not asked by default."
    )
    min_free_bytes: int = Field(
        default=1024**3,
        ge=0,
        description="With less free on the disk of the workspaces the agent takes no job.",
    )

    pool: Pool = Field(description="The pool whose queues this agent serves. Required.")
    agent_id: str = Field(
        default="",
        description="Name of this agent. Unset: host name and process id; in a fleet the instance's id.",
    )
    slots: Slots = Field(
        default=1,
        description="Jobs that run side by side: 1 to 64; auto or 0: as the calibration of this kind of "
        "machine says (docs/calibration.md).",
    )
    scratch: Path = Field(description="Folder for workspaces; the agent owns it and empties it. Required.")
    status_host: str = Field(
        default="127.0.0.1", description="Address of the status page; on AWS the instance's own."
    )
    status_port: int = Field(
        default=contract.AGENT_STATUS_PORT,
        ge=0,
        le=65535,
        description="Port of the status page; 0 takes any.",
    )
    fleet: str = Field(
        default="",
        description="Auto Scaling group of this machine. Unset: no EC2 instance, so no lifecycle is watched.",
    )
    metadata_url: str = Field(
        default="http://169.254.169.254",
        description="The instance metadata service; asked only when a fleet is set.",
    )
    breaker_failures: int = Field(
        default=3,
        ge=0,
        description="Different jobs that fail here in a row make the machine suspected; 0: they never do.",
    )
    idle_minutes: float = Field(
        default=0,
        ge=0,
        description="An instance of a fleet without a job for so long ends itself; the fleet gets smaller; "
        "0: never.",
    )
    drain_seconds: float | None = Field(
        default=None,
        ge=0,
        description="Running jobs may finish within this after a stop. Unset: 0, and 900 in a fleet.",
    )
    log_folder: Path | None = Field(
        default=None,
        description="Folder for rotating log files, besides standard error. Unset: standard error only.",
    )
    processor_log_group: str = Field(
        default="",
        description="CloudWatch log group for what programs print, besides the bucket. Unset: none.",
    )
    time_limit_seconds: int = Field(
        default=3600, ge=1, description="A program may run this long when its job sets no limit."
    )
    watchdog_startup_seconds: float = Field(
        default=180,
        gt=0,
        le=LONGEST_BUDGET,
        description="A program that has done nothing since its start is ended after this.",
    )
    watchdog_idle_seconds: float = Field(
        default=120,
        gt=0,
        le=LONGEST_BUDGET,
        description="A program that stands still, by every signal, is ended after this.",
    )
    watchdog_finish_seconds: float = Field(
        default=60,
        gt=0,
        le=LONGEST_BUDGET,
        description="The same for a program that has reported 100 %.",
    )
    watchdog_stage_seconds: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_BUDGET,
        description="A stage may take this long, whatever the program does. Unset: what past runs teach.",
    )
    watchdog_stages: Annotated[dict[str, WatchdogStage], NoDecode] = Field(
        default_factory=dict,
        description='JSON: stage -> {"idle_seconds", "seconds"}: budgets of single stages.',
    )
    watchdog_learns: bool = Field(
        default=True, description="Past runs on inputs of like size shorten the limits of total and stages."
    )
    stop_grace_seconds: float = Field(
        default=5.0, ge=0, description="Time between asking a program to stop and killing its whole tree."
    )
    heartbeat_seconds: float = Field(
        default=contract.HEARTBEAT_INTERVAL.total_seconds(), gt=0, description="Renewal of lease and message."
    )
    lease_seconds: float = Field(
        default=contract.LEASE_DURATION.total_seconds(),
        gt=0,
        description="A lease not renewed ends after this.",
    )
    visibility_seconds: int = Field(
        default=int(contract.VISIBILITY_TIMEOUT.total_seconds()),
        ge=1,
        description="A message not renewed is delivered again after this; must exceed the lease.",
    )

    receive_wait_seconds: int = Field(
        default=int(contract.RECEIVE_WAIT.total_seconds()),
        ge=0,
        le=20,
        description="An idle agent's poll waits this long; a stopping agent waits for its last poll.",
    )

    @field_validator("watchdog_stages", mode="before")
    @classmethod
    def _decode_stages(cls, value: object) -> object:
        return _parsed(value)

    @model_validator(mode="after")
    def _check_releases(self) -> Self:
        if self.medit_releases and self.medit_release_folder:
            raise ValueError(
                "SCANFLEET_MEDIT_RELEASES and SCANFLEET_MEDIT_RELEASE_FOLDER exclude each other: a folder of"
                " releases that is kept up to date, or one folder for ever"
            )
        if self.medit_releases and not self.release_bucket:
            raise ValueError("SCANFLEET_RELEASE_BUCKET is needed with SCANFLEET_MEDIT_RELEASES")
        return self

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        times = (self.heartbeat_seconds, self.lease_seconds, self.visibility_seconds)
        if not times[0] < times[1] < times[2]:
            raise ValueError(
                "the order SCANFLEET_HEARTBEAT_SECONDS < SCANFLEET_LEASE_SECONDS <"
                f" SCANFLEET_VISIBILITY_SECONDS is needed, not {times}"
            )
        return self

    @property
    def stop_grace(self) -> timedelta:
        """Return the time between asking a program to stop and killing it."""
        return timedelta(seconds=self.stop_grace_seconds)

    @property
    def end_idle(self) -> timedelta | None:
        """Return after how long without a job an instance ends itself; None: never."""
        return timedelta(minutes=self.idle_minutes) if self.idle_minutes else None

    @property
    def drain_grace(self) -> timedelta:
        """Return how long running jobs may go on after a stop, before they are handed back."""
        if self.drain_seconds is not None:
            return timedelta(seconds=self.drain_seconds)
        return contract.DRAIN_GRACE if self.fleet else timedelta()


class FleetSettings(BaseModel):
    """One pool's machines, as the controller finds them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str
    """The Auto Scaling group's name."""
    slots: Slots
    """Jobs that one of its machines runs side by side; 0: as the calibrations say."""
    rollback_alarms: tuple[str, ...] = ()
    """CloudWatch alarms that take a rollout back; those that do not exist are left out."""


class ControllerSettings(_JobSettings, _PriceSettings):
    """The fleet controller."""

    fleets: Annotated[dict[Pool, FleetSettings], NoDecode] = Field(
        description='JSON: pool -> {"group", "slots", "rollback_alarms"}. Required.'
    )

    @field_validator("fleets", mode="before")
    @classmethod
    def _decode_objects(cls, value: object) -> object:
        return _parsed(value)

    @model_validator(mode="after")
    def _check_queues(self) -> Self:
        if lost := sorted(set(self.fleets) - set(self.queues)):
            raise ValueError(f"SCANFLEET_QUEUES has no queues of the fleets {', '.join(lost)}")
        return self


class SweeperSettings(_JobSettings):
    """The sweeper."""

    artifacts_bucket: str = Field(description="Bucket whose staging area is swept. Required.")


class EventsSettings(_ProcessSettings):
    """The function of live events on AWS."""

    connections_url: str = Field(
        description="https:// address through which open WebSockets are written to. Required."
    )


class ClientSettings(_Settings):
    """The command line and the Python client."""

    url: str = Field(default="http://127.0.0.1:8080", description="Base address of the Scanfleet API.")
    token: SecretStr | None = Field(
        default=None,
        description="Bearer token that the command line sends to an API that wants one. Unset: calls to an "
        "HTTP API on AWS are signed with the AWS credentials of the shell, others go as they are.",
    )


Loaded = TypeVar("Loaded", bound=_Settings)


def load(kind: type[Loaded]) -> Loaded:
    """Return the settings of this kind from the environment.

    Raises ConfigurationError that names each wrong variable, the value got and what is allowed.
    """
    try:
        return kind()
    except ValidationError as error:
        lines = [_explain(e["loc"], e["msg"], e["type"], e["input"]) for e in error.errors()]
        raise ConfigurationError("; ".join(lines)) from error


def _explain(location: tuple[int | str, ...], message: str, kind: str, value: object) -> str:
    if not location:  # several settings together
        return message.removeprefix("Value error, ")
    got = "nothing" if kind == "missing" else shorten(repr(value))
    return f"{ENV_PREFIX}{'.'.join(map(str, location)).upper()}: {message} (got {got})"
