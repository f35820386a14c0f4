"""Makes a product's process of the campaign wait less than in production, so that minutes are enough.

Each name is checked: a rule that the product does not have any more ends the process.
"""

import ctypes
import os
import signal
from datetime import timedelta
from typing import Any

PR_SET_PDEATHSIG = 1
HARNESS = "FAULTS_HARNESS"
"""Environment variable: the harness's process id."""
ANSWER_SECONDS = 3
SMALL_RESERVE_BYTES = 4 * 1024**2


def die_with_harness() -> None:
    """Be killed when the harness is, however it ends; programs then go by their guardians."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[HARNESS]):
        os._exit(1)  # it had ended before the call


def set_constants(module: Any, **values: Any) -> None:
    """Replace constants of a module."""
    for name, value in values.items():
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__} has no {name}")
        setattr(module, name, value)


def set_defaults(rules: Any, **values: Any) -> None:
    """Replace a dataclass's default values, wherever it is made."""
    made = rules(**values)
    real = rules.__init__

    def init(self: Any, **given: Any) -> None:
        real(self, **(values | given))

    rules.__init__ = init
    assert rules() == made


def shorten_answers() -> None:
    """Give unanswered calls up soon."""
    from scanfleet import clients

    set_constants(
        clients,
        READ_TIMEOUT_SECONDS=ANSWER_SECONDS,
        CONNECT_TIMEOUT_SECONDS=ANSWER_SECONDS,
        SQS_READ_TIMEOUT_SECONDS=ANSWER_SECONDS,
        HEARTBEAT_TIMEOUT_SECONDS=1,
    )


def shorten_agent() -> None:
    """Look at the machine, the fleet and failed jobs more often."""
    from scanfleet.agent import transfer, transfer_http
    from scanfleet.agent.breaker import BreakerRules
    from scanfleet.agent.membership import MembershipRules
    from scanfleet.agent.self_check import CheckRules

    set_constants(
        transfer_http,
        READ_TIMEOUT_SECONDS=float(ANSWER_SECONDS),
        CONNECT_TIMEOUT_SECONDS=float(ANSWER_SECONDS),
    )
    set_constants(transfer, FREE_SPACE_RESERVE_BYTES=SMALL_RESERVE_BYTES)
    half, second = timedelta(seconds=0.5), timedelta(seconds=1)
    set_defaults(MembershipRules, look=half, idle=2 * second, hand_back=second)
    set_defaults(CheckRules, look=half)
    set_defaults(
        BreakerRules, look=half, pause=2 * second, longest_pause=4 * second, decide_within=10 * second
    )


def shorten_sweeper() -> None:
    """Conclude within seconds that a message is lost."""
    from scanfleet.sweeper import decision, messages

    set_constants(
        decision,
        NEVER_QUEUED_AFTER=timedelta(seconds=4),
        MESSAGE_LOST_AFTER=timedelta(seconds=8),
        OWNER_DEAD_AFTER=timedelta(seconds=12),
        OVERTAKEN_BY=timedelta(seconds=30),
    )
    set_constants(messages, LOOKS_APART=timedelta(seconds=2), NOT_AGAIN_WITHIN=timedelta(seconds=8))
