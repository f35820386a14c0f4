"""The stand-in program of the campaign: does its work, or misbehaves as its configuration says.

    python -I -S program.py config.json

Standard library only, as it starts thousands of times. Every output file begins with a line that names job,
attempt and a random word of this run, and goes on with the SHA-256 of the inputs: files of two attempts, or
inputs that did not arrive whole, are seen at once. Every process writes itself into the register.

Configuration: release_file (its content goes into the outputs), job_id, attempt, input, output, work,
register (folder), mode, seconds, files, file_bytes, how (the crash), times (how many runs misbehave; the next
ones are normal).
"""

import errno
import hashlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

MEMORY_LIMIT_BYTES = 256 * 1024**2
FILL_LIMIT_BYTES = 48 * 1024**2
FLOOD_BYTES = 8 * 1024**2
LONG_SECONDS = 900.0
"""Whoever sleeps this long was meant to be killed."""
OUT_OF_MEMORY_CODE = 77
DISK_FULL_CODE = 74
RELEASE_CHANGED_CODE = 75


def process_line(config: dict, role: str) -> str:
    """Return this process's line in the register: pid, start time in clock ticks, job, attempt, role."""
    stat = Path("/proc/self/stat").read_text()
    ticks = stat.rpartition(")")[2].split()[19]
    return f"{os.getpid()} {ticks} {config['job_id']} {config['attempt']} {role}\n"


def register(config: dict, role: str) -> None:
    """Append this process to the register; one short write to a file opened for appending is atomic."""
    handle = os.open(
        Path(config["register"]) / "processes.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    try:
        os.write(handle, process_line(config, role).encode())
    finally:
        os.close(handle)


def misbehaves(config: dict) -> bool:
    """Say whether this run is one of the first `times` runs, and count it."""
    for number in range(config["times"]):
        try:
            mark = Path(config["register"]) / f"{config['job_id']}-{number}"
            os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        return True
    return False


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def digest_inputs(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def write_outputs(config: dict, count: int) -> None:
    output = Path(config["output"])
    word = os.urandom(8).hex()
    head = f"{config['job_id']} {config['attempt']} {word} {config['token']}\n".encode()
    body = digest_inputs(Path(config["input"])).encode() + b"\n"
    for number in range(count):
        path = output / f"part-{number % 3}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head + body + b"." * config["file_bytes"])


def work(config: dict, *, is_busy: bool = False, is_silent: bool = False) -> None:
    """Spend the seconds, telling progress twice unless silent."""
    if not is_silent:
        say("scanfleet_stage: work")
    half = config["seconds"] / 2
    for percent in (50, 90):
        spend(half, is_busy=is_busy)
        if not is_silent:
            say(f"scanfleet_progress: {percent}")


def spend(seconds: float, *, is_busy: bool) -> None:
    if not is_busy:
        time.sleep(seconds)
        return
    end = time.process_time() + seconds
    while time.process_time() < end:
        hashlib.sha256(b"work" * 10_000).digest()


def hang() -> None:
    time.sleep(LONG_SECONDS)


def leave_orphans(config: dict) -> None:
    """Leave three processes behind: a child, one of a session of its own, and one twice forked."""
    for role in ("child", "session", "twice"):
        if os.fork():
            continue
        if role != "child":
            os.setsid()
        if role == "twice" and os.fork():
            os._exit(0)
        register(config, role)
        hang()
        os._exit(0)


def flood() -> None:
    """Write without a newline, then what is no text, to both pipes."""
    for _ in range(FLOOD_BYTES // 65_536):
        os.write(2, b"x" * 65_536)
    os.write(1, b"\xff\xfe\x00\n" * 10_000)


def eat_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    eaten = []
    try:
        while True:
            eaten.append(bytearray(16 * 1024**2))
    except MemoryError:
        eaten.clear()
    say("scanfleet_fail: out of memory")
    sys.exit(OUT_OF_MEMORY_CODE)


def fill_disk(config: dict) -> None:
    """Write until the disk is full, or up to a bound where it is no small disk of the campaign's own."""
    try:
        with (Path(config["work"]) / "fill").open("wb") as file:
            for _ in range(FILL_LIMIT_BYTES // 1024**2):
                file.write(b"\0" * 1024**2)
    except OSError as error:
        say(f"scanfleet_fail: {error.strerror}")
    sys.exit(DISK_FULL_CODE)


def link_out(config: dict) -> None:
    """Put a link into the outputs that leads out of the workspace."""
    (Path(config["output"]) / "secret.txt").symlink_to(Path(config["register"]) / "canary.txt")


def crash(how: int) -> None:
    """End by a signal (negative) or with an exit code."""
    if how >= 0:
        os._exit(how)
    signal.signal(-how, signal.SIG_DFL) if -how != signal.SIGKILL else None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), -how)
    hang()


def misbehave(config: dict, mode: str) -> None:
    """Do what the mode says; returns where the run may still end well."""
    if mode == "hang_start":
        hang()
    elif mode == "hang_middle":
        say("scanfleet_progress: 40")
        hang()
    elif mode == "hang_end":
        write_outputs(config, config["files"])
        say("scanfleet_progress: 100")
        hang()
    elif mode == "crash":
        crash(config["how"])
    elif mode == "partial":
        write_outputs(config, max(1, config["files"] // 2))
        sys.exit(3)
    elif mode == "memory":
        eat_memory()
    elif mode == "disk":
        fill_disk(config)
    elif mode == "link":
        link_out(config)
    elif mode == "ignore_stop":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def main() -> None:
    config = json.loads(Path(sys.argv[1]).read_text())
    config["token"] = Path(config["release_file"]).read_text().strip()
    mode = config["mode"]
    register(config, "program")
    if misbehaves(config):
        misbehave(config, mode)
    work(config, is_busy=mode == "busy", is_silent=mode == "busy")
    if mode == "orphans":
        leave_orphans(config)
    if mode == "flood":
        flood()
    write_outputs(config, config["files"])
    if Path(config["release_file"]).read_text().strip() != config["token"]:
        sys.exit(RELEASE_CHANGED_CODE)
    say("scanfleet_progress: 100")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(f"scanfleet_fail: {error.strerror}")
        sys.exit(DISK_FULL_CODE)
