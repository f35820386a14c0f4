"""Names and numbers that infrastructure and runtime share.

This module imports the standard library only, so that the CDK app can read it without the runtime's
dependencies. Whatever both sides must spell alike (environment variables, table keys, S3 layout, metric
names, timing rules) is spelled here and nowhere else.
"""

from datetime import timedelta
from enum import StrEnum

PRODUCT = "scanfleet"


class Env(StrEnum):
    """Environment variables that infrastructure sets and `settings.py` reads."""

    STAGE = "SCANFLEET_STAGE"
    JOB_TABLE = "SCANFLEET_JOB_TABLE"
    ARTIFACTS_BUCKET = "SCANFLEET_ARTIFACTS_BUCKET"
    ALLOWED_PREFIXES = "SCANFLEET_ALLOWED_PREFIXES"
    QUEUES = "SCANFLEET_QUEUES"
    DEAD_LETTERS = "SCANFLEET_DEAD_LETTERS"
    UPLOADS_URI = "SCANFLEET_UPLOADS_URI"
    POOL = "SCANFLEET_POOL"
    DEFAULT_PROCESSOR = "SCANFLEET_DEFAULT_PROCESSOR"
    REFERENCE_POOL = "SCANFLEET_REFERENCE_POOL"
    MEDIT_RELEASE_FOLDER = "SCANFLEET_MEDIT_RELEASE_FOLDER"
    LOG_LEVEL = "SCANFLEET_LOG_LEVEL"
    PROCESSOR_LOG_GROUP = "SCANFLEET_PROCESSOR_LOG_GROUP"
    JOBS_LOG_GROUP = "SCANFLEET_JOBS_LOG_GROUP"
    # The API behind an ALB and an HTTP API.
    AUTH_MODE = "SCANFLEET_AUTH_MODE"
    OPERATORS = "SCANFLEET_OPERATORS"
    TENANTS = "SCANFLEET_TENANTS"
    JWT_ISSUER = "SCANFLEET_JWT_ISSUER"
    JWT_AUDIENCE = "SCANFLEET_JWT_AUDIENCE"
    MEDIT_RELEASES = "SCANFLEET_MEDIT_RELEASES"
    RELEASE_BUCKET = "SCANFLEET_RELEASE_BUCKET"
    EVENTS_URL = "SCANFLEET_EVENTS_URL"
    # The function of live events.
    CONNECTIONS_URL = "SCANFLEET_CONNECTIONS_URL"
    # The agent on an instance.
    NEEDS_GPU = "SCANFLEET_NEEDS_GPU"
    SLOTS = "SCANFLEET_SLOTS"
    IDLE_MINUTES = "SCANFLEET_IDLE_MINUTES"
    SCRATCH = "SCANFLEET_SCRATCH"
    LOG_FOLDER = "SCANFLEET_LOG_FOLDER"
    STATUS_HOST = "SCANFLEET_STATUS_HOST"
    FLEET = "SCANFLEET_FLEET"
    # The fleet controller.
    FLEETS = "SCANFLEET_FLEETS"
    HOURLY_PRICES = "SCANFLEET_HOURLY_PRICES"


# --- The job table -----------------------------------------------------------------------------------------


class TableKey(StrEnum):
    """Key attributes of the one table and of its indexes. Every one is a DynamoDB string ("S")."""

    PARTITION = "pk"
    SORT = "sk"
    JOB_ID = "job_id"
    OWNER = "owner"
    STATE = "state"
    ACTIVE = "active_key"
    """Present on unfinished jobs only: the active index is sparse, so it stays small for ever."""
    EXPIRES_AT = "expires_at"
    """Epoch seconds; DynamoDB's time-to-live deletes the item some time after it."""


class TableIndex(StrEnum):
    """Global secondary indexes; each sorts by job id, and job ids sort by time."""

    ACTIVE = "active"
    """Unfinished jobs: partition `active_key`."""
    OWNER = "owner"
    """An owner's jobs: partition `owner`."""
    STATE = "state"
    """Jobs by state, for operators: partition `state`."""


