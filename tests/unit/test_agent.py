"""A whole worker with real programs, over moto's S3, SQS and DynamoDB."""

import errno
import json
import os
import time
from datetime import timedelta

import psutil
import pytest

from scanfleet import contract
from scanfleet.agent.budgets import Budgets
from scanfleet.agent.evidence import EvidenceSaver
from scanfleet.agent.output import ProgramLog
from scanfleet.agent.usage import FolderGrowth
from scanfleet.agent.watchdog import Watchdog
from scanfleet.contract import MANIFEST_NAME, Pool, Priority
from scanfleet.evidence import Evidence, evidence_uri
from scanfleet.jobs import FailureClass, JobState
from scanfleet.leases import Lease
from scanfleet.queue import Backlog
from scanfleet.s3_uri import S3Uri
from tests.support.fleet import ARTIFACTS, DATA, TABLE
from tests.support.moto_fleet import moto_fleet, moto_server
from tests.support.scripted_program import ScriptedProcessor

COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


@pytest.fixture
def fleet(endpoint, monkeypatch, tmp_path):
    with moto_fleet(endpoint, tmp_path, monkeypatch) as fleet:
        yield fleet


def test_a_job_runs_from_the_source_folder_to_the_published_result(fleet):
    with fleet.agent():
        job = fleet.submit(
            files={"scan.ply": "x", "deep/er.ply": "y"}, settings={"files": {"r.txt": "R", "sub/s.txt": "S"}}
        )
        done = fleet.await_state(job, COMPLETED, FAILED)

    assert done.state is COMPLETED
    published = fleet.published(job)
    manifest = json.loads(published.pop(MANIFEST_NAME))
    assert published == {"r.txt": "R", "sub/s.txt": "S"}
    assert sorted(file["key"] for file in manifest["files"]) == ["r.txt", "sub/s.txt"]
    assert (manifest["attempt"], done.result.files, done.result.size_bytes) == (1, 2, 2)
    assert set(done.stage_seconds) == {"work"}
    assert list(done.durations_seconds) == ["queued", "downloading", "processing", "uploading"]


def test_nothing_but_the_log_and_the_manifest_stays_after_a_job(fleet):
    with fleet.agent():
        job = fleet.submit()
        fleet.await_state(job, COMPLETED)

    assert fleet.artifacts(contract.STAGING_PREFIX) == []
    assert fleet.artifacts(contract.MANIFESTS_PREFIX) == [f"manifests/{job.job_id}/1.json"]
    assert fleet.artifacts(contract.LOGS_PREFIX) == [f"logs/{job.job_id}/1/000000.log"]
    assert not any((fleet.folder / "a1").iterdir())
    assert fleet.queues.backlog(Pool.LINUX_CPU).waiting == 0
    assert fleet.directory.in_service() == ()


def test_a_failing_program_is_retried_once_and_then_fails_with_its_history(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(settings={"exit_code": 3}), FAILED)

    assert [(f.attempt, f.failure_class, f.exit_code) for f in failed.failures] == [
        (1, FailureClass.PROGRAM_ERROR, 3),
        (2, FailureClass.PROGRAM_ERROR, 3),
    ]
    assert fleet.published(failed) == {}


def test_an_empty_source_folder_is_bad_input_and_not_retried(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(files={}), FAILED)

    assert (failed.attempt, failed.failure.failure_class) == (1, FailureClass.BAD_INPUT)


def test_a_key_that_no_workspace_can_hold_is_bad_input_and_the_agent_lives_on(fleet):
    with fleet.agent():
        bad = fleet.await_state(fleet.submit(files={"CON.ply": "x"}), FAILED)
        good = fleet.await_state(fleet.submit(), COMPLETED)

    assert bad.failure.failure_class is FailureClass.BAD_INPUT
    assert "CON.ply" in bad.failure.reason
    assert good.state is COMPLETED


def test_a_folder_outside_the_allowed_prefixes_is_refused_by_the_agent_too(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(source_uri=f"s3://{ARTIFACTS}/logs/"), FAILED)

    assert failed.failure.failure_class is FailureClass.BAD_INPUT
    assert f"s3://{ARTIFACTS}/logs/" in failed.failure.reason


def test_an_unknown_processor_fails_the_job_with_its_name(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(processor="medit_2030"), FAILED)

    assert "medit_2030" in failed.failure.reason


def test_a_cancel_reaches_the_running_program_and_ends_its_whole_tree(fleet):
    marker = fleet.folder / "pid"
    with fleet.agent():
        job = fleet.submit(settings={"hold": str(fleet.folder / "never"), "marker": str(marker)})
        running = fleet.await_job(job, lambda found: found.stage == "work")

        fleet.store.request_cancel(running)
        cancelled = fleet.await_state(job, CANCELLED, COMPLETED, FAILED)

    assert cancelled.state is CANCELLED
    assert not psutil.pid_exists(int(marker.read_text()))
    assert fleet.published(job) == {}


