"""A machine keeps up with the active release: against an S3 server that may fail, and its SSM parameter."""

import json
import logging
import os
import threading
import time
from collections import namedtuple
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from scanfleet.agent.release_keeper import KeeperRules, ReleaseKeeper
from scanfleet.contract import METRIC_FACTS, NO_RELEASE, Metric, Parameter, Pool, Priority, parameter_name
from scanfleet.errors import ConfigurationError
from scanfleet.jobs import JobState
from scanfleet.processors.release_source import FixedRelease
from scanfleet.releases import CHUNK_BYTES, RELEASE_OBJECTS_PREFIX, ReleaseStore
from scanfleet.releases_active import ActiveRelease
from scanfleet.releases_local import FREE_AFTER_BYTES, LocalReleases
from scanfleet.telemetry import METRIC_EXTRA
from tests.support.cloud import create_job_table
from tests.support.fleet import ARTIFACTS, DATA, TABLE, TestFleet
from tests.support.s3_server import clients_for, faulty, moto_s3
from tests.support.scripted_program import ScriptedProcessor

PROGRAM = "Medit_AutoTest.exe"
LARGE = os.urandom(3 * CHUNK_BYTES + 17)
PLENTY = 10**12
Machine = namedtuple("Machine", "keeper local folder disk")


@pytest.fixture(scope="module")
def server():
    with moto_s3() as url:
        yield url


@pytest.fixture
def s3(server):
    with faulty(server) as proxy:
        yield proxy


@pytest.fixture
def world(s3, monkeypatch, tmp_path):
    return World(s3, monkeypatch, tmp_path)


class World:
    """A stage with a release bucket; `publish` and `activate` are the operator's."""

    def __init__(self, s3, monkeypatch, folder):
        self.s3 = s3
        self.folder = folder
        self.clients = clients_for(monkeypatch, s3.url)
        self.bucket = f"releases-{time.monotonic_ns()}"
        self.clients.s3.create_bucket(Bucket=self.bucket)
        self.ssm = boto3.Session().client("ssm", endpoint_url=s3.url)
        self.stage = f"s{time.monotonic_ns()}"
        self.parameter = parameter_name(self.stage, Parameter.MEDIT_RELEASE)
        self.write(NO_RELEASE)
        self.store = ReleaseStore(self.clients.s3, self.bucket)

    def write(self, version):
        self.ssm.put_parameter(Name=self.parameter, Value=version, Type="String", Overwrite=True)

    def publish(self, version, **files):
        """Publish `name=content`, an underscore for the dot, and a program that names the version."""
        folder = self.folder / f"build-{version}"
        folder.mkdir()
        (folder / PROGRAM).write_text(f"program {version}")
        for name, content in files.items():
            (folder / name.replace("_", ".")).write_bytes(content)
        return self.store.publish(folder, version).release

    def release(self, version, **files):
        made = self.publish(version, **files)
        self.write(version)
        return made

    def damage(self, release, path, body=None):
        (file,) = [file for file in release.files if file.path == path]
        if body is None:
            self.clients.s3.delete_object(Bucket=self.bucket, Key=file.key)
        else:
            self.clients.s3.put_object(Bucket=self.bucket, Key=file.key, Body=body)

    def machine(self, **facts):
        folder = self.folder / "medit"
        disk = {"free": PLENTY}
        local = LocalReleases(folder, free=lambda _: disk["free"])
        active = ActiveRelease(self.ssm, self.stage)
        keeper = ReleaseKeeper(
            local,
            self.store,
            active,
            pool=Pool.WINDOWS_GPU,
            needed=(PROGRAM,),
            **{"jitter": lambda: 0.5} | facts,
        )
        return Machine(keeper, local, folder, disk)

    def fetched(self):
        """The objects whose content was asked for, in order: digest, range."""
        prefix = f"/{self.bucket}/{RELEASE_OBJECTS_PREFIX}"
        asked = [p for p in self.s3.seen if p.method == "GET" and p.path.startswith(prefix)]
        return [(p.path.removeprefix(prefix), p.headers.get("range")) for p in asked]