INDEX_PARTITION_KEYS: dict[TableIndex, TableKey] = {
    TableIndex.ACTIVE: TableKey.ACTIVE,
    TableIndex.OWNER: TableKey.OWNER,
    TableIndex.STATE: TableKey.STATE,
}

JOB_PARTITIONS = "JOB#"
"""Partitions of jobs begin with this: machines read and change these, and no idempotency keys."""
TARGET_PARTITIONS = "TARGET#"
"""Partitions of claims begin with this, followed by the target folder's URI: whose results belong there."""
TAG_PARTITIONS = "TAG#"
"""Partitions of tags begin with this, followed by key:value: which jobs carry the tag."""
TAGS_KEPT = timedelta(days=120)
"""A job is found by its tags for so long after it was made: longer than its record is kept after its end."""
AGENTS_PARTITION = "AGENTS"
"""Partition of the agents' reports: besides the calibrations, the controller may read no other."""
HISTORY_PARTITIONS = "HISTORY#"
"""Partitions of past runs' durations begin with this: agents learn from them how long is too long."""
LIVE_PARTITIONS = "LIVE#"
"""Partitions of live events on AWS begin with this: tickets, open connections, and who hears of what."""
TICKET_VALID = timedelta(seconds=60)
"""A ticket opens one WebSocket within this time."""
CONNECTIONS_KEPT = timedelta(hours=2, minutes=10)
"""An open connection's record: API Gateway ends each after two hours.
Source: API Gateway developer guide, "Quotas for WebSocket APIs"."""
HISTORY_KEPT = timedelta(days=90)
"""Past runs of a processor and input size stay this long after the last one."""
CALIBRATION_PARTITIONS = "CALIBRATION#"
"""Partitions of calibrations begin with this, followed by the pool: how many slots its machines are worth."""
MOST_SLOTS = 64
"""Jobs that run side by side on one machine at most."""
AUTO_SLOTS = 0
"""Slots that nobody has set: machines and scaling follow the calibrations."""
DEFAULT_SLOTS = 1
"""Slots of a machine whose kind was never calibrated."""
IDEMPOTENCY_KEYS_KEPT = timedelta(days=7)
FLEETS_PARTITION = "FLEETS"
"""Partition of the controller's reports, one of each pool's fleet: it may write this one and no other."""
FLEET_REPORTS_KEPT = timedelta(hours=1)
FLEET_SILENT_AFTER = timedelta(minutes=2)
"""A fleet's report that is older tells nothing any more."""
AGENT_REPORTS_KEPT = timedelta(hours=1)
FINISHED_JOBS_KEPT = timedelta(days=90)
"""A finished job's record stays this long; its published results are the owner's and stay."""
CLAIMS_KEPT = timedelta(days=120)
"""A claim to a target folder stays this long after it was last confirmed: it outlives its job's record."""

# --- Pools and queues --------------------------------------------------------------------------------------


class Pool(StrEnum):
    """A pool is a queue, a dead-letter queue, a fleet, its scaling and its slot count."""

    WINDOWS_GPU = "windows-gpu"
    LINUX_CPU = "linux-cpu"


class Priority(StrEnum):
    """Each pool has one queue per priority. High is looked at first, but never starves normal."""

    HIGH = "high"
    NORMAL = "normal"


QUEUE_MESSAGE_VERSION = 1
"""Messages carry {"version": 1, "job_id": ...} and nothing else; the job table has the facts."""

# --- Timing ------------------------------------------------------------------------------------------------
# The order matters and a test keeps it: heartbeat < lease < visibility. A message that reappears because its
# agent died must find the lease expired already, or its next reader would put it back once more.

