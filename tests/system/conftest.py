"""The emulated cloud, once for each test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.emulated import EmulatedCloud, emulated_cloud


@pytest.fixture(scope="session")
def cloud(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    """A running emulator with the data stack in it. Shared: tests use job ids and prefixes of their own.

    Each pytest-xdist worker has its own, on a port and in a folder of its own.
    """
    with emulated_cloud(repo_root=repo_root, folder=tmp_path_factory.mktemp("cloud")) as running:
        yield running