def test_progress_and_log_are_visible_while_the_program_runs(fleet):
    hold = fleet.folder / "go"
    with fleet.agent():
        job = fleet.submit(settings={"hold": str(hold)})
        running = fleet.await_job(job, lambda found: found.progress_percent == 10)
        assert (running.state, running.stage) == (JobState.PROCESSING, "work")
        deadline = time.monotonic() + 20
        while not fleet.artifacts(f"logs/{job.job_id}/"):
            assert time.monotonic() < deadline
            time.sleep(0.05)

        hold.write_text("")
        fleet.await_state(job, COMPLETED)


def test_a_stopping_agent_hands_its_job_back_and_another_finishes_it(fleet):
    hold = fleet.folder / "go"
    with fleet.agent("a1"):
        job = fleet.submit(settings={"hold": str(hold)})
        fleet.await_job(job, lambda found: found.stage == "work")
    waiting = fleet.store.get(job.job_id)
    assert (waiting.state, waiting.failure.failure_class) == (JobState.QUEUED, FailureClass.LOST_MACHINE)

    hold.write_text("")
    with fleet.agent("a2"):
        done = fleet.await_state(job, COMPLETED)

    assert (done.attempt, done.agent_id) == (2, "a2")


def test_a_draining_agent_takes_nothing_new_and_lets_its_job_finish(fleet):
    hold = fleet.folder / "go"
    with fleet.agent() as worker:
        running = fleet.submit(settings={"hold": str(hold)})
        fleet.await_job(running, lambda found: found.stage == "work")

        worker.drain(timedelta(seconds=60))
        waiting = fleet.submit()
        assert worker.problem() == "the agent is draining"
        assert (worker.report().is_stopping, worker.report().busy) == (True, 1)
        hold.write_text("")
        done = fleet.await_state(running, COMPLETED, FAILED)

    assert (done.state, done.attempt) == (COMPLETED, 1)
    assert fleet.store.get(waiting.job_id).state is JobState.QUEUED
    assert fleet.queues.backlog(Pool.LINUX_CPU).waiting == 1


def test_a_drain_hands_back_what_is_not_done_within_its_grace(fleet):
    with fleet.agent() as worker:
        job = fleet.submit(settings={"hold": str(fleet.folder / "never")})
        fleet.await_job(job, lambda found: found.stage == "work")

        worker.drain(timedelta(minutes=10))
        worker.drain(timedelta(seconds=0.2))  # such as a spot notice, which leaves less time
        worker.drain(timedelta(minutes=10))
        waiting = fleet.await_state(job, JobState.QUEUED)

    assert waiting.failure.failure_class is FailureClass.LOST_MACHINE


def test_an_agent_on_hold_is_well_but_leaves_the_jobs_to_others_until_the_hold_ends(fleet):
    with fleet.agent("a1") as worker:
        fleet.await_state(fleet.submit(), COMPLETED)
        worker.hold(True)
        with fleet.agent("a2"):
            others = [fleet.await_state(fleet.submit(), COMPLETED).agent_id for _ in range(4)]
        assert others == ["a2"] * 4
        assert (worker.problem(), worker.report().is_on_hold) == (None, True)

        worker.hold(False)
        assert fleet.await_state(fleet.submit(), COMPLETED).agent_id == "a1"


def test_an_agent_stays_well_while_the_queue_is_silent_for_a_moment(fleet, caplog):
    with fleet.agent() as worker:
        fleet.await_state(fleet.submit(), COMPLETED)
        assert worker.problem() is None
        for priority in Priority:
            fleet.clients.sqs.delete_queue(QueueUrl=fleet.queue_urls[Pool.LINUX_CPU][priority])
        deadline = time.monotonic() + 30
        while not any(getattr(record, "action", "") == "receive_failed" for record in caplog.records):
            assert time.monotonic() < deadline
            time.sleep(0.02)

        assert worker.problem() is None, "the whole fleet would be replaced"
        for priority in Priority:
            fleet.clients.sqs.create_queue(
                QueueName=fleet.queue_urls[Pool.LINUX_CPU][priority].rsplit("/")[-1]
            )


