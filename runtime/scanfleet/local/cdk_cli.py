"""The real CDK command line, from node_modules: run quietly, without a terminal and without a network.

build/cdk/<stage>-<hash>/   the synthesized data stack, kept until one of its inputs changes
build/cdk/home/             the command line's own cache
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from scanfleet.local.processes import LocalModeError

CDK_LIMIT_SECONDS = 180
SYNTH_INPUTS = (
    "app.py",
    "cdk.json",
    "cdk/*.py",
    "stacks/*.py",
    "runtime/scanfleet/contract.py",
    "requirements.txt",
)
"""What the data stack's template depends on: app.py imports the other stacks' modules, but builds none."""


def synthesize(*, repo_root: Path, stage: str) -> Path:
    """Return a CDK cloud assembly of the stage's data stack, made anew only if inputs changed."""
    folder = repo_root / "build" / "cdk" / f"{stage}-{_fingerprint(repo_root)}"
    if folder.exists():
        return folder
    with _locked(folder.parent / "synth.lock"):
        if folder.exists():  # another process made it meanwhile
            return folder
        for outdated in folder.parent.glob(f"{stage}-*"):
            shutil.rmtree(outdated)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as scratch:
            made = Path(scratch) / "assembly"
            cdk(
                ["synth", "--quiet", "-c", f"stage={stage}", "-c", "data_only=true", "--output", made],
                repo_root=repo_root,
                environment={},
                cwd=repo_root,
            )
            made.rename(folder)
    return folder


def cdk(
    arguments: Sequence[str | Path], *, repo_root: Path, environment: Mapping[str, str], cwd: Path
) -> None:
    """Run the CDK command line of node_modules. Raises LocalModeError with the end of its output."""
    node, program = (
        repo_root / ".venv" / "bin" / "node",
        repo_root / "node_modules" / "aws-cdk" / "bin" / "cdk",
    )
    for needed in (node, program):
        if not needed.exists():
            raise LocalModeError(
                f"the CDK command line is not installed ({needed} is missing): run make setup"
            )
    home = repo_root / "build" / "cdk" / "home"
    home.mkdir(parents=True, exist_ok=True)
    quiet = {
        "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "CDK_HOME": str(home),
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DISABLE_VERSION_CHECK": "1",
        "CDK_VALIDATION": "false",  # 10 s; `make check` synthesizes once with it
    }
    words = [str(node), str(program), *map(str, arguments), "--no-notices", "--ci", "--no-color"]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**without_aws(os.environ), **quiet, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=CDK_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LocalModeError(f"cdk {arguments[0]} took over {CDK_LIMIT_SECONDS} s") from error
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise LocalModeError(f"cdk {arguments[0]} failed ({done.returncode}); the end of its output:\n{tail}")


def _fingerprint(repo_root: Path) -> str:
    """Return a hash of every file that the template depends on."""
    digest = hashlib.sha256()
    for pattern in SYNTH_INPUTS:
        for path in sorted(repo_root.glob(pattern)):
            digest.update(f"{path.relative_to(repo_root)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def without_aws(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would steer an AWS client or a Scanfleet process."""
    return {n: v for n, v in environment.items() if not n.startswith(("AWS_", "CDK_", "SCANFLEET_"))}