def told(caplog, action):
    return [record for record in caplog.records if getattr(record, "action", "") == action]


def versions(machine):
    return set(machine.local.versions())


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog):
    caplog.set_level(logging.INFO, logger="scanfleet")


# --- Switching ---------------------------------------------------------------------------------------------


def test_a_machine_takes_the_release_that_was_activated(world, caplog):
    machine = world.machine()
    machine.keeper.look()
    assert machine.keeper.version() == ""

    world.release("1", lib_dll=b"library")
    machine.keeper.look()

    with machine.keeper.pin() as release:
        assert (release.version, release.folder) == ("1", machine.folder / "1")
        assert (release.folder / "lib.dll").read_bytes() == b"library"
    assert machine.local.active() == machine.folder / "1"
    (switched,) = told(caplog, "release_switched")
    assert (switched.release, switched.previous_release) == ("1", None)
    assert told(caplog, "release_failed") == []


def test_a_run_keeps_the_release_that_it_began_with(world):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()

    with machine.keeper.pin() as before:
        world.release("2")
        machine.keeper.look()
        with machine.keeper.pin() as after:
            assert (before.version, after.version) == ("1", "2")
            assert (before.folder / PROGRAM).read_text() == "program 1"
            assert (after.folder / PROGRAM).read_text() == "program 2"


def test_only_what_differs_is_downloaded(world):
    world.release("1", a_dll=b"same", b_dll=b"old")
    machine = world.machine()
    machine.keeper.look()
    world.s3.seen.clear()

    made = world.release("2", a_dll=b"same", b_dll=b"new", c_dll=b"same")
    machine.keeper.look()

    new = {file.sha256 for file in made.files if file.path in {PROGRAM, "b.dll"}}
    assert {digest for digest, _ in world.fetched()} == new
    assert (machine.folder / "2" / "c.dll").read_bytes() == b"same"


def test_what_a_program_writes_into_its_release_reaches_no_other_one(world):
    world.release("1", a_dll=b"same")
    machine = world.machine()
    machine.keeper.look()
    world.release("2", a_dll=b"same")
    machine.keeper.look()

    (machine.folder / "1" / "a.dll").write_bytes(b"scribbled")

    assert (machine.folder / "2" / "a.dll").read_bytes() == b"same"


def test_a_local_file_that_was_altered_is_downloaded_instead(world):
    world.release("1", a_dll=b"same")
    machine = world.machine()
    machine.keeper.look()
    (machine.folder / "1" / "a.dll").write_bytes(b"SAME")

    world.release("2", a_dll=b"same")
    machine.keeper.look()

    assert (machine.folder / "2" / "a.dll").read_bytes() == b"same"


def test_a_rollback_downloads_nothing(world):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()
    world.release("2")
    machine.keeper.look()
    world.s3.seen.clear()

    world.write("1")
    machine.keeper.look()

    assert machine.keeper.version() == "1"
    assert world.fetched() == []


def test_a_machine_starts_with_its_images_release_though_aws_is_silent(world):
    world.release("1")
    world.machine().keeper.look()
    world.ssm.delete_parameter(Name=world.parameter)

    keeper = world.machine().keeper

    assert keeper.version() == "1"
    keeper.look()
    with keeper.pin() as release:
        assert release.version == "1"
    assert world.parameter in keeper.problem


def test_a_machine_without_any_release_says_why(world):
    machine = world.machine()
    machine.keeper.look()
    with pytest.raises(ConfigurationError, match="none was activated yet"), machine.keeper.pin():
        pass

    world.write("7")
    machine.keeper.look()
    with pytest.raises(ConfigurationError, match="there is no release 7"), machine.keeper.pin():
        pass


def test_the_thread_follows_the_parameter(world):
    machine = world.machine(rules=KeeperRules(look=timedelta(seconds=0.05)))
    machine.keeper.start()
    try:
        for version in ("1", "2"):
            world.release(version)
            deadline = time.monotonic() + 60
            while machine.keeper.version() != version:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        machine.keeper.stop()