def test_an_agent_that_lost_its_lease_kills_the_program_and_writes_nothing(fleet):
    marker = fleet.folder / "pid"
    with fleet.agent("a1"):
        job = fleet.submit(settings={"hold": str(fleet.folder / "never"), "marker": str(marker)})
        fleet.await_job(job, lambda found: found.stage == "work")

        # Another agent takes over, as if this one had been silent for long.
        fleet.clients.dynamodb.update_item(
            TableName=TABLE,
            Key={"pk": {"S": f"JOB#{job.job_id}"}, "sk": {"S": "JOB"}},
            UpdateExpression="SET lease_expires_at = :past",
            ExpressionAttributeValues={":past": {"N": "1"}},
        )
        taken = fleet.leases.take(job.job_id, "a2")
        assert isinstance(taken, Lease)
        pid = int(marker.read_text())
        deadline = time.monotonic() + 20
        while psutil.pid_exists(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    kept = fleet.store.get(job.job_id)
    assert (kept.state, kept.attempt, kept.agent_id) == (JobState.DOWNLOADING, 2, "a2")
    assert fleet.published(job) == {}


def test_a_committed_attempt_is_published_by_the_next_agent_without_running_again(fleet):
    with fleet.agent("a1"):
        job = fleet.submit()
        done = fleet.await_state(job, COMPLETED)
    manifest = fleet.published(job)[MANIFEST_NAME]

    # The same, but the first agent died right after the commit.
    second = fleet.submit(settings={"exit_code": 1})
    lease = fleet.leases.take(second.job_id, "dead")
    assert isinstance(lease, Lease)
    output = fleet.folder / "output"
    output.mkdir()
    (output / "r.txt").write_text("from the dead agent")
    tools = fleet.tools(fleet.folder / "dead")
    tools.publication.stage(lease.job, output, on_bytes=lambda *_: None, should_stop=lambda: False)
    fleet.leases.commit(lease)
    with fleet.agent("a2"):
        published = fleet.await_state(second, COMPLETED, FAILED)

    assert published.state is COMPLETED
    assert (published.attempt, published.result.attempt) == (2, 1)
    assert fleet.published(second)["r.txt"] == "from the dead agent"
    assert json.loads(manifest)["attempt"] == done.result.attempt


def test_a_duplicate_message_of_a_finished_job_is_dropped(fleet):
    with fleet.agent():
        job = fleet.submit()
        done = fleet.await_state(job, COMPLETED)
        fleet.queues.send(job)
        deadline = time.monotonic() + 20
        while fleet.queues.backlog(Pool.LINUX_CPU) != Backlog(waiting=0, in_flight=0):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert fleet.store.get(job.job_id) == done


def test_a_duplicate_message_of_a_running_job_waits_for_its_end(fleet):
    hold = fleet.folder / "go"
    with fleet.agent(slots=2):
        job = fleet.submit(settings={"hold": str(hold)})
        fleet.await_job(job, lambda found: found.stage == "work")
        fleet.queues.send(job)
        deadline = time.monotonic() + 20
        while fleet.queues.backlog(Pool.LINUX_CPU).waiting == 0:  # put back, to be looked at later
            assert time.monotonic() < deadline
            time.sleep(0.05)
        hold.write_text("")
        done = fleet.await_state(job, COMPLETED)

    assert done.attempt == 1


def test_a_full_disk_under_the_log_does_not_keep_a_failure_from_being_settled(fleet, monkeypatch):
    def on_full_disk(self, path, **limits):
        original(self, path, **limits)
        self._file.close()
        self._file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")

    original = ProgramLog.__init__
    monkeypatch.setattr(ProgramLog, "__init__", on_full_disk)
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(settings={"exit_code": 3}), FAILED)

    assert {failure.exit_code for failure in failed.failures} == {3}


def test_a_result_never_lands_among_the_inputs(fleet):
    with fleet.agent():
        # The source is out/<folder>/sources/, the target out/<folder>/, and the program writes sources/a.txt.
        fleet.objects.put_bytes(S3Uri(DATA, "out/x/sources/b.txt"), b"input")
        job = fleet.submit(
            source_uri=f"s3://{DATA}/out/x/sources/",
            target_uri=f"s3://{DATA}/out/x/",
            settings={"files": {"sources/a.txt": "output"}},
        )
        failed = fleet.await_state(job, FAILED, COMPLETED)

    assert failed.state is FAILED
    assert "sources/a.txt would be written into the source folder" in failed.failure.reason
    assert list(fleet.published(job)) == ["sources/b.txt"]


