"""Everything with state: the job table, the pools' queues, the buckets, and where to find them."""

from datetime import timedelta

from aws_cdk import Environment, Stack
from aws_cdk.aws_kms import Key
from constructs import Construct

from cdk.buckets import Buckets
from cdk.config import DeploymentConfig
from cdk.job_queue import JobQueue
from cdk.job_table import JobTable
from cdk.parameters import SystemParameters
from scanfleet.contract import PRODUCT, Parameter, Pool


class DataStack(Stack):
    """The stack that is never thrown away: other stacks come and go around it."""

    def __init__(self, scope: Construct, construct_id: str, *, config: DeploymentConfig) -> None:
        super().__init__(
            scope,
            construct_id,
            stack_name=f"{PRODUCT}-{config.stage}-data",
            description=f"Scanfleet {config.stage}: jobs, queues and files",
            env=Environment(account=config.account, region=config.region),
            termination_protection=config.retain_data,
            analytics_reporting=False,
        )
        key = Key(self, "Key", enable_key_rotation=True) if config.customer_managed_key else None
        self.jobs = JobTable(self, "Jobs", retain=config.retain_data, key=key)
        self.queues = {pool: JobQueue(self, _QUEUE_IDS[pool], pool=pool) for pool in config.pools}
        self.buckets = Buckets(
            self,
            "Buckets",
            noncurrent_versions_kept=timedelta(days=config.noncurrent_versions_kept_days),
            retain=config.retain_data,
            key=key,
        )
        prefixes = (self.buckets.data.s3_url_for_object() + "/", *config.allowed_prefixes)
        SystemParameters(
            self,
            "Parameters",
            stage=config.stage,
            values={
                Parameter.JOB_TABLE: self.jobs.name,
                Parameter.DATA_BUCKET: self.buckets.data.bucket_name,
                Parameter.ARTIFACTS_BUCKET: self.buckets.artifacts.bucket_name,
                Parameter.QUEUES: self.to_json_string({p: q.urls for p, q in self.queues.items()}),
                Parameter.ALLOWED_PREFIXES: ",".join(prefixes),
            },
        )


_QUEUE_IDS = {Pool.WINDOWS_GPU: "WindowsGpuQueue", Pool.LINUX_CPU: "LinuxCpuQueue"}
"""Written out, because construct IDs are permanent: a renamed pool must not lose its messages."""