HEARTBEAT_INTERVAL = timedelta(seconds=5)
LEASE_DURATION = timedelta(seconds=25)
VISIBILITY_TIMEOUT = timedelta(seconds=35)
MESSAGE_REPLACED_AFTER = timedelta(hours=11)
"""The heartbeat puts a fresh message in the place of one that it has kept invisible for this long: SQS allows
12 h from the receive, whatever the extensions.
Source: SQS developer guide, "Amazon SQS visibility timeout"."""
TRANSFER_STALL = timedelta(minutes=5)
"""A download, an upload or a publication that moves nothing for this long has come to a standstill. Its own
retries of one request end earlier."""
LOOK_STALL = timedelta(minutes=2)
"""A running program's watch looks every second; without a look for this long the attempt's thread stands
still."""
STOP_ALLOWANCE = timedelta(minutes=1)
"""An attempt that was asked to stop for want of progress settles within this, or is given up."""
CANCEL_POLL_INTERVAL = timedelta(seconds=0.5)
"""How often a running job's agent looks for a cancel request: cancel has to land within 2 s."""

AGENT_SILENT_AFTER = timedelta(seconds=30)
"""An agent whose report is older does not count as in service."""

RECEIVE_WAIT = timedelta(seconds=5)
"""How long an idle agent's poll waits for a message. A message that arrives ends the wait at once; the limit
bounds how long a stopping agent waits for its last poll, and a high-priority job for an idle agent's notice.
SQS allows 20 s. Source: SQS developer guide, "Amazon SQS short and long polling"."""
MAX_RECEIVE_COUNT = 20
"""Deliveries before SQS moves a message to the dead-letter queue. Well above the attempts that a job may
have, because a duplicate delivery that finds the lease held also counts one."""
MESSAGE_RETENTION = timedelta(days=14)
MAX_SEND_DELAY = timedelta(minutes=15)
"""SQS's limit for DelaySeconds. Source: SQS API reference, SendMessage."""

MAX_ATTEMPTS = 4
"""Attempts of one job at most, whatever the failures were; lost machines do not count (MAX_LOST_MACHINES)."""
MAX_LOST_MACHINES = 10
"""Free retries for lost machines: a job that kills every machine it meets must stop some time."""
OTHER_MACHINE_WAIT = timedelta(minutes=1)
"""A job whose last failure may be this machine's fault is left to the other machines of its pool this long,
while any of them takes jobs."""

# --- The fleet's timing ------------------------------------------------------------------------------------
# A test keeps the order: agent ready < launch hook, drain grace < terminate hook.

AGENT_READY_TIMEOUT = timedelta(minutes=10)
"""User-data waits this long for `/status/health` after it started the service, then gives the instance up."""
LAUNCH_HOOK_TIMEOUT = timedelta(minutes=25)
"""An instance that has not said that its agent is ready is abandoned. A first Windows boot with a new
computer name, the driver's start and the agent's installation fit well."""
DRAIN_GRACE = timedelta(minutes=15)
"""A draining agent's running jobs may finish within this; then they are handed back."""
TERMINATE_HOOK_TIMEOUT = timedelta(minutes=20)
HEALTH_CHECK_GRACE = timedelta(minutes=15)
"""After an instance is in service, failed load balancer checks do not count for this long: Windows may still
finish a restart that an update asked for."""
INSTANCE_WARM_UP = timedelta(minutes=1)
"""A new instance counts towards the capacity that step scaling adds to from this long after it is in service.
In service means that its agent is ready, so this only has to outlast a report and a sample of it."""
CONTROLLER_PERIOD = timedelta(minutes=1)
"""EventBridge Scheduler starts the controller this often: its finest rate."""
SAMPLE_PERIOD = timedelta(seconds=10)
"""The controller samples and publishes this often: CloudWatch's finest alarm period for custom metrics."""
SWEEPER_PERIOD = timedelta(minutes=1)
"""EventBridge Scheduler starts the sweeper this often, and the local mode looks this often."""

# --- Names of the deployment -------------------------------------------------------------------------------


