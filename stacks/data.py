"""Everything with state: the job table, the pools' queues, the buckets, the logs, and where to find them."""

from datetime import timedelta

from aws_cdk.aws_kms import Key
from constructs import Construct

from cdk.base_stack import BaseStack
from cdk.buckets import Buckets
from cdk.config import DeploymentConfig
from cdk.job_queue import JobQueue
from cdk.job_table import JobTable
from cdk.logs import LogGroups
from cdk.parameters import SystemParameters
from cdk.system import System
from scanfleet.contract import Parameter, Pool


class DataStack(BaseStack):
    """The stack that is never thrown away: other stacks come and go around it."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(
            scope,
            construct_id,
            config=config,
            contains="jobs, queues, files and logs",
            termination_protection=config.retain_data,
        )
        retain = config.retain_data
        key = Key(self, "Key", enable_key_rotation=True) if config.customer_managed_key else None
        self.system = System(
            config=config,
            jobs=JobTable(self, "Jobs", retain=retain, key=key),
            queues={pool: JobQueue(self, _QUEUE_IDS[pool], pool=pool) for pool in config.pools},
            buckets=Buckets(
                self,
                "Buckets",
                noncurrent_versions_kept=timedelta(days=config.noncurrent_versions_kept_days),
                console_origins=config.api.console_origins,
                retain=retain,
                key=key,
            ),
            logs=LogGroups(
                self, "Logs", stage=config.stage, retention_days=config.log_retention_days, retain=retain
            ),
        )
        system = self.system
        SystemParameters(
            self,
            "Parameters",
            stage=config.stage,
            values={
                Parameter.JOB_TABLE: system.jobs.name,
                Parameter.DATA_BUCKET: system.buckets.data.bucket_name,
                Parameter.ARTIFACTS_BUCKET: system.buckets.artifacts.bucket_name,
                Parameter.QUEUES: self.to_json_string({p: q.urls for p, q in system.queues.items()}),
                Parameter.DEAD_LETTERS: self.to_json_string(
                    {pool: queue.dead_letters.queue_url for pool, queue in system.queues.items()}
                ),
                Parameter.ALLOWED_PREFIXES: ",".join(system.prefixes),
            },
        )


_QUEUE_IDS = {Pool.WINDOWS_GPU: "WindowsGpuQueue", Pool.LINUX_CPU: "LinuxCpuQueue"}
"""Written out, because construct IDs are permanent: a renamed pool must not lose its messages."""
