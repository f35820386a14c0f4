"""Collects the agent's packages for Windows into build/agent: `make setup` runs `python -m cdk.agent_wheels`.

    agent-wheels-<lock>.zip          requirements.txt, and each wheel that it pins, for the image's Python
    agent-wheels-<lock>.zip.sha256   its digest: a synth reads this, not 80 MB

<lock> is a hash of requirements-agent.txt: a changed lock makes a new file, and removes the old one. The
machines install from this zip alone, without any package index. Uses the standard library only.
"""

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-agent.txt"
BUILD = ROOT / "build" / "agent"
WINDOWS_PYTHON = "3.11"
"""The image's Python; ami_pipeline/versions.yaml pins its patch version."""
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Zip knows no earlier time. Source: APPNOTE.TXT - .ZIP File Format Specification, 4.4.6."""


def main() -> int:
    """Make the zip of the present lock; return the exit code."""
    archive = wheelhouse()
    with tempfile.TemporaryDirectory() as folder:
        download(LOCK, Path(folder))
        entries = [("requirements.txt", LOCK.read_bytes())]
        entries += [(wheel.name, wheel.read_bytes()) for wheel in Path(folder).iterdir()]
    for outdated in BUILD.glob("agent-wheels-*"):
        outdated.unlink()
    BUILD.mkdir(parents=True, exist_ok=True)
    write_archive(archive, entries, compression=ZIP_STORED)  # wheels are compressed already
    # Last: without it the zip does not count.
    digest_file(archive).write_text(hashlib.sha256(archive.read_bytes()).hexdigest() + "\n")
    return 0


def wheelhouse() -> Path:
    """Return where the zip of the present lock lies, or would."""
    return BUILD / f"agent-wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}.zip"


def digest_file(archive: Path) -> Path:
    """Return where a zip's digest lies."""
    return archive.with_name(f"{archive.name}.sha256")


def download(lock: Path, folder: Path) -> None:
    """Fetch the wheels that a lock pins, for Windows. Raises CalledProcessError; pip's output says why."""
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", "download")
    target = ("--platform=win_amd64", f"--python-version={WINDOWS_PYTHON}", "--implementation=cp")
    fixed = ("--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(lock))
    subprocess.run([*pip, *target, *fixed, "-d", str(folder)], check=True)


def write_archive(archive: Path, entries: Iterable[tuple[str, bytes]], *, compression: int) -> None:
    """Write a zip whose bytes depend on its entries only; it appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        partial = Path(folder, archive.name)
        with ZipFile(partial, "w", compression) as target:
            for name, content in sorted(entries):
                entry = ZipInfo(name, EARLIEST)
                entry.create_system = 3  # Unix, also when made on Windows: the mode counts
                entry.external_attr = 0o644 << 16
                entry.compress_type = compression
                target.writestr(entry, content)
        partial.replace(archive)


if __name__ == "__main__":
    sys.exit(main())
