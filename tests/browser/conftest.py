"""One system and one browser for all tests of the console."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from scanfleet import sample
from scanfleet.client import JobInfo, Scanfleet
from scanfleet.jobs import JobState
from scanfleet.local.system import LocalSystem, Plan
from tests.support.browser import Visit, axe_source, running_browser, visit
from tests.support.console_facts import Facts, put_facts


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A browser without a window; skips where there is none, except in CI."""
    with running_browser() as started:
        yield started


@pytest.fixture(scope="session")
def system(
    browser: Browser, repo_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSystem]:
    """The whole system with two agents: the browser comes first, so that nothing starts without one."""
    home = tmp_path_factory.mktemp("console")
    plan = Plan(repo_root=repo_root, state=home / "state", logs=home / "logs")
    with LocalSystem(plan, on_step=lambda _: None) as started:
        yield started


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans whose job takes some seconds."""
    return sample.make_sample(tmp_path_factory.mktemp("sample"), scans=6, points=8_000, seed=3).scans_folder


@pytest.fixture(scope="session")
def large_scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans whose job is not done while a test looks at it."""
    made = sample.make_sample(tmp_path_factory.mktemp("large"), scans=12, points=60_000, seed=4)
    return made.scans_folder


@pytest.fixture(scope="session")
def client(system: LocalSystem) -> Iterator[Scanfleet]:
    """What client developers use."""
    with system.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def finished(client: Scanfleet, scans: Path) -> JobInfo:
    """A completed job of real scans."""
    job = client.submit(scans, scans.parent / "result").wait()
    assert job.status is JobState.COMPLETED, job.failure
    return job


@pytest.fixture(scope="session")
def facts(system: LocalSystem) -> Facts:
    """Jobs of every state that have ended or wait, put straight into the table; hostile texts in one."""
    return put_facts(system.deployed)


@pytest.fixture(scope="session")
def axe(repo_root: Path) -> str:
    """axe-core's program text."""
    return axe_source(repo_root)


@pytest.fixture
def open_console(browser: Browser, system: LocalSystem, repo_root: Path) -> Iterator[Callable[..., Visit]]:
    """Open the console in a fresh profile: `open_console("jobs", color_scheme="dark")`.

    Fails the test afterwards when something happened that must not.
    """
    opened: list[Visit] = []
    hosts = {urlsplit(system.deployed.endpoint_url).netloc}
    with ExitStack() as stack:

        def open_one(place: str = "", **profile: object) -> Visit:
            pictures = repo_root / "build" / "screenshots"
            one = stack.enter_context(visit(browser, system.url, hosts=hosts, pictures=pictures, **profile))
            opened.append(one)
            return one.go(place)

        yield open_one
        problems = [problem for one in opened for problem in one.problems]
    assert problems == []