class Component(StrEnum):
    """Parts that log apart: one log group each."""

    API = "api"
    AGENT = "agent"
    JOBS = "jobs"
    """One event per change of a job's state, whoever made it."""
    PROCESSOR = "processor"
    """What programs print: one stream per job and attempt."""
    USERDATA = "userdata"
    """How instances came up."""
    CONTROLLER = "controller"
    SWEEPER = "sweeper"
    EVENTS = "events"
    """On AWS: who listens to changes of jobs, and the pushing of them."""


def log_group_name(stage: str, component: Component) -> str:
    """Return the log group of a component. Example: ("dev", AGENT) -> "/scanfleet/dev/agent"."""
    return f"/{PRODUCT}/{stage}/{component}"


def program_log_stream(job_id: str, attempt: int) -> str:
    """Return the stream, in the processor's log group, of what one attempt's program printed."""
    return f"{job_id}/{attempt}"


def fleet_name(stage: str, pool: Pool) -> str:
    """Return the name of a pool's Auto Scaling group. Example: "scanfleet-dev-windows-gpu"."""
    return f"{PRODUCT}-{stage}-{pool}"


def function_name(stage: str, component: Component) -> str:
    """Return the name of a component's Lambda function. Example: "scanfleet-dev-api"."""
    return f"{PRODUCT}-{stage}-{component}"


FIRST_TEMPLATE_VERSION = "1"
"""The launch template's version that a fleet's template names, whatever was deployed since: the controller
moves the group on to a version with a numbered image (docs/decisions/0034-*.md)."""
LAUNCH_HOOK = "agent-ready"
"""Lifecycle hook: user-data completes it once the agent answers."""
TERMINATE_HOOK = "drain"
"""Lifecycle hook: the agent completes it once its jobs have ended or were handed back."""

# --- A Windows machine of a fleet --------------------------------------------------------------------------


class WindowsPath(StrEnum):
    """Where things lie on a Windows machine: images are built with these, the boot and the agent use them."""

    HOME = r"C:\Program Files\Scanfleet"
    """What is installed; only administrators may write here."""
    PYTHON = r"C:\Program Files\Scanfleet\python"
    """The agent's own Python, with the agent and its packages in its site-packages. No virtual environment:
    its launcher would stand between the service manager and the agent."""
    BUNDLE_MARK = r"C:\Program Files\Scanfleet\installed-bundle.txt"
    """Two lines: the SHA-256 of the installed wheelhouse, and of the installed agent. Written last."""
    STATE = r"C:\ProgramData\Scanfleet"
    ENVIRONMENT_FILE = r"C:\ProgramData\Scanfleet\agent.env"
    """KEY=VALUE lines: the agent's environment, written at each boot."""
    LOGS = r"C:\ProgramData\Scanfleet\logs"
    """agent.jsonl, jobs.jsonl and userdata.jsonl, which the CloudWatch agent follows."""
    MEDIT_RELEASES = r"C:\Program Files\Scanfleet\medit"
    """One folder per release, named by its version."""


AGENT_SERVICE = "scanfleet-agent"
"""The Windows service's name."""


# --- S3 layout ---------------------------------------------------------------------------------------------

STAGING_PREFIX = "staging/"
"""Artifacts bucket: staging/<job id>/<attempt>/<file>; the sweeper removes leftovers, and a
lifecycle rule what it cannot know."""
STAGING_KEPT = FINISHED_JOBS_KEPT
"""A job that failed while its results were published can be retried, and they published, as long as it is
known."""
LOGS_PREFIX = "logs/"
"""Artifacts bucket: logs/<job id>/<attempt>/<segment>.log: what the program printed, in order."""
LOGS_KEPT = timedelta(days=90)
EVIDENCE_PREFIX = "evidence/"
"""Artifacts bucket: evidence/<job id>/<attempt>.json: what was seen of a program before it was ended."""
EVIDENCE_KEPT = timedelta(days=90)
MAX_EVIDENCE_BYTES = 512 * 1024
"""Of one bundle: below what an ALB takes from a Lambda target (1 MB), even with JSON's escapes."""
MANIFESTS_PREFIX = "manifests/"
"""Artifacts bucket: manifests/<job id>/<attempt>.json, written before the commit and kept with the record."""
UPLOADS_PREFIX = "uploads/"
"""Data bucket: what clients without a bucket of their own upload through presigned URLs."""
MANIFEST_NAME = "scanfleet-manifest.json"
"""Written last into the target folder: key, size, SHA-256 and attempt of every published file."""

