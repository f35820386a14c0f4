"""What every part of a deployment works with: the objects of the data stack, handed to the other stacks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from aws_cdk import Stack
from constructs import Construct

from cdk.buckets import Buckets
from cdk.config import DeploymentConfig
from cdk.job_queue import JobQueue
from cdk.job_table import JobTable
from cdk.logs import LogGroups
from scanfleet.contract import UPLOADS_PREFIX, Env, Pool


@dataclass(frozen=True, kw_only=True)
class System:
    """The state of one deployment, and how a process finds it."""

    config: DeploymentConfig
    jobs: JobTable
    queues: Mapping[Pool, JobQueue]
    buckets: Buckets
    logs: LogGroups

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Return every s3:// prefix that some caller's jobs may read and write, the data bucket first."""
        return (self.buckets.data.s3_url_for_object() + "/", *self.config.prefixes)

    def environment(self, scope: Construct) -> dict[str, str]:
        """Return the environment variables by which a process of `scope`'s stack finds the system.

        They are `settings.SystemSettings`' required ones, and where uploads go.
        """
        queue_urls = {pool: queue.urls for pool, queue in self.queues.items()}
        dead_letters = {str(pool): queue.dead_letters.queue_url for pool, queue in self.queues.items()}
        return {
            Env.STAGE: self.config.stage,
            Env.JOB_TABLE: self.jobs.name,
            Env.ARTIFACTS_BUCKET: self.buckets.artifacts.bucket_name,
            Env.ALLOWED_PREFIXES: ",".join(self.prefixes),
            Env.QUEUES: Stack.of(scope).to_json_string(json.loads(json.dumps(queue_urls))),
            Env.DEAD_LETTERS: Stack.of(scope).to_json_string(dead_letters),
            Env.UPLOADS_URI: self.buckets.data.s3_url_for_object(UPLOADS_PREFIX),
            Env.REFERENCE_POOL: self.config.reference_pool,
        }