def test_runs_begin_and_end_while_releases_come_and_go(world):
    """Whatever the threads' order, a pinned folder is whole."""
    for version in ("1", "2", "3"):
        world.publish(version)
    machine = world.machine()
    world.write("1")
    machine.keeper.look()
    torn, ended = [], threading.Event()

    def run():
        while not ended.is_set():
            with machine.keeper.pin() as release:
                for _ in range(20):
                    if (release.folder / PROGRAM).read_text() != f"program {release.version}":
                        torn.append(release)

    runs = [threading.Thread(target=run) for _ in range(3)]
    with ExitStack() as stack:
        for thread in runs:
            thread.start()
            stack.callback(thread.join)
        stack.callback(ended.set)
        for version in ("2", "3", "1", "3", "2", "1"):
            world.write(version)
            machine.keeper.look()
            assert machine.keeper.problem is None
            assert machine.keeper.version() == version
    assert torn == []


# --- Jobs --------------------------------------------------------------------------------------------------


class ReleasedProcessor(ScriptedProcessor):
    """Publishes what its release's program file says, as it is once the run goes on."""

    def __init__(self, releases):
        self.releases = releases

    @contextmanager
    def pinned(self):
        with self.releases.pin() as release:
            run = ReleasedProcessor(FixedRelease(release.folder))
            run.release = release.version
            yield run

    def prepare(self, job, folders):
        with self.releases.pin() as release:
            files = {"release.txt": (release.folder / PROGRAM).read_text()}
        return super().prepare(job.model_copy(update={"settings": job.settings | {"files": files}}), folders)


class ReleasedFleet(TestFleet):
    """Agents whose processor takes its program from a keeper."""

    keeper = None

    def tools(self, scratch, *, grace=0.5):
        made = super().tools(scratch, grace=grace)
        return replace(made, processors={"scripted": ReleasedProcessor(self.keeper)})


@pytest.fixture
def fleet(world, tmp_path):
    create_job_table(world.clients.dynamodb, TABLE)
    for bucket in (DATA, ARTIFACTS):
        world.clients.s3.create_bucket(Bucket=bucket)
    urls = {
        priority: world.clients.sqs.create_queue(QueueName=f"{priority}-{world.stage}")["QueueUrl"]
        for priority in Priority
    }
    return ReleasedFleet(world.clients, {Pool.LINUX_CPU: urls}, tmp_path / "agents")


def test_a_job_ends_with_the_release_it_began_with_and_its_record_says_which(world, fleet, tmp_path):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()
    fleet.keeper = machine.keeper
    hold = tmp_path / "go on"
    with fleet.agent(slots=2):
        first = fleet.submit(settings={"hold": str(hold)})
        fleet.await_state(first, JobState.PROCESSING)
        world.release("2")
        machine.keeper.look()
        second = fleet.submit()
        done = fleet.await_state(second, JobState.COMPLETED, JobState.FAILED)
        assert (done.release, fleet.published(second)["release.txt"]) == ("2", "program 2")
        assert fleet.store.get(first.job_id).release == "1"

        hold.touch()
        done = fleet.await_state(first, JobState.COMPLETED, JobState.FAILED)

    assert (done.state, done.release) == (JobState.COMPLETED, "1")
    assert fleet.published(first)["release.txt"] == "program 1"


# --- What stays on the disk --------------------------------------------------------------------------------


def test_active_previous_and_held_releases_stay(world, caplog):
    machine = world.machine()
    with ExitStack() as runs:
        for version in ("1", "2", "3", "4"):
            world.release(version)
            machine.keeper.look()
            if version == "1":
                runs.enter_context(machine.keeper.pin())
        assert versions(machine) == {"1", "3", "4"}

    machine.keeper.look()
    assert versions(machine) == {"3", "4"}
    assert [record.releases for record in told(caplog, "release_removed")] == [["2"], ["1"]]