RELEASES_PREFIX = "releases/"
"""Release bucket: releases/<version>/manifest.json names every file of a release with size and SHA-256."""
RELEASE_OBJECTS_PREFIX = "objects/sha256/"
"""Release bucket: objects/sha256/<hex digest>: the files, each stored once whichever releases hold it."""

# --- HTTP --------------------------------------------------------------------------------------------------


class Auth(StrEnum):
    """How the API learns who calls."""

    LOCAL = "local"
    """One machine: whoever reaches it is its operator."""
    IAM = "iam"
    """The HTTP API checked an AWS signature; callers of the load balancer have no name of their own."""
    JWT = "jwt"
    """The HTTP API or the load balancer checked a bearer token."""


AGENT_STATUS_PORT = 5000
MAX_BODY_BYTES = 1024 * 1024
"""The largest JSON body: what an ALB hands to a Lambda target. Source: ELB guide, "Lambda functions as
targets"."""


ALL_ROUTES = "all"
"""Value of the dimension Route that counts every route's server errors together: alarms cannot add up."""


class Route(StrEnum):
    """Paths that infrastructure also names: health checks, routing rules."""

    HEALTH = "/status/health"
    LOAD = "/status/load"
    METRICS = "/metrics"


# --- SSM parameters ----------------------------------------------------------------------------------------


def parameter_name(stage: str, name: "Parameter") -> str:
    """Return the SSM parameter's full name. Example: ("dev", JOB_TABLE) -> "/scanfleet/dev/job-table"."""
    return f"/{PRODUCT}/{stage}/{name}"


class Parameter(StrEnum):
    """SSM parameters: machines that boot find the rest of the system by them."""

    JOB_TABLE = "job-table"
    DATA_BUCKET = "data-bucket"
    ARTIFACTS_BUCKET = "artifacts-bucket"
    QUEUES = "queues"
    DEAD_LETTERS = "dead-letters"
    """JSON: pool -> URL of its dead-letter queue."""
    ALLOWED_PREFIXES = "allowed-prefixes"
    MEDIT_RELEASE = "medit-release"
    """The active Medit release's version, or "none". Changing it builds a new image."""
    RELEASE_BUCKET = "release-bucket"
    """Where the closed program's releases are; only with `medit.release_bucket`, set by the image stack."""
    LOG_LEVELS = "log-levels"
    """JSON: log levels that operators have set for a while (scanfleet.log_levels); every process looks at it.
    Created by the data stack, written by `scanfleet loglevel`."""
    AMI_WINDOWS_GPU = "ami/windows-gpu"
    """The image that new instances boot: seeded by the image stack, then written by every image build."""


DATA_PARAMETERS = (
    Parameter.JOB_TABLE,
    Parameter.DATA_BUCKET,
    Parameter.ARTIFACTS_BUCKET,
    Parameter.QUEUES,
    Parameter.DEAD_LETTERS,
    Parameter.ALLOWED_PREFIXES,
)
"""Those that the data stack writes."""
NO_LOG_LEVELS = '{"rules":[]}'
"""The value of LOG_LEVELS before anybody set one."""
NO_RELEASE = "none"
"""The value of MEDIT_RELEASE before any release was activated."""


# --- Alarms ------------------------------------------------------------------------------------------------


