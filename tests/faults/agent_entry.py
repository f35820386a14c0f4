"""An agent of the campaign: the product's own agent, with a clock that can jump and shorter waits.

Nothing of the product is replaced but its processors, its waits for answers, and what `FAULTS_BROKEN` names.
"""

import ctypes
import mmap
import os
import signal
import struct
import time
from pathlib import Path

CONTROL = "FAULTS_CONTROL"
"""Environment variable: file of 8 bytes, the clock's offset in seconds as a little-endian double."""
BROKEN = "FAULTS_BROKEN"
PR_SET_PDEATHSIG = 1
ANSWER_SECONDS = 3


def install_clock(file: Path) -> None:
    """Move this process's wall clock by what the file says; before anything takes `time.time` as default."""
    with file.open("rb") as opened:
        offset = mmap.mmap(opened.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time

    def moved() -> float:
        return real() + struct.unpack_from("<d", offset)[0]

    time.time = moved


def shorten_waits() -> None:
    """Give answers up sooner than in production: a campaign of minutes cannot wait for half a minute."""
    from scanfleet import clients
    from scanfleet.agent import transfer_http

    clients.READ_TIMEOUT_SECONDS = ANSWER_SECONDS
    clients.CONNECT_TIMEOUT_SECONDS = ANSWER_SECONDS
    clients.SQS_READ_TIMEOUT_SECONDS = ANSWER_SECONDS
    clients.HEARTBEAT_TIMEOUT_SECONDS = 1
    transfer_http.READ_TIMEOUT_SECONDS = float(ANSWER_SECONDS)
    transfer_http.CONNECT_TIMEOUT_SECONDS = float(ANSWER_SECONDS)


def hurry_membership() -> None:
    """Look at the instance's metadata twice a second instead of every five seconds."""
    from dataclasses import replace
    from datetime import timedelta

    from scanfleet.agent import main, membership

    quick = {"look": timedelta(seconds=0.5), "idle": timedelta(seconds=2), "hand_back": timedelta(seconds=1)}

    def rules(**given: timedelta) -> membership.MembershipRules:
        return replace(membership.MembershipRules(**given), **quick)

    main.MembershipRules = rules  # type: ignore[assignment,misc]


def die_with_harness() -> None:
    """Be killed when the harness is, however it ends; programs then go by their guardians."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["FAULTS_HARNESS"]):
        os._exit(1)  # it had ended before the call


def main() -> None:
    """Run an agent until it is told to stop."""
    die_with_harness()
    install_clock(Path(os.environ[CONTROL]))
    shorten_waits()

    from scanfleet.processors import registry
    from tests.faults import broken, processor

    registry.ready_processors = lambda *_: processor.processors()
    from scanfleet.agent import main as agent

    hurry_membership()
    if switch := os.environ.get(BROKEN):
        broken.SWITCHES[switch]()
    agent.main()


if __name__ == "__main__":
    main()
