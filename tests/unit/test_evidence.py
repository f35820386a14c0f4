"""The evidence bundle: what is seen of a living program, how it is stored, and who may read it."""

import json
import sys
import threading
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from scanfleet import contract
from scanfleet.agent import dialogs
from scanfleet.agent.dialogs import dialogs_of, is_message, reported_process
from scanfleet.agent.evidence import EvidenceSaver
from scanfleet.agent.output import ProgramLog
from scanfleet.agent.process_tree import MAX_COMMAND_CHARACTERS, clean, describe
from scanfleet.agent.program import starter
from scanfleet.agent.watch import Sample
from scanfleet.cli import app
from scanfleet.cli_output import ExitCode
from scanfleet.client import Evidence, Scanfleet
from scanfleet.errors import NotFound
from scanfleet.evidence import MachineFacts, to_json
from scanfleet.jobs import FailureClass, new_job_id, utc
from scanfleet.objects import ObjectStore
from scanfleet.processors.base import Invocation
from tests.support.api import ARTIFACTS, as_owner, running_api
from tests.support.program_run import wait_for

REASON = "the program has not moved for 120 s"
SAMPLE = Sample(
    at=2.0,
    cpu_seconds=0.1,
    io_bytes=0,
    printed_bytes=5,
    output_growth_bytes=0,
    resident_bytes=10**7,
    processes=2,
    gpu_percent=0.0,
)


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


@pytest.fixture
def program(tmp_path):
    """A program with a child, both asleep."""
    source = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', 'x' * 5000])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "time.sleep(600)"
    )
    program = starter()(Invocation((sys.executable, "-c", source), tmp_path))
    wait_for(tmp_path / "child")
    yield program
    program.kill()
    program.wait()
    program.close()


@pytest.fixture
def program_log(tmp_path):
    log = ProgramLog(tmp_path / "program.log")
    yield log
    log.close()


def saver(api, program_log, job_id, *, attempt=1, **changed) -> EvidenceSaver:
    facts = {"bucket": ARTIFACTS, "job_id": job_id, "attempt": attempt, "program_log": program_log}
    return EvidenceSaver(
        ObjectStore(api.clients.s3), **({"scratch": program_log.path.parent} | facts | changed)
    )


def stored(api, job_id, attempt=1) -> bytes:
    key = f"{contract.EVIDENCE_PREFIX}{job_id}/{attempt}.json"
    return api.clients.s3.get_object(Bucket=ARTIFACTS, Key=key)["Body"].read()


def failed_with_evidence(api, *attempts_with_evidence, attempts=1) -> str:
    """Return a job whose attempts failed, some of them with evidence on the record and in the bucket."""
    job_id = api.submit(new_job_id())
    for attempt in range(1, attempts + 1):
        lease = api.take(job_id)
        has_evidence = attempt in attempts_with_evidence
        failure = api.leases.failure(lease, FailureClass.HANG, REASON, has_evidence=has_evidence)
        api.leases.requeue(lease, failure)
        if has_evidence:
            bundle = Evidence(
                job_id=job_id,
                attempt=attempt,
                saved_at=utc(1_800_000_000),
                reason=REASON,
                pid=7,
                last_lines=(f"line of attempt {attempt}", "\x1b]0;owned\x07"),
                samples=({"at": 2.0, "cpu_seconds": 0.1},),
                gpu={"driver": "551.61"},
                machine=MachineFacts(
                    memory_bytes=2**34,
                    memory_available_bytes=2**33,
                    swap_used_bytes=0,
                    disk_bytes=2**40,
                    disk_free_bytes=2**39,
                ),
                missing={"dialogs": "OSError: no desktop"},
            )
            api.put(f"evidence/{job_id}/{attempt}.json", to_json(bundle), bucket=ARTIFACTS)
    return job_id


# --- What is saved -----------------------------------------------------------------------------------------