class Alarm(StrEnum):
    """Every alarm that tells people. docs/runbook.md has a section for each, by this name."""

    DEAD_LETTERS = "dead-letters"
    OLDEST_JOB = "oldest-job"
    OLDEST_URGENT_JOB = "oldest-urgent-job"
    HANG_RATE = "hang-rate"
    FAILURE_RATE = "failure-rate"
    DURATION_DRIFT = "duration-drift"
    NO_HEALTHY_AGENT = "no-healthy-agent"
    BOOT_FAILURES = "boot-failures"
    LAUNCH_FAILURES = "launch-failures"
    CONTROLLER_SILENT = "controller-silent"
    SWEEPER_SILENT = "sweeper-silent"
    ROLLOUT_FAILED = "rollout-failed"
    RELEASE_FAILED = "release-failed"
    IMAGE_BUILD_FAILED = "image-build-failed"
    API_ERRORS = "api-errors"
    API_CRASHES = "api-crashes"
    API_THROTTLES = "api-throttles"
    EVENTS_LATE = "events-late"
    BUDGET = "budget"


ROLLBACK_ALARMS = (Alarm.BOOT_FAILURES, Alarm.HANG_RATE, Alarm.FAILURE_RATE)
"""A pool's alarms that take a rollout back."""


def alarm_name(stage: str, alarm: Alarm, pool: Pool | None = None) -> str:
    """Return an alarm's name; those of a pool name it.

    Example: ("dev", BOOT_FAILURES, WINDOWS_GPU) -> "scanfleet-dev-windows-gpu-boot-failures".
    """
    return "-".join([PRODUCT, stage, *([pool] if pool else []), alarm])


# --- Metrics -----------------------------------------------------------------------------------------------


def metric_namespace(stage: str) -> str:
    """Return the namespace of a stage's metrics: stages share an account. Example: "Scanfleet/dev"."""
    return f"Scanfleet/{stage}"