def test_a_release_with_an_open_file_is_removed_later(world, monkeypatch):
    machine = world.machine()
    for version in ("1", "2"):
        world.release(version)
        machine.keeper.look()
    world.release("3")
    with monkeypatch.context() as windows:
        real = Path.replace

        def replace(self, target):
            if self.name == "1":
                raise PermissionError(13, "The process cannot access the file")
            return real(self, target)

        windows.setattr(Path, "replace", replace)
        machine.keeper.look()
        assert versions(machine) == {"1", "2", "3"}
        assert (machine.folder / "1" / PROGRAM).is_file()

    machine.keeper.look()
    assert versions(machine) == {"2", "3"}


def test_the_release_before_gives_way_when_the_disk_is_too_small_for_three(world):
    machine = world.machine()
    for version in ("1", "2"):
        world.release(version, data_bin=os.urandom(1000))
        machine.keeper.look()

    class Disk:
        def __call__(self, folder):
            return FREE_AFTER_BYTES + (2000 if versions(machine) == {"2"} else 10)

    machine.keeper._local = LocalReleases(machine.folder, free=Disk())
    world.release("3", data_bin=os.urandom(1000))
    machine.keeper.look()

    assert machine.keeper.version() == "3"


# --- What goes wrong ---------------------------------------------------------------------------------------


def break_content(world, machine):
    release = world.release("2")
    world.damage(release, PROGRAM, b"program X")


def break_object(world, machine):
    world.damage(world.release("2"), PROGRAM)


def break_manifest(world, machine):
    world.write("2")


def break_silence(world, machine):
    world.ssm.delete_parameter(Name=world.parameter)


def break_disk(world, machine):
    world.release("2")
    machine.disk["free"] = FREE_AFTER_BYTES + 1


def break_program(world, machine):
    folder = world.folder / "no program"
    folder.mkdir()
    (folder / "readme.txt").write_text("x")
    world.store.publish(folder, "2")
    world.write("2")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (break_content, "not what the manifest says"),
        (break_object, "is not there"),
        (break_manifest, "no release 2"),
        (break_silence, "does not exist"),
        (break_disk, "no room for release 2"),
        (break_program, rf"holds no {PROGRAM}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_goes_wrong_keeps_the_release_and_is_told_once_and_counted_always(
    world, caplog, break_it, reason
):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()
    break_it(world, machine)

    for _ in range(3):
        machine.keeper.look()

    with machine.keeper.pin() as release:
        assert (release.version, (release.folder / PROGRAM).read_text()) == ("1", "program 1")
    failures = told(caplog, "release_failed")
    assert [record.levelname for record in failures] == ["ERROR", "INFO", "INFO"]
    assert reason.replace("\\", "") in failures[0].reason
    unit, dimensions = METRIC_FACTS[Metric.RELEASE_FAILED]
    for record in failures:
        metric = getattr(record, METRIC_EXTRA)
        assert metric["values"] == {Metric.RELEASE_FAILED: 1, dimensions[0]: "windows-gpu"}
    assert unit == "Count"


def test_a_healed_cause_is_over_at_the_next_look(world, caplog):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()
    break_disk(world, machine)
    machine.keeper.look()

    machine.disk["free"] = PLENTY
    machine.keeper.look()

    assert (machine.keeper.version(), machine.keeper.problem) == ("2", None)
    assert told(caplog, "release_recovered")


def test_a_silence_with_nothing_to_do_is_over_when_aws_answers_again(world, caplog):
    world.release("1")
    machine = world.machine()
    machine.keeper.look()
    break_silence(world, machine)
    machine.keeper.look()

    world.write("1")
    machine.keeper.look()

    assert machine.keeper.problem is None


def test_waits_grow_with_failures_but_not_beyond_the_alarms_period(world):
    machine = world.machine()
    waits = [machine.keeper.next_wait()]
    world.write("none-such")
    for _ in range(5):
        machine.keeper.look()
        waits.append(machine.keeper.next_wait())

    assert waits == pytest.approx([60, 60, 120, 240, 240, 240])
    assert max(waits) * 1.1 < 300


