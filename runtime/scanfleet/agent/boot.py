"""Brings an installed agent into service: `python -I -m scanfleet.agent.boot ENVIRONMENT_FILE`.

User-data runs it at each boot, once disk, agent and environment are there:

    check the environment -> register the service -> start it -> wait until it is ready -> complete the hook

Log lines go to standard output, for user-data to pass on. When it fails, the last line on standard error is
the reason, and the exit code 1: user-data then gives the instance up. A machine that is prepared for the warm
pool goes the same way: its agent is ready, but takes no job before the group wants the machine in service.
"""

import http.client
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from scanfleet import contract
from scanfleet.agent.fleet_member import FleetMember
from scanfleet.agent.instance import InstanceMetadata
from scanfleet.agent.main import CONFIGURATION_EXIT_CODE, find_place
from scanfleet.agent.service import read_environment
from scanfleet.agent.service_registration import ServiceRegistration, State, Status
from scanfleet.contract import Component, Dimension, Metric, Route
from scanfleet.errors import ConfigurationError, ScanfleetError, Unavailable
from scanfleet.log_setup import configure_logging
from scanfleet.settings import AgentSettings, load
from scanfleet.telemetry import metrics

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

DISPLAY_NAME = "Scanfleet agent"
TRIES = 5
"""Of each question to AWS: a machine that boots is busy, and giving it up costs another boot."""


@dataclass(frozen=True)
class BootRules:
    """How often and how long."""

    look: timedelta = timedelta(seconds=1)
    """Between two looks at the agent's health."""
    ready: timedelta = contract.AGENT_READY_TIMEOUT
    retry: timedelta = timedelta(seconds=5)
    """After Auto Scaling did not answer."""
    answer: timedelta = timedelta(seconds=5)
    """An agent that does not answer within this is not ready."""


class Boot:
    """One boot. `wait` sleeps that many seconds."""

    def __init__(
        self,
        settings: AgentSettings,
        service: ServiceRegistration,
        *,
        rules: BootRules | None = None,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._service = service
        self._rules = rules or BootRules()
        self._wait = wait

    def start_service(self, command: Sequence[str]) -> None:
        """Register and start the agent's service."""
        self._service.register(command, display_name=DISPLAY_NAME)
        self._service.start()
        log.info("service started", extra={"action": "boot_service_started"})

    def await_ready(self) -> None:
        """Return once the agent is ready.

        Raises Unavailable with the agent's own reason after `rules.ready`, and ConfigurationError at once
        when the service ended because a setting is wrong: starting it again would not help.
        """
        give_up_at = time.monotonic() + self._rules.ready.total_seconds()
        while (problem := self._problem()) is not None:
            status = self._service.status()
            if status.state == State.STOPPED and status.exit_code == CONFIGURATION_EXIT_CODE:
                raise ConfigurationError(f"the agent refuses its settings: see {self._settings.log_folder}")
            if time.monotonic() >= give_up_at:
                raise Unavailable(_not_ready(self._rules.ready, problem, status))
            self._wait(self._rules.look.total_seconds())
        log.info("agent is ready", extra={"action": "boot_agent_ready"})

    def _problem(self) -> str | None:
        """Return why the agent is not ready, in its own words where it has any, or None."""
        host, port = self._settings.status_host, self._settings.status_port
        connection = http.client.HTTPConnection(host, port, timeout=self._rules.answer.total_seconds())
        try:
            connection.request("GET", Route.HEALTH)
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"no answer from {host}:{port}: {error}"
        finally:
            connection.close()
        return None if answer.status == http.client.OK else str(body.get("reason", answer.status))

    def complete(self, member: FleetMember) -> None:
        """Let the group put the machine into service. Raises Unavailable after several tries.

        The agent says it, too, and at a restart nothing waits: both are fine.
        """
        was_waiting = self.insist(lambda: member.complete(contract.LAUNCH_HOOK))
        facts = {"action": "boot_hook_completed", "hook_waited": was_waiting}
        log.info("launch hook completed", extra=facts)

    def insist(self, call: Callable[[], Answer]) -> Answer:
        """Return what the call does, tried several times. Raises its last Unavailable."""
        for _ in range(TRIES - 1):
            with suppress(Unavailable):
                return call()
            self._wait(self._rules.retry.total_seconds())
        return call()

    def record_duration(self, metadata: InstanceMetadata, now: float) -> None:
        """Log how long the boot took, unless this is a mere restart of Windows, long after the launch.

        Raises Unavailable when the metadata service stays silent.
        """
        seconds = now - self.insist(metadata.launched_at)
        is_launch = 0 <= seconds <= contract.LAUNCH_HOOK_TIMEOUT.total_seconds()
        timed = {Metric.BOOT_DURATION: round(seconds, 1)}
        counted = metrics(timed, {Dimension.POOL: self._settings.pool.value}) if is_launch else {}
        log.info("booted in %.0f s", seconds, extra={"action": "boot_timed"} | counted)


def _not_ready(limit: timedelta, problem: str, status: Status) -> str:
    return f"the agent was not ready after {limit.total_seconds():.0f} s: {problem}; its service is {status}"


def service_command(environment_file: Path) -> list[str]:
    """Return what the service manager runs: this Python, without the user's own packages and variables.

    In UTF-8 mode: text that names no encoding would otherwise be in the machine's code page.
    """
    return [sys.executable, "-I", "-X", "utf8", "-m", "scanfleet.agent.service", str(environment_file)]


def run(
    environment_file: Path,
    service: ServiceRegistration,
    *,
    rules: BootRules | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Take the machine from an installed agent to one in service.

    Raises ScanfleetError, and OSError or ValueError for an environment file that cannot be read.
    """
    os.environ.update(read_environment(environment_file))
    settings = load(AgentSettings)
    configure_logging(Component.USERDATA, settings.log_level, stage=settings.stage, stream=sys.stdout)
    boot = Boot(settings, service, rules=rules, wait=wait)
    place = boot.insist(lambda: find_place(settings))
    if place is None:
        raise ConfigurationError(f"{contract.Env.FLEET} is needed: machines outside of a fleet have no boot")
    boot.start_service(service_command(environment_file))
    boot.await_ready()
    boot.record_duration(place.metadata, time.time())
    boot.complete(place.member)


def main(*, service: ServiceRegistration | None = None) -> None:
    """Boot; exit with 1 and the reason when that fails."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m scanfleet.agent.boot ENVIRONMENT_FILE")
    try:
        run(Path(sys.argv[1]), service or ServiceRegistration(contract.AGENT_SERVICE))
    except (ScanfleetError, OSError, ValueError) as error:
        sys.exit(str(error) or repr(error))


if __name__ == "__main__":
    main()
