"""The emulated cloud: one MiniStack process that only this machine can reach, with its state in a folder.

    <state folder>/lock       held while an emulator uses the folder
                   services/  every service's state, as JSON; written when the emulator stops in good order
                   objects/   S3 objects, written at once

Its program lives in .venv-emulator, because it pins botocore.
"""

import fcntl
import http.client
import os
import socket
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from time import monotonic

import psutil

from scanfleet.local.processes import Child, LocalModeError, Processes

NAME = "emulator"
LOOPBACK = "127.0.0.1"
ENTRY = Path(__file__).with_name("emulator_entry.py")
HEALTH_PATH = "/_ministack/health"
START_LIMIT = timedelta(seconds=60)
HEALTH_INTERVAL_SECONDS = 0.03
"""Between two looks at a starting emulator, unless it ends: then the wait is over at once."""


@dataclass(frozen=True, kw_only=True)
class Emulator:
    """A running emulator."""

    endpoint_url: str
    """Example: "http://127.0.0.1:4566". What AWS_ENDPOINT_URL has to be."""
    child: Child
    lock: int
    """File descriptor of the state folder's lock; the kernel frees it when this process ends."""

    def release(self) -> None:
        """Let others use the state folder; call it once the emulator has stopped."""
        os.close(self.lock)


def start_emulator(
    *,
    processes: Processes,
    repo_root: Path,
    state_folder: Path,
    log_file: Path,
    port: int = 0,
    checks_callers: bool = False,
) -> Emulator:
    """Start the emulator and return once it answers; port 0 takes a free one.

    checks_callers: it verifies signatures and holds roles to their policies; by default it lets anybody in.
    Stopped like every other child of `processes`; started first, it is stopped last. Raises LocalModeError
    when the port is taken, the folder is in use, the emulator dies, or it listens beyond this machine.
    """
    program = repo_root / ".venv-emulator" / "bin" / "python"
    if not (program.parent / "ministack").exists():
        raise LocalModeError(f"the emulator is not installed ({program} is missing): run make setup")
    lock = _lock(state_folder)
    chosen = port or free_port()
    try:
        _require_free(chosen)
        environment = _environment(state_folder, chosen) | ({"AUTH": "true"} if checks_callers else {})
        child = processes.start(NAME, [program, ENTRY], env=environment, log_file=log_file)
        _await_answer(processes, child, chosen)
        _require_loopback(child)
    except BaseException:
        processes.stop(NAME)
        os.close(lock)
        raise
    return Emulator(endpoint_url=f"http://{LOOPBACK}:{chosen}", child=child, lock=lock)


def _environment(state_folder: Path, port: int) -> dict[str, str]:
    """Return the emulator's whole environment: nothing of the caller's AWS settings gets in.

    BIND_HOST matters: without it the emulator serves every interface.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {
        "BIND_HOST": LOOPBACK,
        "MINISTACK_HOST": LOOPBACK,
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(_made(state_folder / "services")),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(_made(state_folder / "objects")),
        "PYTHONUNBUFFERED": "1",
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _lock(state_folder: Path) -> int:
    lock = os.open(_made(state_folder) / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise LocalModeError(
            f"another Scanfleet on this machine uses {state_folder}; stop it (Ctrl-C where it runs) first"
        ) from None
    return lock


def free_port() -> int:
    """Return a port that is free on this machine at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are only being wound up counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise LocalModeError(
                f"port {port} on {LOOPBACK} cannot be used ({error.strerror}); choose another"
            ) from None


def _await_answer(processes: Processes, child: Child, port: int) -> None:
    """Return once the emulator is ready. Raises LocalModeError when it died or took too long."""
    give_up = monotonic() + START_LIMIT.total_seconds()
    while monotonic() < give_up:
        if child.ended.wait(HEALTH_INTERVAL_SECONDS):
            processes.raise_if_dead()
        if _is_healthy(port):
            return
    raise LocalModeError(f"the emulator did not answer within {START_LIMIT.total_seconds():.0f} s")


def _is_healthy(port: int) -> bool:
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        try:
            connection.request("GET", HEALTH_PATH)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):  # not listening yet
            return False


def _require_loopback(child: Child) -> None:
    """Raise LocalModeError when other machines could reach the emulator."""
    exposed = [(ip, port) for ip, port in listening_addresses(child.pid) if not ip_address(ip).is_loopback]
    if exposed:
        raise LocalModeError(f"the emulator listened beyond this machine: {exposed}; it was stopped")


def listening_addresses(pid: int) -> list[tuple[str, int]]:
    """Return the addresses and ports on which a process and its descendants accept connections."""
    process = psutil.Process(pid)
    return [
        (connection.laddr.ip, connection.laddr.port)
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
