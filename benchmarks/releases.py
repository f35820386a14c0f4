"""A machine takes a release of 4 GB: time, memory, and what travels for the next one.

One file of 2 GB and 32 of 64 MB, then a release in which two of the 34 differ, from a local S3 server
(`rclone serve s3`) that shares the machine's cores. Everything counts: download, every file's SHA-256, and
the flush to the disk. A machine's own peer would be `aws s3 sync`, which verifies nothing.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import Cost, Row, run_child
from benchmarks.transfer import BUCKET, Bench, s3_server

LARGE_BYTES = 2_000_000_000
SMALL_FILES, SMALL_BYTES = 32, 64_000_000
CHANGED = 2
BLOCK_BYTES = 8_000_000
MEMORY_BAR_MB = 200
"""The interpreter and boto3 take half of it; the rest is buffers, whatever a release's size."""


def rows() -> list[Row]:
    """Return seconds and memory of both releases, and the bytes that the second one had to download."""
    total = (LARGE_BYTES + SMALL_FILES * SMALL_BYTES) / 1e9
    with _work_folder() as work, s3_server(work) as bench:
        bucket = work / "server" / BUCKET
        files = {"large.bin": _make_object(bucket, LARGE_BYTES, seed=0)}
        for number in range(SMALL_FILES):
            files[f"part-{number:02}.bin"] = _make_object(bucket, SMALL_BYTES, seed=1 + number)
        _publish(bucket, "1", files)
        for number in range(CHANGED):
            files[f"part-{number:02}.bin"] = _make_object(bucket, SMALL_BYTES, seed=1000 + number)
        _publish(bucket, "2", files)
        first, _ = _take(bench, "1")
        second, downloaded = _take(bench, "2")
    return [
        Row.fact(f"first release, {total:.0f} GB", first.seconds, "s"),
        Row.limit("the same: peak memory", first.peak_bytes / 1e6, "MB", at_most=MEMORY_BAR_MB),
        Row.fact(f"next release, {CHANGED} of {1 + SMALL_FILES} files differ", second.seconds, "s"),
        Row.limit("the same: peak memory", second.peak_bytes / 1e6, "MB", at_most=MEMORY_BAR_MB),
        Row.limit("the same: downloaded", downloaded / 1e6, "MB", at_most=CHANGED * SMALL_BYTES / 1e6),
    ]


def _take(bench: Bench, version: str) -> tuple[Cost, int]:
    argv = [sys.executable, "-m", "benchmarks.releases", version, str(bench.root / "medit")]
    cost, output = run_child(argv, env=bench.env, cwd=Path(__file__).parent.parent, timeout_seconds=900)
    told = json.loads(output)
    return Cost(told["seconds"], cost.cpu_seconds, cost.peak_bytes), told["downloaded"]


def take(version: str, into: Path) -> None:
    """Take a release as an agent does; print the seconds and the bytes that were downloaded."""
    from scanfleet.clients import build_clients
    from scanfleet.releases import ReleaseStore
    from scanfleet.releases_local import LocalReleases

    downloaded = 0

    def count(parsed: dict[str, int], **_: object) -> None:
        nonlocal downloaded
        downloaded += parsed.get("ContentLength", 0) if parsed.get("ContentLength", 0) > 1_000_000 else 0

    s3 = build_clients().s3
    s3.meta.events.register("after-call.s3.GetObject", count)
    store, local = ReleaseStore(s3, BUCKET), LocalReleases(into)
    start = time.perf_counter()
    local.fetch(store, store.read(version))
    local.activate(version)
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - start, "downloaded": downloaded}))


def _make_object(bucket: Path, size: int, *, seed: int) -> dict[str, object]:
    """Write an object of pseudo-random content; return its line of a manifest, without the path."""
    folder = bucket / "objects" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    block = random.Random(seed).randbytes(BLOCK_BYTES)
    digest = hashlib.sha256()
    with (folder / "new").open("wb") as out:
        for number in range(size // BLOCK_BYTES):
            piece = number.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            out.write(piece)
    (folder / "new").rename(folder / digest.hexdigest())
    return {"size_bytes": size // BLOCK_BYTES * BLOCK_BYTES, "sha256": digest.hexdigest()}


def _publish(bucket: Path, version: str, files: dict[str, dict[str, object]]) -> None:
    folder = bucket / "releases" / version
    folder.mkdir(parents=True)
    lines = [{"path": path, **facts} for path, facts in files.items()]
    made = {"version": version, "created": datetime.now(UTC).isoformat(), "files": lines}
    (folder / "manifest.json").write_text(json.dumps(made))


@contextmanager
def _work_folder() -> Iterator[Path]:
    """Give a folder on a real disk: in memory, its files would be counted against the machine's."""
    name = tempfile.mkdtemp(prefix="scanfleet-bench-", dir=os.environ.get("TMPDIR"))
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name)


if __name__ == "__main__":
    take(sys.argv[1], Path(sys.argv[2]))