class Metric(StrEnum):
    """Every metric that the runtime emits. docs/logging-and-metrics.md has a row for each.

    The second group is the controller's: one value per SAMPLE_PERIOD, at 10 s resolution.
    """

    STATE_DURATION = "StateDuration"
    """Seconds a job spent in the state that it leaves; dimensions Pool, State. Not counted: jobs that never
    leave a state (still queued)."""
    JOB_FINISHED = "JobFinished"
    """One per job that reaches a terminal state; dimensions Pool, State. Attempts that are retried do not
    count."""
    JOB_RETRIED = "JobRetried"
    """One per attempt that goes back to the queue; dimensions Pool, FailureClass."""
    MESSAGES_DEAD_LETTERED = "MessagesDeadLettered"
    """One per message that an agent moved to the dead-letter queue; dimension Pool. Those that SQS moved
    after their last delivery do not count."""
    BREAKER_OPENED = "BreakerOpened"
    """One per machine that stops taking jobs because several different ones failed there in a row; dimension
    Pool. What it is found to be afterwards (guilty or innocent) is in the agent's log."""
    BYTES_DOWNLOADED = "BytesDownloaded"
    """Input bytes per attempt; dimension Pool."""
    BYTES_PUBLISHED = "BytesPublished"
    """Output bytes per completed job; dimension Pool."""
    JOB_FAILED = "JobFailed"
    """One per job that ends failed; dimensions Pool, FailureClass. Attempts that are retried do not count."""
    STAGE_DURATION = "StageDuration"
    """Seconds a program spent in one of its stages; dimensions Pool, Stage. Stages cut short by a failure do
    not count."""
    DURATION_RATIO = "DurationRatio"
    """Seconds that a program took, divided by the median of the kept runs on inputs of its size with its
    settings; dimension Pool. 1 is as usual. Runs that failed do not count, nor the first of their kind."""
    BOOT_DURATION = "BootDuration"
    """Seconds from an instance's launch to its agent's first ready answer; dimension Pool."""
    BOOT_FAILED = "BootFailed"
    """One per instance that user-data gave up; dimension Pool."""
    RELEASE_FAILED = "ReleaseFailed"
    """One per look after which a machine does not have the active release; dimension Pool. Machines that wait
    for a first one to be activated do not count."""
    API_REQUEST_DURATION = "ApiRequestDuration"
    """Seconds from a request's arrival in the app to its answer; dimension Route. Lambda's cold start and the
    door's own time do not count."""
    API_SERVER_ERROR = "ApiServerError"
    """One per answer of 500 and above; dimension Route."""
    JOB_CPU_MEAN = "JobCpuMean"
    """Mean CPU of an attempt's program and all its children, in percent of one core; dimension Pool. This and
    the next six: one value per attempt whose program ran, however it ended; attempts that lost their machine
    tell nothing, and what a machine cannot measure (no GPU) is left out."""
    JOB_CPU_PEAK = "JobCpuPeak"
    """The most CPU between two looks, in percent of one core; dimension Pool."""
    JOB_MEMORY_PEAK = "JobMemoryPeak"
    """The most resident memory of the whole process tree; dimension Pool."""
    JOB_GPU_MEAN = "JobGpuMean"
    """Mean load of the GPUs that the program used; dimension Pool."""
    JOB_GPU_MEMORY_PEAK = "JobGpuMemoryPeak"
    """The most GPU memory that the program held; dimension Pool."""
    JOB_IO = "JobIo"
    """Bytes that the program read and wrote; dimension Pool. The agent's own transfers do not count."""
    JOB_DISK_PEAK = "JobDiskPeak"
    """The most that the attempt's workspace held; dimension Pool."""
    HANGS_DETECTED = "HangsDetected"
    """One per attempt that ended as a hang, whether it is retried or was the last; dimension Pool. What it
    leads to is in JobRetried and JobFailed."""

    BACKLOG = "Backlog"
    """Messages that wait in the pool's queues; dimension Pool. Those in flight do not count; those of jobs
    cancelled since do, until an agent drops them."""
    IN_FLIGHT = "InFlight"
    """Messages received and not yet deleted; dimension Pool."""
    BACKLOG_PER_SLOT = "BacklogPerSlot"
    """Backlog divided by slots in service, an empty fleet counting as one slot, or as one machine's
    calibrated slots, rounded up; dimension Pool. Booting slots do not count: step scaling leaves them out of
    the group's capacity, too, and so launches for a job once (docs/decisions/0030-step-scaling.md)."""
    SLOTS_IN_SERVICE = "SlotsInService"
    """Slots of agents whose report is fresh and that take jobs: that neither drain nor suspect their machine;
    dimension Pool."""
    SLOTS_BOOTING = "SlotsBooting"
    """Slots of instances that were launched and whose agent has not reported yet; dimension Pool."""
    SLOTS_BUSY = "SlotsBusy"
    """Slots that run a job, on draining agents too; dimension Pool."""
    IDLE_INSTANCES = "IdleInstances"
    """In-service instances that the fleet could lose at once: no slot busy, not protected from scale-in, not
    needed for the backlog; dimension Pool."""
    INSTANCES = "Instances"
    """Running instances of the pool, whatever their state (they are paid for); stopped warm ones do not
    count; dimension Pool."""
    FLEET_COST_PER_HOUR = "FleetCostPerHour"
    """US dollars per hour of the running instances at on-demand list price; dimension Pool. Storage, data
    transfer and spot discounts do not count."""
    CONTROLLER_SAMPLES = "ControllerSamples"
    """One per sample that the controller published; dimension Pool. Silence means that scaling is blind."""
    SWEEPER_RUNS = "SweeperRuns"
    """One per run of the sweeper that looked at all of the pool's unfinished jobs; dimension Pool. Silence
    means that nobody repairs."""
    SWEEPER_REPAIRS = "SweeperRepairs"
    """One per repair, by the sweeper or, of workspaces, by an agent; dimensions Pool, Repair. Leases that an
    agent takes over by itself do not count."""
    ROLLOUT_FAILED = "RolloutFailed"
    """1 while the last rollout of what the fleet should run has failed or was cancelled, else 0, once a
    minute; dimension Pool. A rollout that is blocked until the first image is built does not count."""


