"""The agent's transfer against boto3's defaults, s5cmd and rclone, on a local S3 server (`rclone serve s3`).

Two folders, each down and up: 1 GB in 16 files, and 5,000 files of 4 to 28 kB. Ours lists, checks every key,
verifies every checksum and renames each file into place, or takes every file's SHA-256 and has S3 verify it;
all of that counts. Server, peers and we share the machine's cores. Files are on a memory file system where
there is one, so that the disk does not decide. Ours and boto3 are measured from the call on, because the
agent is a process that already runs; s5cmd and rclone from the start of their process, because the agent
would have to start them.

From this server s5cmd and boto3 download without verifying anything; we and rclone compare each file's MD5
with its ETag, which for 1 GB takes 1.4 s of a core. The row with checksums off shows the same engine under
s5cmd's rules. Where S3 keeps a CRC-32 or a SHA-256 of the object, as it does for whatever the agent or a
current SDK stored in one request, that is verified instead, at a fraction of the MD5's cost.
"""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from benchmarks.harness import Cost, Row, interleaved, run_child

RUNS = 3
OURS, OURS_UNVERIFIED = "scanfleet", "scanfleet, checksums off"
BUCKET = "bench"
LARGE_FILES, LARGE_BYTES = 16, 62_500_000
SMALL_FILES, SMALL_BYTES = 5000, (4_000, 28_000)
MEMORY_BAR_MB = 300
ROOM_BYTES = 6_000_000_000
MEMORY_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Bench:
    """The server under test: its folder on disk, its address, and what clients need in their environment."""

    root: Path
    url: str
    env: dict[str, str]


def rows() -> list[Row]:
    """Return seconds against each peer, and our memory, for both folders, down and up."""
    found: list[Row] = []
    with work_folder() as work, s3_server(work) as bench:
        _make_files(work / "server" / BUCKET)
        for folder, words in (("large", "1 GB in 16 files"), ("small", "5,000 small files")):
            found += _compare(f"{words}, down", _downloads(bench, folder))
            found += _compare(f"{words}, up", _uploads(bench, folder))
    return found


def _compare(what: str, contenders: dict[str, Callable[[], Cost]]) -> list[Row]:
    costs = interleaved(contenders, runs=RUNS)
    ours = costs.pop(OURS)
    unverified = costs.pop(OURS_UNVERIFIED, None)
    found = [_against(what, ours, peer, cost) for peer, cost in costs.items()]
    if unverified is not None:
        found.append(_against(f"{what}, checksums off", unverified, "s5cmd", costs["s5cmd"]))
    memory = Row.limit(f"{what}: peak memory", ours.peak_bytes / 1e6, "MB", at_most=MEMORY_BAR_MB)
    return [*found, memory]


def _against(what: str, ours: Cost, peer: str, cost: Cost) -> Row:
    shown = f"{peer} {cost.seconds:.2f} s"
    return Row.against(what, ours.seconds, "s", peer=shown, peer_value=cost.seconds, at_most=1)


# --- Contenders --------------------------------------------------------------------------------------------


def _downloads(bench: Bench, folder: str) -> dict[str, Callable[[], Cost]]:
    target = bench.root / "down"

    def fresh(run: Callable[[], Cost]) -> Callable[[], Cost]:
        def once() -> Cost:
            shutil.rmtree(target, ignore_errors=True)
            return run()

        return once

    into = f"{target}/"
    return {
        OURS: fresh(lambda: _python(bench, "ours-down", folder, into)),
        OURS_UNVERIFIED: fresh(lambda: _python(bench, "ours-down-unverified", folder, into)),
        "boto3": fresh(lambda: _python(bench, "boto3-down", folder, into)),
        "s5cmd": fresh(lambda: _tool(bench, "s5cmd", "cp", f"s3://{BUCKET}/{folder}/*", into)),
        "rclone": fresh(lambda: _tool(bench, *_rclone(bench), "copy", f":s3:{BUCKET}/{folder}", into)),
    }


def _uploads(bench: Bench, folder: str) -> dict[str, Callable[[], Cost]]:
    source = bench.root / "server" / BUCKET / folder

    def fresh(run: Callable[[str], Cost]) -> Callable[[], Cost]:
        def once() -> Cost:
            # A new name each time: the server remembers folders for a while.
            target = f"up-{time.monotonic_ns()}"
            cost = run(target)
            shutil.rmtree(bench.root / "server" / BUCKET / target)
            return cost

        return once

    return {
        OURS: fresh(lambda target: _python(bench, "ours-up", str(source), target)),
        "boto3": fresh(lambda target: _python(bench, "boto3-up", str(source), target)),
        "s5cmd": fresh(lambda target: _tool(bench, "s5cmd", "cp", f"{source}/", f"s3://{BUCKET}/{target}/")),
        "rclone": fresh(
            lambda target: _tool(bench, *_rclone(bench), "copy", str(source), f":s3:{BUCKET}/{target}")
        ),
    }


def _tool(bench: Bench, name: str, *arguments: str) -> Cost:
    cost, _ = run_child([_program(name), *arguments], env=bench.env)
    return cost


