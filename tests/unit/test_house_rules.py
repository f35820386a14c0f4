"""The rules of the house, checked on the source itself: who imports whom, and who may do what."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "runtime" / "scanfleet"
INFRASTRUCTURE = {"aws_cdk", "cdk_nag", "constructs", "cdk", "stacks", "app"}
ENTRIES = (
    "agent/main.py",
    "api/main.py",
    "api/lambda_entry.py",
    "controller/entry.py",
    "sweeper/entry.py",
    "events/entry.py",
    "local/",
    "cli_loglevel.py",
    "cli_release.py",
    "cli_calibrate.py",
    "cli_dashboard.py",
    "releases_fetch.py",
    "golden.py",
)
"""Where clients of AWS are built, to be handed in everywhere else."""
ENVIRONMENT_NAME = re.compile(r"SCANFLEET_[A-Z_]*[A-Z]")


def sources(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def within(path: Path) -> str:
    """A file's place in the runtime package. Example: "agent/lease.py"."""
    return path.relative_to(RUNTIME).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Each import as (module, name): `from a.b import c` -> ("a.b", "c"), `import a.b` -> ("a.b", "")."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively, which hides whom it imports"
            yield from ((node.module or "", alias.name) for alias in node.names)


def called(path: Path) -> Iterator[str]:
    """The name of each call as it is written. Example: "session.client"."""
    return (ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def packages(path: Path) -> set[str]:
    """The top-level packages that a file imports."""
    return {top(module) for module, _ in imported(path)}


def top(module: str) -> str:
    return module.partition(".")[0]


def offenders(paths: list[Path], wrong: Callable[[Path], set[str]]) -> dict[str, set[str]]:
    """Return what each file does that it must not, by its path; empty when all is well."""
    assert paths, "a rule without files to check proves nothing"
    return {str(path.relative_to(ROOT)): found for path in paths if (found := wrong(path))}


def test_the_contract_and_the_guardian_import_the_standard_library_only():
    paths = [RUNTIME / "contract.py", RUNTIME / "agent" / "guardian.py"]

    assert not offenders(paths, lambda path: packages(path) - sys.stdlib_module_names)


def test_the_runtime_never_imports_infrastructure_or_tests():
    forbidden = {*INFRASTRUCTURE, "tests", "benchmarks"}

    assert not offenders(sources(RUNTIME), lambda path: packages(path) & forbidden)


def test_infrastructure_takes_only_the_contract_from_the_runtime():
    paths = [*sources(ROOT / "cdk", ROOT / "stacks"), ROOT / "app.py"]

    def taken(path: Path) -> set[str]:
        return {module for module, _ in imported(path) if top(module) == "scanfleet"} - {"scanfleet.contract"}

    assert not offenders(paths, taken)


def test_stacks_never_import_each_other():
    assert not offenders(sources(ROOT / "stacks"), lambda path: packages(path) & {"stacks", "app"})


def test_constructs_know_no_stack():
    assert not offenders(sources(ROOT / "cdk"), lambda path: packages(path) & {"stacks", "app"})


def test_nobody_imports_the_cdk_as_a_whole():
    # `import aws_cdk as cdk` would hide the folder of the same name
    paths = sources(ROOT / "cdk", ROOT / "stacks", ROOT / "tests")

    assert not offenders(
        paths, lambda path: {module for module, name in imported(path) if not name} & {"aws_cdk"}
    )


def test_only_entries_build_clients():
    paths = [path for path in sources(RUNTIME) if not within(path).startswith(("clients.py", *ENTRIES))]

    def builds(path: Path) -> set[str]:
        calls = set(called(path))
        by_session = {c for c in calls if c.endswith((".client", ".resource")) and "session" in c.lower()}
        return by_session | calls & {"boto3.client", "boto3.resource", "boto3.Session", "build_clients"}

    assert not offenders(paths, builds)


def test_names_of_environment_variables_are_spelled_in_one_place():
    paths = [path for path in sources(RUNTIME) if within(path) not in {"contract.py", "settings.py"}]

    def names(path: Path) -> set[str]:
        constants = {node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)}
        return {c for c in constants if isinstance(c, str) and ENVIRONMENT_NAME.fullmatch(c)}

    assert not offenders(paths, names)


def test_importing_a_module_reads_no_environment():
    def reads(path: Path) -> set[str]:
        at_import = [n for n in tree(path).body if not isinstance(n, ast.FunctionDef | ast.ClassDef | ast.If)]
        nodes = [node for statement in at_import for node in ast.walk(statement)]
        return {
            ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute) and node.attr == "environ"
        }

    assert not offenders(sources(RUNTIME), reads)
