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
    UPLOADS_URI = "SCANFLEET_UPLOADS_URI"
    POOL = "SCANFLEET_POOL"
    DEFAULT_PROCESSOR = "SCANFLEET_DEFAULT_PROCESSOR"


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

IDEMPOTENCY_KEYS_KEPT = timedelta(days=7)
AGENT_REPORTS_KEPT = timedelta(hours=1)
FINISHED_JOBS_KEPT = timedelta(days=90)
"""A finished job's record stays this long; its published results are the owner's and stay."""

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

# --- S3 layout ---------------------------------------------------------------------------------------------

STAGING_PREFIX = "staging/"
"""Artifacts bucket: staging/<job id>/<attempt>/<file>; a lifecycle rule removes leftovers."""
STAGING_KEPT = timedelta(days=7)
LOGS_PREFIX = "logs/"
"""Artifacts bucket: logs/<job id>/<attempt>/<segment>.log: what the program printed, in order."""
LOGS_KEPT = timedelta(days=90)
MANIFESTS_PREFIX = "manifests/"
"""Artifacts bucket: manifests/<job id>/<attempt>.json, written before the commit and kept with the record."""
UPLOADS_PREFIX = "uploads/"
"""Data bucket: what clients without a bucket of their own upload through presigned URLs."""
RESULTS_PREFIX = "results/"
MANIFEST_NAME = "scanfleet-manifest.json"
"""Written last into the target folder: key, size, SHA-256 and attempt of every published file."""

# --- HTTP --------------------------------------------------------------------------------------------------

AGENT_STATUS_PORT = 5000
MAX_BODY_BYTES = 1024 * 1024
"""The largest JSON body: what an ALB hands to a Lambda target. Source: ELB guide, "Lambda functions as
targets"."""


class Route(StrEnum):
    """Paths that infrastructure also names: health checks, routing rules."""

    HEALTH = "/status/health"
    LOAD = "/status/load"


# --- SSM parameters ----------------------------------------------------------------------------------------


def parameter_name(stage: str, name: "Parameter") -> str:
    """Return the SSM parameter's full name. Example: ("dev", JOB_TABLE) -> "/scanfleet/dev/job-table"."""
    return f"/{PRODUCT}/{stage}/{name}"


class Parameter(StrEnum):
    """SSM parameters, written by the data stack; machines that boot find the rest of the system by them."""

    JOB_TABLE = "job-table"
    DATA_BUCKET = "data-bucket"
    ARTIFACTS_BUCKET = "artifacts-bucket"
    QUEUES = "queues"
    ALLOWED_PREFIXES = "allowed-prefixes"


# --- Metrics -----------------------------------------------------------------------------------------------

METRIC_NAMESPACE = "Scanfleet"


class Metric(StrEnum):
    """Every metric that the runtime emits. docs/logging-and-metrics.md has a row for each."""

    STATE_DURATION = "StateDuration"
    """Seconds a job spent in the state that it leaves; dimensions Pool, State. Not counted: jobs that never
    leave a state (still queued)."""
    JOB_FINISHED = "JobFinished"
    """One per job that reaches a terminal state; dimensions Pool, State. Attempts that are retried do not
    count."""
    JOB_RETRIED = "JobRetried"
    """One per attempt that goes back to the queue; dimensions Pool, FailureClass."""
    BYTES_DOWNLOADED = "BytesDownloaded"
    """Input bytes per attempt; dimension Pool."""
    BYTES_PUBLISHED = "BytesPublished"
    """Output bytes per completed job; dimension Pool."""


class Dimension(StrEnum):
    """Metric dimensions."""

    POOL = "Pool"
    STATE = "State"
    FAILURE_CLASS = "FailureClass"