def _rclone(bench: Bench) -> list[str]:
    options = ["--s3-provider=Other", "--s3-env-auth", "--s3-force-path-style", "--config="]
    return ["rclone", *options, f"--s3-endpoint={bench.url}"]


def _python(bench: Bench, contender: str, source: str, target: str) -> Cost:
    """Run one of `CONTENDERS` in a process of its own; it prints the seconds of the transfer alone."""
    argv = [sys.executable, "-m", "benchmarks.transfer", contender, source, target]
    cost, output = run_child(argv, env=bench.env, cwd=Path(__file__).parent.parent)
    return Cost(json.loads(output)["seconds"], cost.cpu_seconds, cost.peak_bytes)


def _ours_down(folder: str, into: str) -> float:
    from scanfleet.agent.transfer import Transfer
    from scanfleet.clients import build_clients
    from scanfleet.objects import ObjectStore, S3Uri

    clients = build_clients()
    transfer = Transfer(ObjectStore(clients.s3), clients.credentials)
    start = time.perf_counter()
    transfer.download(
        S3Uri(BUCKET, f"{folder}/"), Path(into), on_bytes=lambda *_: None, should_stop=lambda: False
    )
    return time.perf_counter() - start


def _ours_down_unverified(folder: str, into: str) -> float:
    from scanfleet.agent import transfer_checks, transfer_download

    # Only here: the product has no such switch.
    with patch.object(transfer_download, "expected_of", lambda *_: transfer_checks.NOTHING_KNOWN):
        return _ours_down(folder, into)


def _ours_up(folder: str, target: str) -> float:
    from scanfleet.agent.transfer import Transfer
    from scanfleet.clients import build_clients
    from scanfleet.objects import ObjectStore, S3Uri

    clients = build_clients()
    transfer = Transfer(ObjectStore(clients.s3), clients.credentials)
    start = time.perf_counter()
    transfer.upload(
        Path(folder), S3Uri(BUCKET, f"{target}/"), on_bytes=lambda *_: None, should_stop=lambda: False
    )
    return time.perf_counter() - start


def _boto3_down(folder: str, into: str) -> float:
    import boto3

    client = boto3.client("s3")
    start = time.perf_counter()
    Path(into).mkdir(parents=True)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{folder}/"):
        for item in page["Contents"]:
            client.download_file(BUCKET, item["Key"], into + item["Key"].rpartition("/")[2])
    return time.perf_counter() - start


def _boto3_up(folder: str, target: str) -> float:
    import boto3

    client = boto3.client("s3")
    start = time.perf_counter()
    for path in Path(folder).iterdir():
        client.upload_file(str(path), BUCKET, f"{target}/{path.name}")
    return time.perf_counter() - start


CONTENDERS = {
    "ours-down": _ours_down,
    "ours-down-unverified": _ours_down_unverified,
    "ours-up": _ours_up,
    "boto3-down": _boto3_down,
    "boto3-up": _boto3_up,
}

# --- The server and the files ------------------------------------------------------------------------------


@contextmanager
def work_folder() -> Iterator[Path]:
    has_memory_disk = MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > ROOM_BYTES
    parent = MEMORY_DISK if has_memory_disk else None
    with tempfile.TemporaryDirectory(prefix="scanfleet-bench-", dir=parent) as name:
        yield Path(name)


def _make_files(bucket: Path) -> None:
    numbers = random.Random(1)
    for name in ("large", "small"):
        (bucket / name).mkdir(parents=True)
    for index in range(LARGE_FILES):
        (bucket / "large" / f"scan-{index:02}.ply").write_bytes(numbers.randbytes(LARGE_BYTES))
    for index in range(SMALL_FILES):
        data = numbers.randbytes(numbers.randint(*SMALL_BYTES))
        (bucket / "small" / f"picture-{index:04}.jpg").write_bytes(data)


@contextmanager
def s3_server(work: Path) -> Iterator[Bench]:
    """Serve <work>/server as S3 on a free port of this machine only."""
    served = work / "server"
    (served / BUCKET).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key, secret = "BENCHMARKKEY", "benchmark-secret"
    argv = [_program("rclone"), "--config=", "serve", "s3", str(served), f"--addr=127.0.0.1:{port}"]
    server = subprocess.Popen([*argv, f"--auth-key={key},{secret}", "--log-level=ERROR"])
    url = f"http://127.0.0.1:{port}"
    env = {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "S3_ENDPOINT_URL": url,
        "AWS_CONFIG_FILE": os.devnull,
    }
    try:
        _await_port(port, server)
        yield Bench(work, url, env)
    finally:
        server.terminate()
        server.wait(10)


def _await_port(port: int, server: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + 10
    while time.monotonic() < give_up_at:
        if server.poll() is not None:
            raise RuntimeError(f"rclone serve s3 ended with {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("rclone serve s3 did not start listening")


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not installed: pip install -r requirements.txt")
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"seconds": CONTENDERS[sys.argv[1]](sys.argv[2], sys.argv[3])}))
