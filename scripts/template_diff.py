"""Shows what this checkout does to the templates of another commit: run by `make diff`, without an account.

    build/diff/base/           the other commit's files, while they are needed
    build/diff/<which>-<stage> the synthesized apps of both

The other commit's app runs with this checkout's packages. A commit that needs others cannot be compared; the
report then says so.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "diff"
BASE = WORK / "base"
BIN = ROOT / ".venv" / "bin"
LONGEST_REPORT = 900_000
"""Characters. GitHub drops a summary over 1 MiB. Source: "Workflow commands", "Adding a job summary"."""


class DiffError(Exception):
    """A program failed; the message ends with what it said."""


def main() -> int:
    """Print the differences, and append them to the report when one is named; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="a commit, branch or tag to compare with")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--report", type=Path, help="a Markdown file that gets the differences, too")
    options = parser.parse_args()
    try:
        text = compare(base=options.base, stage=options.stage)
    except DiffError as error:
        sys.stderr.write(f"diff: {error}\n")
        return 1
    print(text)
    if options.report:
        with options.report.open("a", encoding="utf-8") as report:
            report.write(f"## Templates of {options.stage}\n\n```\n{text[:LONGEST_REPORT]}\n```\n")
    return 0


def compare(*, base: str, stage: str) -> str:
    """Return the differences of every stack between the base and this checkout. Raises DiffError."""
    require_commit(base)
    head = synthesize(ROOT, WORK / f"head-{stage}", stage=stage)
    check_out(base)
    try:
        before = synthesize(BASE, WORK / f"base-{stage}", stage=stage)
    except DiffError as error:
        return f"{base} cannot be synthesized with this checkout's packages: nothing to compare.\n{error}"
    finally:
        remove_base()
    old, new = stacks(before), stacks(head)
    parts = [
        f"Stack {name}\nremoved from the app; its resources stay until it is destroyed" for name in old - new
    ]
    for name in sorted(new):
        template = before / f"{name}.template.json" if name in old else empty_template()
        parts.append(cdk_diff(head, name, template))
    return "\n\n".join(parts)


def require_commit(name: str) -> None:
    """Raise DiffError unless the repository knows the commit."""
    try:
        call(["git", "rev-parse", "--verify", f"{name}^{{commit}}"])
    except DiffError:
        raise DiffError(
            f"BASE: got {name!r}; allowed: a commit, branch or tag of this repository (git fetch brings more)"
        ) from None


def check_out(commit: str) -> None:
    """Leave the commit's files in BASE, with links to what this checkout has installed and built."""
    remove_base()
    call(["git", "worktree", "add", "--detach", "--quiet", BASE, commit])
    (BASE / "build").mkdir()
    for name in (".venv", "node_modules", "build/agent", "build/lambda"):
        if (ROOT / name).exists():
            (BASE / name).symlink_to(ROOT / name)


def remove_base() -> None:
    """Remove the other commit's files, and what git noted about them."""
    shutil.rmtree(BASE, ignore_errors=True)
    call(["git", "worktree", "prune"])


def synthesize(checkout: Path, folder: Path, *, stage: str) -> Path:
    """Return the folder with the checkout's templates. Raises DiffError."""
    shutil.rmtree(folder, ignore_errors=True)
    context = json.loads((checkout / "cdk.json").read_text(encoding="utf-8"))["context"] | {"stage": stage}
    call(
        [BIN / "python", "app.py"],
        cwd=checkout,
        CDK_OUTDIR=str(folder),
        CDK_CONTEXT_JSON=json.dumps(context),
        CDK_VALIDATION="false",
        PYTHONPATH=os.pathsep.join((str(checkout), str(checkout / "runtime"))),
    )
    return folder


def stacks(assembly: Path) -> set[str]:
    """Return the IDs of the assembly's stacks."""
    artifacts = json.loads((assembly / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
    return {name for name, body in artifacts.items() if body["type"] == "aws:cloudformation:stack"}


def empty_template() -> Path:
    """Return a template without resources: what a new stack is compared with."""
    path = WORK / "empty.template.json"
    path.write_text("{}")
    return path


def cdk_diff(assembly: Path, stack: str, template: Path) -> str:
    """Return what the CDK says about one stack: resources, permissions and open ports apart."""
    cdk = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
    quiet = ("--no-notices", "--no-color", "--ci", "--no-change-set")
    compared = ("--exclusively", "--app", assembly, "--template", template)
    return call(
        [BIN / "node", cdk, "diff", stack, *quiet, *compared], CDK_DISABLE_CLI_TELEMETRY="true"
    ).strip()


def call(argv: Sequence[str | Path], *, cwd: Path = ROOT, **environment: str) -> str:
    """Return what a program prints. Raises DiffError when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise DiffError(f"{argv[0]} {argv[1]} failed ({done.returncode}):\n{done.stdout[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
