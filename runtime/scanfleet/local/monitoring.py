"""The metrics of one machine: log lines are shipped to the emulator's CloudWatch, and pools are sampled.

<state>/shipped.json   how far each log file was shipped
"""

from pathlib import Path
from typing import Any

from botocore.config import Config

from scanfleet.agent_reports import AgentDirectory
from scanfleet.controller.publish import Publisher
from scanfleet.local.deploy import DeployedSystem, emulator_client
from scanfleet.local.following import FollowedLogs
from scanfleet.local.sampling import LocalSampler
from scanfleet.local.shipping import MetricShipping
from scanfleet.queue import JobQueues

CALLS = Config(
    connect_timeout=2,
    read_timeout=10,
    retries={"total_max_attempts": 2},
    proxies={},
    disable_request_compression=True,  # the emulator does not unpack
)


class LocalMonitoring:
    """Both threads, from `start` to `stop`; stop it after the processes whose last lines it ships."""

    def __init__(self, deployed: DeployedSystem, *, logs: Path, state: Path) -> None:
        self._deployed = deployed
        self._shipping = MetricShipping(
            FollowedLogs(logs, state / "shipped.json"), lambda: self._client("cloudwatch")
        )
        self._sampler = LocalSampler(self._sources)

    def start(self) -> None:
        """Begin; returns at once."""
        self._shipping.start()
        self._sampler.start()

    def stop(self) -> None:
        """End, once all that was logged has been shipped."""
        self._sampler.stop()
        self._shipping.stop()

    def _sources(self) -> tuple[JobQueues, AgentDirectory, Publisher]:
        deployed = self._deployed
        return (
            JobQueues(self._client("sqs"), deployed.queues),
            AgentDirectory(self._client("dynamodb"), deployed.job_table),
            Publisher(self._client("cloudwatch"), stage=deployed.stage),
        )

    def _client(self, service: Any) -> Any:
        return emulator_client(service, self._deployed.endpoint_url, config=CALLS)