class Dimension(StrEnum):
    """Metric dimensions."""

    POOL = "Pool"
    STATE = "State"
    FAILURE_CLASS = "FailureClass"
    STAGE = "Stage"
    """A program's stage (align, merge, ...), never the deployment's: that is in the namespace."""
    REPAIR = "Repair"
    ROUTE = "Route"
    """The route's template, never a path with ids."""


_POOL = (Dimension.POOL,)
METRIC_FACTS: dict[Metric, tuple[str, tuple[Dimension, ...]]] = {
    Metric.STATE_DURATION: ("Seconds", (Dimension.POOL, Dimension.STATE)),
    Metric.JOB_FINISHED: ("Count", (Dimension.POOL, Dimension.STATE)),
    Metric.JOB_RETRIED: ("Count", (Dimension.POOL, Dimension.FAILURE_CLASS)),
    Metric.MESSAGES_DEAD_LETTERED: ("Count", _POOL),
    Metric.BREAKER_OPENED: ("Count", _POOL),
    Metric.BYTES_DOWNLOADED: ("Bytes", _POOL),
    Metric.BYTES_PUBLISHED: ("Bytes", _POOL),
    Metric.JOB_FAILED: ("Count", (Dimension.POOL, Dimension.FAILURE_CLASS)),
    Metric.STAGE_DURATION: ("Seconds", (Dimension.POOL, Dimension.STAGE)),
    Metric.DURATION_RATIO: ("None", _POOL),
    Metric.BOOT_DURATION: ("Seconds", _POOL),
    Metric.BOOT_FAILED: ("Count", _POOL),
    Metric.RELEASE_FAILED: ("Count", _POOL),
    Metric.API_REQUEST_DURATION: ("Seconds", (Dimension.ROUTE,)),
    Metric.API_SERVER_ERROR: ("Count", (Dimension.ROUTE,)),
    Metric.JOB_CPU_MEAN: ("Percent", _POOL),
    Metric.JOB_CPU_PEAK: ("Percent", _POOL),
    Metric.JOB_MEMORY_PEAK: ("Bytes", _POOL),
    Metric.JOB_GPU_MEAN: ("Percent", _POOL),
    Metric.JOB_GPU_MEMORY_PEAK: ("Bytes", _POOL),
    Metric.JOB_IO: ("Bytes", _POOL),
    Metric.JOB_DISK_PEAK: ("Bytes", _POOL),
    Metric.HANGS_DETECTED: ("Count", _POOL),
    Metric.BACKLOG: ("Count", _POOL),
    Metric.IN_FLIGHT: ("Count", _POOL),
    Metric.BACKLOG_PER_SLOT: ("Count", _POOL),
    Metric.SLOTS_IN_SERVICE: ("Count", _POOL),
    Metric.SLOTS_BOOTING: ("Count", _POOL),
    Metric.SLOTS_BUSY: ("Count", _POOL),
    Metric.IDLE_INSTANCES: ("Count", _POOL),
    Metric.INSTANCES: ("Count", _POOL),
    Metric.FLEET_COST_PER_HOUR: ("None", _POOL),
    Metric.CONTROLLER_SAMPLES: ("Count", _POOL),
    Metric.SWEEPER_RUNS: ("Count", _POOL),
    Metric.SWEEPER_REPAIRS: ("Count", (Dimension.POOL, Dimension.REPAIR)),
    Metric.ROLLOUT_FAILED: ("Count", _POOL),
}
"""Each metric's unit and dimensions: telemetry refuses others, dashboards and alarms are built from these."""