def test_a_bundle_has_verdict_lines_processes_samples_gpu_and_machine(api, program, program_log):
    job_id = new_job_id()
    program_log.write(b"reading scans \xff")

    is_stored = saver(api, program_log, job_id).save(
        REASON, program=program, samples=[SAMPLE], gpu=lambda: {"driver": "551.61", "at": Path("x")}
    )

    bundle = Evidence.model_validate_json(stored(api, job_id))
    assert is_stored
    assert (bundle.job_id, bundle.attempt, bundle.reason, bundle.pid) == (job_id, 1, REASON, program.pid)
    assert bundle.last_lines == ("reading scans \ufffd",)
    assert bundle.samples[0]["printed_bytes"] == 5
    assert bundle.gpu == {"driver": "551.61", "at": "x"}
    assert bundle.machine.memory_bytes == psutil.virtual_memory().total
    assert bundle.missing == {}
    tree = {process.pid: process for process in bundle.processes}
    child = next(process for process in bundle.processes if process.parent == program.pid)
    assert set(tree) == set(program.process_ids())
    assert child.state in {"sleeping", "running"}  # it may still begin
    assert child.resident_bytes > 0
    assert len(child.command) == MAX_COMMAND_CHARACTERS


def test_a_gpu_that_never_answers_holds_the_end_up_for_a_moment_only(api, program, program_log):
    job_id = new_job_id()
    let_go = threading.Event()

    is_stored = saver(api, program_log, job_id, collect=timedelta(seconds=1)).save(
        REASON, program=program, samples=[], gpu=let_go.wait
    )

    let_go.set()
    bundle = Evidence.model_validate_json(stored(api, job_id))
    assert is_stored
    assert bundle.gpu is None
    assert bundle.missing == {"gpu": "was not there within 1 s"}
    assert bundle.processes


def test_what_cannot_be_read_is_told_and_the_rest_is_there(api, program, program_log, tmp_path):
    job_id = new_job_id()

    saver(api, program_log, job_id, scratch=tmp_path / "gone").save(
        REASON, program=program, samples=[], gpu=lambda: {"dump": "x" * 100_000}
    )

    bundle = Evidence.model_validate_json(stored(api, job_id))
    assert "FileNotFoundError" in bundle.missing["machine"]
    assert "more than a bundle takes" in bundle.missing["gpu"]
    assert bundle.processes


def test_a_bundle_that_cannot_be_stored_fails_nothing(api, program, program_log):
    is_stored = saver(api, program_log, new_job_id(), bucket="no-such-bucket").save(
        REASON, program=program, samples=[], gpu=None
    )

    assert not is_stored


def test_a_store_that_never_answers_does_not_keep_the_program_alive(program, program_log):
    let_go = threading.Event()

    class SilentStore:
        def put_bytes(self, *_args, **_options):
            let_go.wait()

    slow = EvidenceSaver(
        SilentStore(),
        bucket=ARTIFACTS,
        job_id=new_job_id(),
        attempt=1,
        program_log=program_log,
        scratch=program_log.path.parent,
        store=timedelta(seconds=0.2),
    )
    assert not slow.save(REASON, program=program, samples=[], gpu=None)
    let_go.set()


def test_a_bundle_of_long_lines_keeps_the_newest_that_fit(api, program, program_log):
    job_id = new_job_id()
    for number in range(300):
        program_log.write(f"{number} ".encode() + b"\x01" * 8000)  # six bytes each in JSON

    saver(api, program_log, job_id).save(REASON, program=program, samples=[SAMPLE] * 1000, gpu=None)

    data = stored(api, job_id)
    bundle = Evidence.model_validate_json(data)
    assert len(data) <= contract.MAX_EVIDENCE_BYTES
    assert bundle.last_lines[-1].startswith("299 ")
    assert bundle.missing["last_lines"] == f"only the last {len(bundle.last_lines)} lines fit"


def test_a_process_that_has_gone_is_left_out(program):
    pid = program.pid
    program.kill()
    program.wait()

    assert describe([pid]) == ()


def test_names_of_any_bytes_can_be_stored():
    assert json.dumps(clean("caf\udce9")).isascii()
    assert "\udce9" not in clean("caf\udce9")


