"""The emulated cloud as system tests see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from scanfleet.local.deploy import DeployedSystem, start_cloud
from scanfleet.local.emulator import Emulator, start_emulator
from scanfleet.local.processes import Processes


@dataclass(frozen=True, kw_only=True)
class EmulatedCloud:
    """A running emulator with the data stack, and ways into it."""

    emulator: Emulator
    system: DeployedSystem
    folder: Path
    """Holds the emulator's state and log; tests may put their own processes' logs here."""

    @cached_property
    def env(self) -> dict[str, str]:
        """A child process's whole environment: it finds the data stack on the emulator, and no other AWS."""
        return self.system.process_environment()

    def client(self, service: Any) -> Any:
        """Return a new boto3 client of the emulator. Example: client("s3")."""
        return boto3.session.Session().client(
            service,
            endpoint_url=self.system.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    @cached_property
    def s3(self) -> Any:
        """A boto3 S3 client."""
        return self.client("s3")

    @cached_property
    def sqs(self) -> Any:
        """A boto3 SQS client."""
        return self.client("sqs")

    @cached_property
    def dynamodb(self) -> Any:
        """A boto3 DynamoDB client."""
        return self.client("dynamodb")

    @cached_property
    def ssm(self) -> Any:
        """A boto3 SSM client."""
        return self.client("ssm")


@contextmanager
def emulated_cloud(*, repo_root: Path, folder: Path, port: int = 0) -> Iterator[EmulatedCloud]:
    """Start an emulator with its state in `folder`, deploy to it, and stop it at the end, come what may."""
    with Processes() as processes:
        cloud = start_cloud(
            processes=processes,
            repo_root=repo_root,
            state_folder=folder / "state",
            log_file=folder / "emulator.log",
            port=port,
        )
        try:
            yield EmulatedCloud(emulator=cloud.emulator, system=cloud.system, folder=folder)
        finally:
            processes.stop_all()
            cloud.emulator.release()


@contextmanager
def running_emulator(
    *, repo_root: Path, folder: Path, port: int = 0, checks_callers: bool = False
) -> Iterator[Emulator]:
    """Run an emulator of its own with its state and log in `folder`; stop it at the end."""
    with Processes() as processes:
        emulator = start_emulator(
            processes=processes,
            repo_root=repo_root,
            state_folder=folder / "state",
            log_file=folder / "emulator.log",
            port=port,
            checks_callers=checks_callers,
        )
        try:
            yield emulator
        finally:
            processes.stop_all()
            emulator.release()
