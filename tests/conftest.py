"""What every test may use, and what no test may: the AWS account and the settings of whoever runs them."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent


def prepare_environment() -> None:
    """Take AWS and Scanfleet settings out of the environment, and say where Node.js is."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "SCANFLEET_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "CDK_VALIDATION": "false",  # costs 10 s a process; `make check` synthesizes once with it
    }
    node = ROOT / ".venv" / "bin" / "node"
    if node.exists():
        os.environ["JSII_NODE"] = str(node)


hypothesis.settings.register_profile(
    "quick", deadline=None, max_examples=100, derandomize="CI" in os.environ, print_blob=True
)
hypothesis.settings.load_profile("quick")
prepare_environment()  # now: right after this file pytest imports tests/synth/conftest.py, and so the CDK


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share a costly fixture in one process: those of a file."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in ("system", "browser"):
            item.add_marker(pytest.mark.system)
        if folder == "browser":
            item.add_marker(pytest.mark.xdist_group("browser"))
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Take back what a test's entry point set up: its log lines would appear in the next test's output."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data(repo_root: Path) -> Path:
    """The folder of real scans beside the checkout; tests that need it are skipped where it is absent."""
    folder = repo_root.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real test data (../shared/data) is not on this machine")
    return folder