# --- Dialogs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "is_one"),
    [
        (["Static", "Static", "Button"], True),
        (["DirectUIHWND"], True),
        (["Static", "Button", "msctls_progress32"], False),  # a program whose main window is a dialog
        (["Edit", "Button"], False),
        (["Static"], False),
        ([], False),
    ],
)
def test_a_dialog_that_only_says_something_is_a_message(parts, is_one):
    assert is_message(parts) is is_one


def test_an_error_report_names_the_process_that_it_is_about():
    assert reported_process([r"C:\Windows\System32\WerFault.exe", "-u", "-p", "4711", "-s", "104"]) == 4711
    assert reported_process(["WerFault.exe", "-k", "-p"]) is None
    assert reported_process(["WerFault.exe", "-p", "x"]) is None


@pytest.mark.skipif(sys.platform == "win32", reason="of systems without such windows")
def test_without_windows_there_are_no_dialogs():
    assert dialogs_of([1]) == ()
    assert str(dialogs.Dialog(1, "Microsoft Visual C++", "abort() was called")) == (
        "Microsoft Visual C++: abort() was called"
    )


# --- Who reads it ------------------------------------------------------------------------------------------


def test_the_last_attempt_with_evidence_is_shown_unless_one_is_named(api):
    job_id = failed_with_evidence(api, 1, 2, attempts=3)
    url = f"/job/{job_id}/evidence"

    last, first = api.http.get(url), api.http.get(url, params={"attempt": 1})

    assert last.status_code == 200, last.text
    assert last.json()["attempt"] == 2
    assert last.json()["reason"] == REASON
    assert first.json()["last_lines"][0] == "line of attempt 1"
    failures = api.http.get(f"/job/{job_id}").json()["failures"]
    assert [failure["has_evidence"] for failure in failures] == [True, True, False]


def test_without_evidence_the_answer_says_which_attempts_have_some(api):
    some = failed_with_evidence(api, 1, attempts=2)
    none = failed_with_evidence(api, attempts=1)

    missing = api.http.get(f"/job/{some}/evidence", params={"attempt": 2})
    nothing = api.http.get(f"/job/{none}/evidence")

    assert (missing.status_code, nothing.status_code) == (404, 404)
    assert missing.json()["detail"].endswith("no evidence of attempt 2; there is some of: 1")
    assert nothing.json()["detail"].endswith("no evidence; no attempt has any")


def test_a_bundle_that_an_attempt_saved_as_it_lost_its_lease_can_be_asked_for(api):
    job_id = failed_with_evidence(api, attempts=1)
    bundle = Evidence(job_id=job_id, attempt=1, saved_at=utc(1_800_000_000), reason=REASON, pid=7)
    api.put(f"evidence/{job_id}/1.json", to_json(bundle), bucket=ARTIFACTS)

    answer = api.http.get(f"/job/{job_id}/evidence", params={"attempt": 1})

    assert answer.json()["reason"] == REASON


def test_evidence_is_its_owners_alone(api):
    job_id = failed_with_evidence(api, 1)

    assert api.http.get(f"/job/{job_id}/evidence", headers=as_owner("bob")).status_code == 404


def test_the_client_gives_the_bundle(api):
    job_id = failed_with_evidence(api, 1)

    with Scanfleet(api.url) as fleet:
        assert fleet.handle(job_id).evidence().last_lines[0] == "line of attempt 1"
        with pytest.raises(NotFound, match="there is some of: 1"):
            fleet.evidence(job_id, attempt=9)


def test_the_command_line_shows_the_bundle(api, monkeypatch):
    monkeypatch.setenv("SCANFLEET_URL", api.url)
    job_id = failed_with_evidence(api, 1)

    shown = CliRunner().invoke(app, ["evidence", job_id])
    as_json = CliRunner().invoke(app, ["evidence", job_id, "--attempt", "1", "--json"])
    missing = CliRunner().invoke(app, ["evidence", job_id, "--attempt", "2"])

    assert shown.exit_code == ExitCode.OK, shown.output
    for told in (REASON, "8.0 of 16.0 GiB", "551.61", "no desktop", "line of attempt 1"):
        assert told in shown.stdout
    assert "\x1b" not in shown.stdout
    assert json.loads(as_json.stdout)["attempt"] == 1
    assert missing.exit_code == ExitCode.NOT_FOUND
