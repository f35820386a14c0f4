"""sc.exe by its documented rules, for `ServiceRegistration`.

Rules, from the Windows commands reference ("sc.exe create", "config", "failure", "start", "query"):
- an option and its value are words apart, and the option ends in "=";
- `create` refuses a name that exists (1073), every other verb one that does not (1060);
- `start` refuses a service that runs (1056);
- `query` prints state and exit codes, each a number first.
"""

from collections.abc import Sequence
from subprocess import CompletedProcess
from typing import Any

EXISTS, MISSING, RUNS, BAD_USAGE = 1073, 1060, 1056, 1639
STATES = {1: "STOPPED", 2: "START_PENDING", 3: "STOP_PENDING", 4: "RUNNING"}
OPTIONS = {
    "create": {"binPath=", "start=", "DisplayName="},
    "config": {"binPath=", "start=", "DisplayName="},
    "failure": {"reset=", "actions="},
}


class ServiceControl:
    """services: each one's options, state and exit code. Call it with sc.exe's words."""

    def __init__(self) -> None:
        self.services: dict[str, dict[str, Any]] = {}

    def end(self, name: str, *, exit_code: int) -> None:
        """The service ends by itself."""
        self.services[name] |= {"state": 1, "exit_code": exit_code}

    def __call__(self, words: Sequence[str]) -> CompletedProcess[str]:
        verb, name, *rest = words
        code, text = self._do(verb, name, rest)
        if code:
            text = f"[SC] OpenService FAILED {code}:\n\nWhy, in words.\n"
        return CompletedProcess(["sc.exe", *words], code, stdout=text, stderr="")

    def _do(self, verb: str, name: str, rest: Sequence[str]) -> tuple[int, str]:
        if (verb == "create") == (name in self.services):
            return (EXISTS if verb == "create" else MISSING), ""
        service = self.services.setdefault(name, {"state": 1, "exit_code": 0})
        if verb in OPTIONS:
            options = dict(zip(rest[::2], rest[1::2], strict=True))
            if not options.keys() <= OPTIONS[verb]:
                return BAD_USAGE, ""
            service |= options
        elif verb == "failureflag":
            service["failureflag"] = rest[0]
        elif verb == "start":
            if service["state"] != 1:
                return RUNS, ""
            service["state"] = 4
        elif verb == "query":
            return 0, _described(name, service)
        else:
            return BAD_USAGE, ""
        return 0, f"[SC] {verb} SUCCESS\n"


def _described(name: str, service: dict[str, Any]) -> str:
    state, code = service["state"], service["exit_code"]
    return (
        f"\nSERVICE_NAME: {name}\n"
        "        TYPE               : 10  WIN32_OWN_PROCESS\n"
        f"        STATE              : {state}  {STATES[state]}\n"
        "        WIN32_EXIT_CODE    : 1066  (0x42a)\n"
        f"        SERVICE_EXIT_CODE  : {code}  ({code:#x})\n"
        "        CHECKPOINT         : 0x0\n"
    )