def test_a_file_that_is_in_the_target_folder_already_is_never_written_over(fleet):
    inner = f"s3://{DATA}/out/outer/inner/"
    with fleet.agent():
        first = fleet.submit(target_uri=f"s3://{DATA}/out/outer/", settings={"files": {"inner/r.txt": "1"}})
        fleet.await_state(first, COMPLETED)
        fleet.objects.put_bytes(S3Uri(DATA, "out/outer/inner/notes.txt"), b"mine")

        failed = fleet.await_state(fleet.submit(target_uri=inner, settings={"files": {"r.txt": "2"}}), FAILED)
        beside = fleet.submit(target_uri=inner, settings={"files": {"other.txt": "2"}})
        fleet.await_state(beside, COMPLETED, FAILED)

    assert failed.failure.failure_class is FailureClass.BAD_INPUT
    assert "r.txt would be written over" in failed.failure.reason
    assert fleet.published(first)["inner/r.txt"] == "1"
    assert fleet.published(beside)["notes.txt"] == "mine"
    assert fleet.published(beside)["other.txt"] == "2"


def test_replaced_results_may_be_written_over_and_those_that_they_had_replaced(fleet):
    target = f"s3://{DATA}/out/again/"
    with fleet.agent():
        for files in ({"a.txt": "1", "b.txt": "1"}, {"a.txt": "2"}, {"a.txt": "3", "b.txt": "3"}):
            last = fleet.submit(target_uri=target, settings={"files": files}, replace=True)
            done = fleet.await_state(last, COMPLETED, FAILED)

    assert done.state is COMPLETED, done.failure
    published = fleet.published(last)
    assert (published["a.txt"], published["b.txt"]) == ("3", "3")


def test_a_result_whose_key_s3_would_refuse_fails_before_the_commit(fleet):
    target = f"s3://{DATA}/{'/'.join(['t' * 200] * 5)}/"  # 1,005 bytes
    with fleet.agent():
        job = fleet.submit(target_uri=target, settings={"files": {"a-name-of-twenty-bytes.txt": "x"}})
        failed = fleet.await_state(job, FAILED, COMPLETED)

    assert failed.failure.failure_class is FailureClass.BAD_INPUT
    assert failed.committed_attempt is None


def test_a_program_may_not_write_the_manifest(fleet):
    with fleet.agent():
        failed = fleet.await_state(fleet.submit(settings={"files": {MANIFEST_NAME: "{}"}}), FAILED)

    assert MANIFEST_NAME in failed.failure.reason
    assert fleet.published(failed) == {}


def test_slots_run_side_by_side_and_high_priority_goes_first(fleet):
    hold = fleet.folder / "go"
    with fleet.agent(slots=2):
        held = [fleet.submit(settings={"hold": str(hold)}) for _ in range(2)]
        for job in held:
            fleet.await_job(job, lambda found: found.stage == "work")
        normal = fleet.submit()
        high = fleet.submit(priority=Priority.HIGH)
        assert len(fleet.directory.in_service()[0].job_ids) <= 2

        hold.write_text("")
        for job in (*held, normal, high):
            fleet.await_state(job, COMPLETED)

    assert fleet.store.get(high.job_id).started_at <= fleet.store.get(normal.job_id).started_at


def test_a_hang_leaves_its_evidence_with_its_failure(fleet):
    def new_watch(run):
        saver = EvidenceSaver(
            fleet.objects,
            bucket=ARTIFACTS,
            job_id=run.job.job_id,
            attempt=run.job.attempt,
            program_log=run.program_log,
            scratch=run.workspace.root,
        )
        budgets = Budgets(total=timedelta(seconds=1))
        growth = FolderGrowth(run.workspace.folders.output)
        return Watchdog(budgets, program_log=run.program_log, board=run.board, growth=growth, evidence=saver)

    with fleet.agent(new_watch=new_watch):
        job = fleet.submit(settings={"hold": "/never"})
        hung = fleet.await_job(job, lambda found: bool(found.failures))

    failure = hung.failures[0]
    bundle = Evidence.model_validate_json(
        fleet.objects.get_bytes(evidence_uri(ARTIFACTS, job.job_id, failure.attempt))
    )
    assert failure.failure_class is FailureClass.HANG
    assert failure.has_evidence
    assert bundle.reason == failure.reason
    assert "scanfleet_stage: work" in bundle.last_lines
    assert bundle.samples
    assert any("program.py" in process.command for process in bundle.processes)


def test_a_full_disk_before_the_program_starts_is_no_fault_of_the_program(fleet, monkeypatch):
    real = ScriptedProcessor.prepare

    def prepare(self, job, folders):
        if job.attempt == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, job, folders)

    monkeypatch.setattr(ScriptedProcessor, "prepare", prepare)
    job = fleet.submit()
    with fleet.agent():
        failed = fleet.await_job(job, lambda found: bool(found.failures))

    assert failed.failures[0].failure_class is FailureClass.TRANSFER
    assert "No space left" in failed.failures[0].reason