def test_a_damaged_release_that_a_run_holds_is_replaced_after_the_run(world):
    world.release("1", a_dll=b"same")
    machine = world.machine()
    machine.keeper.look()
    with machine.keeper.pin():
        world.release("2")
        machine.keeper.look()
        (machine.folder / "1" / "a.dll").write_bytes(b"scribbled")
        world.write("1")
        machine.keeper.look()
        assert machine.keeper.version() == "2"
        assert "a job uses it" in machine.keeper.problem

    machine.keeper.look()

    assert machine.keeper.version() == "1"
    assert (machine.folder / "1" / "a.dll").read_bytes() == b"same"


# --- Downloads that are cut short --------------------------------------------------------------------------


def cut_once(world, at):
    """Hang up in the middle of the large object, once."""
    left = [at]

    def after(passing):
        if passing.is_object and len(passing.body) > CHUNK_BYTES and left:
            passing.cut_at = left.pop()

    world.s3.after = after


def test_a_download_that_is_cut_short_goes_on_where_it_ended(world):
    release = world.release("1", large_bin=LARGE)
    (large,) = [file for file in release.files if file.path == "large.bin"]
    machine = world.machine()
    cut_once(world, 2 * CHUNK_BYTES + 5)

    machine.keeper.look()

    assert (machine.folder / "1" / "large.bin").read_bytes() == LARGE
    (first, second) = [asked for digest, asked in world.fetched() if digest == large.sha256]
    assert first is None
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= CHUNK_BYTES


def test_a_download_of_an_earlier_life_goes_on(world):
    release = world.release("1", large_bin=LARGE)
    partial = world.folder / "medit" / ".partial-1"
    partial.mkdir(parents=True)
    (partial / "large.bin").write_bytes(LARGE[:CHUNK_BYTES])
    (partial / PROGRAM).write_text("program 1")
    machine = world.machine()

    machine.keeper.look()

    (large,) = [file for file in release.files if file.path == "large.bin"]
    assert world.fetched() == [(large.sha256, f"bytes={CHUNK_BYTES}-")]
    assert (machine.folder / "1" / "large.bin").read_bytes() == LARGE


def test_what_lies_there_and_is_no_beginning_is_downloaded_anew(world):
    world.release("1", large_bin=LARGE)
    partial = world.folder / "medit" / ".partial-1"
    partial.mkdir(parents=True)
    (partial / "large.bin").write_bytes(b"\0" * CHUNK_BYTES)
    machine = world.machine()

    machine.keeper.look()

    assert machine.keeper.problem is None
    assert (machine.folder / "1" / "large.bin").read_bytes() == LARGE


def test_an_object_that_never_comes_whole_is_tried_again_later(world):
    world.release("1", large_bin=LARGE)
    machine = world.machine()

    def after(passing):
        if passing.is_object and len(passing.body) > CHUNK_BYTES:
            passing.cut_at = 0

    world.s3.after = after
    machine.keeper.look()
    assert "did not come whole in 5 tries" in machine.keeper.problem

    world.s3.after = lambda passing: None
    machine.keeper.look()
    assert machine.keeper.version() == "1"


def test_progress_is_told_in_steps(world, caplog):
    world.release("1", large_bin=LARGE)

    world.machine().keeper.look()

    percents = [record.percent for record in told(caplog, "release_progress")]
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert len(percents) <= 10


def test_a_stopping_agent_ends_its_download_and_keeps_what_has_come(world):
    world.release("1", large_bin=LARGE)
    machine = world.machine()
    started = threading.Event()

    def after(passing):
        if passing.is_object:
            started.set()

    world.s3.after = after
    machine.keeper.start()
    assert started.wait(60)
    machine.keeper.stop()

    assert machine.keeper.problem is None
    assert machine.keeper.version() in {"", "1"}


def test_the_pointer_files_are_plain_text(world):
    for version in ("1", "2"):
        world.release(version)
        world.machine().keeper.look()

    folder = world.folder / "medit"
    assert (folder / ".active").read_text() == "2\n"
    assert (folder / ".previous").read_text() == "1\n"
    assert json.dumps(sorted(p.name for p in folder.iterdir() if p.is_dir())) == '["1", "2"]'
