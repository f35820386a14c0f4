"""The command line against a service over real HTTP: what it prints, where, and its exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from scanfleet.cli import app
from scanfleet.cli_jobs import REASONS_SHOWN, STATUS_FILTERS
from scanfleet.cli_options import parse_duration, parse_settings, parse_tags
from scanfleet.cli_output import ExitCode, exit_code_of
from scanfleet.client import DEFAULT_URL, DownloadRefused, Scanfleet, UnexpectedAnswer
from scanfleet.errors import ConfigurationError, LeaseLost
from scanfleet.jobs import JobState, new_job_id
from scanfleet.settings import ClientSettings
from tests.support.standin import FAILING, STEPS, Standin, running_standin

SOURCE, TARGET = "s3://data/scans/", "s3://data/result/"
VERBS = {
    "submit", "status", "jobs", "watch", "cancel", "retry", "logs", "health", "load", "sample", "release",
    "dead-letters", "redrive", "evidence", "receipt", "loglevel",
    "variance",
    "calibrate",
    "dashboard",
}  # fmt: skip
Cli = Callable[..., Result]


@pytest.fixture
def service() -> Iterator[Standin]:
    with running_standin() as service:
        service.objects[SOURCE + "a.ply"] = b"ply"
        service.steps = (STEPS[2], STEPS[4])
        yield service


@pytest.fixture
def cli(service: Standin, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line against the service and return what it printed."""
    monkeypatch.setenv("SCANFLEET_URL", service.url)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def submitted(cli: Cli) -> str:
    result = cli("submit", SOURCE, TARGET)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def error_of(result: Result) -> dict[str, Any]:
    assert result.stdout == ""
    error: dict[str, Any] = json.loads(result.stderr)["error"]
    assert error["exit_code"] == result.exit_code
    return error


# --- The verbs -------------------------------------------------------------------------------------------


def test_submit_prints_the_bare_id_and_says_how_to_watch(cli: Cli, service: Standin) -> None:
    result = cli("submit", SOURCE, TARGET)

    (job_id,) = service.jobs
    assert result.stdout == job_id + "\n"
    assert f"scanfleet watch {job_id}" in result.stderr


def test_submit_hands_on_everything_that_was_chosen(cli: Cli, service: Standin) -> None:
    words = ["--processor", "reference", "--set", "Use GPU=false", "--set", "Complete Type=2"]
    words += ["--priority", "high", "--time-limit", "1h30m", "--tag", "patient=12", "--idempotency-key", "k1"]
    first, second = cli("submit", SOURCE, TARGET, *words), cli("submit", SOURCE, TARGET, *words)

    assert (first.exit_code, first.stdout) == (0, second.stdout)
    (job,) = service.jobs.values()
    assert job["body"] == {
        "processor": "reference",
        "source": SOURCE,
        "target": TARGET,
        "settings": {"Use GPU": False, "Complete Type": 2},
        "priority": "high",
        "time_limit_seconds": 5400,
        "tags": {"patient": "12"},
    }


def test_submit_and_wait_shows_each_step_and_then_the_job(cli: Cli) -> None:
    result = cli("submit", SOURCE, TARGET, "--wait")

    assert result.exit_code == ExitCode.OK
    assert "completed" in result.stdout
    assert "1 files, 3 bytes" in result.stdout
    assert result.stderr.index("processing, align") < result.stderr.index("completed")


def test_local_folders_go_up_and_come_down(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "Zähne 50%.ply").write_bytes(b"scan")

    result = cli("submit", tmp_path / "in", tmp_path / "out", "--json")

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["downloaded_to"] == str(tmp_path / "out")
    assert (tmp_path / "out" / "Zähne 50%.ply").read_bytes() == b"scan"


def test_watch_downloads_the_result_of_a_job_that_ended_long_ago(cli: Cli, tmp_path: Path) -> None:
    job_id = submitted(cli)
    cli("watch", job_id)

    result = cli("watch", job_id, "--download", tmp_path / "out")

    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "a.ply").read_bytes() == b"ply"


def test_a_failed_job_and_a_cancelled_one_have_exit_codes_of_their_own(cli: Cli, service: Standin) -> None:
    service.steps = FAILING
    failed = cli("submit", SOURCE, TARGET, "--wait")
    assert failed.exit_code == ExitCode.JOB_FAILED
    assert "scan_03.ply is truncated" in failed.stdout

    job_id = submitted(cli)
    assert cli("cancel", job_id).exit_code == 0
    assert cli("watch", job_id).exit_code == ExitCode.JOB_CANCELLED
    assert cli("status", job_id).exit_code == 0, "the question was answered"
    assert cli("retry", job_id).exit_code == 0


def test_status_says_what_to_do_about_a_quarantined_job(cli: Cli, service: Standin) -> None:
    hang = FAILING[1]["failure"] | {"failure_class": "hang", "reason": "it stood still", "agent_id": "i-1"}
    crash = hang | {"failure_class": "crash", "reason": "it fell", "attempt": 2, "agent_id": "i-2"}
    failures = [hang | {"has_evidence": True}, crash]
    ended = {
        "status": "failed",
        "failure": crash,
        "failures": failures,
        "quarantined": "2026-01-02T03:04:05Z",
    }
    service.steps = (ended,)
    job_id = submitted(cli)

    shown = " ".join(cli("status", job_id).stdout.split())
    listed = cli("jobs", "--status", "all").stdout

    assert "quarantined; crash: it fell" in listed
    assert f"attempt 1 on i-1: hang: it stood still (scanfleet evidence {job_id} --attempt 1)" in shown
    assert "attempt 2 on i-2: crash: it fell" in shown
    assert "quarantined since 2026-01-02" in shown


def test_status_names_the_jobs_whose_results_replace_each_other(cli: Cli, service: Standin) -> None:
    service.steps = (STEPS[4] | {"replaces": "JOB-BEFORE", "superseded_by": "JOB-AFTER"},)
    shown = " ".join(cli("status", submitted(cli)).stdout.split())

    assert "replaces JOB-BEFORE" in shown
    assert "superseded by JOB-AFTER" in shown


def test_jobs_are_a_table_that_a_pipe_gets_without_colours(cli: Cli) -> None:
    ids = [submitted(cli) for _ in range(3)]

    result = cli("jobs", "--limit", "2")

    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["JOB", "STATUS", "%"]
    assert [line.split()[0] for line in lines[1:]] == [ids[2], ids[1]]
    assert "\x1b" not in result.stdout + result.stderr
    assert cli("jobs", "--status", "failed").stdout == ""
    assert json.loads(cli("jobs", "--tag", "no=such", "--json").stdout) == {"jobs": []}


def test_the_oldest_waiting_jobs_of_a_list_say_why_they_wait(cli: Cli, service: Standin) -> None:
    service.steps = (STEPS[0],) * 2  # the list itself has no reasons
    for _ in range(REASONS_SHOWN + 1):
        submitted(cli)

    newest, *oldest = cli("jobs").stdout.splitlines()[1:]

    assert all("no free slot" in line for line in oldest)
    assert len(oldest) == REASONS_SHOWN
    assert "no free slot" not in newest


def test_a_completed_job_is_listed_with_its_running_time(cli: Cli, service: Standin) -> None:
    times = {"started": "2026-01-02T03:04:00Z", "finished": "2026-01-02T03:05:15Z"}
    service.steps = (STEPS[4] | {"timestamps": {"created": times["started"], **times}},)
    cli("watch", submitted(cli))

    assert "ran 1 min 15 s" in cli("jobs", "--status", "all").stdout


def test_a_job_that_completed_after_a_failure_is_listed_without_it(cli: Cli, service: Standin) -> None:
    failure = FAILING[1]["failure"]
    service.steps = (STEPS[2] | {"failure": failure}, STEPS[4] | {"failure": failure})
    job_id = submitted(cli)
    cli("status", job_id)
    running = cli("jobs").stdout
    cli("watch", job_id)

    assert "bad_input: scan_03.ply is truncated" in running
    assert "truncated" not in cli("jobs", "--status", "all").stdout


def test_logs_health_and_load_print_what_the_service_says(cli: Cli) -> None:
    job_id = submitted(cli)

    assert cli("logs", job_id).stdout == "line 0\nline 1\nline 2\nline 3\nline 4\n"
    assert cli("logs", job_id, "--attempt", "1", "--tail", "1").stdout == "line 4\n"
    assert cli("health").stdout == "ready\n"
    load = cli("load").stdout
    assert re.search(r"linux-cpu +2 +1 +3", load)
    assert "agent-1" in load


def test_what_a_job_says_cannot_steer_the_terminal(cli: Cli, service: Standin) -> None:
    reason = {**FAILING[1]["failure"], "reason": "\x1b]0;owned\x07[bold]x[/bold]"}
    service.steps = ({"status": "failed", "failure": reason},)

    result = cli("submit", SOURCE, TARGET, "--wait")

    assert "\x1b" not in result.output
    assert "[bold]x[/bold]" in result.stdout


def test_sample_makes_scans_to_submit(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("scanfleet.sample", reason="needs the reference extra")

    result = cli("sample", tmp_path, "--scans", "6", "--points", "1000", "--json")

    assert result.exit_code == 0, result.stderr
    assert len(list(Path(json.loads(result.stdout)["scans_folder"]).iterdir())) == 6
    assert error_of(cli("sample", tmp_path, "--scans", "1", "--json"))["kind"] == "invalid"


def test_sample_without_its_extra_says_what_to_install(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scanfleet.sample", None)

    result = cli("sample", tmp_path)

    assert result.exit_code == ExitCode.INVALID
    assert "scanfleet[reference]" in result.stderr


# --- JSON and errors -------------------------------------------------------------------------------------


def test_every_verb_prints_one_json_document(cli: Cli) -> None:
    job_id = json.loads(cli("submit", SOURCE, TARGET, "--json").stdout)["job_id"]
    assert json.loads(cli("status", job_id, "--json").stdout)["job_id"] == job_id
    assert json.loads(cli("--json", "status", job_id).stdout)["job_id"] == job_id
    waited = cli("watch", job_id, "--json")
    assert json.loads(waited.stdout)["status"] == "completed"
    assert waited.stderr == ""
    assert json.loads(cli("jobs", "--status", "all", "--json").stdout)["jobs"][0]["job_id"] == job_id
    assert json.loads(cli("logs", job_id, "--json").stdout)["log"].startswith("line 0")
    assert json.loads(cli("health", "--json").stdout) == {"status": "ready"}
    assert json.loads(cli("load", "--json").stdout)["pools"]["linux-cpu"]["slots"] == 2


def test_each_kind_of_error_has_its_exit_code_and_is_json_on_request(cli: Cli, service: Standin) -> None:
    job_id = submitted(cli)
    cli("watch", job_id)
    for words, code in (
        (("status", new_job_id()), ExitCode.NOT_FOUND),
        (("cancel", job_id), ExitCode.CONFLICT),
        (("health", "--url", "http://127.0.0.1:9"), ExitCode.UNAVAILABLE),
        (("--url", "http://127.0.0.1:9", "health"), ExitCode.UNAVAILABLE),
        (("health", "--url", "nonsense"), ExitCode.INVALID),
        (("submit", SOURCE), ExitCode.INVALID),
        (("submit", SOURCE, TARGET, "--set", "Use GPU"), ExitCode.INVALID),
        (("submit", SOURCE, TARGET, "--time-limit", "soon"), ExitCode.INVALID),
        (("jobs", "--limit", "0"), ExitCode.INVALID),
        (("no-such-verb",), ExitCode.INVALID),
    ):
        plain, as_json = cli(*words), cli(*words, "--json")
        assert (plain.exit_code, plain.stdout) == (code, ""), words
        assert plain.stderr, words
        assert error_of(as_json)["exit_code"] == code, words


def test_a_refused_request_shows_field_value_and_what_is_allowed(cli: Cli) -> None:
    words = ("submit", SOURCE, TARGET, "--set", "Use GPUs=1")

    plain, as_json = cli(*words), cli(*words, "--json")

    assert plain.exit_code == ExitCode.INVALID
    for part in ("settings.Use GPUs: unknown setting", "got: 1", "allowed: Use GPU, Complete Type"):
        assert part in plain.stderr
    (field,) = error_of(as_json)["errors"]
    assert (field["field"], field["value"]) == ("settings.Use GPUs", "1")


def test_every_error_of_ours_has_a_code() -> None:
    assert exit_code_of(DownloadRefused("x")) == ExitCode.JOB_FAILED
    assert exit_code_of(ConfigurationError("x")) == ExitCode.INVALID
    assert exit_code_of(UnexpectedAnswer("x")) == ExitCode.UNAVAILABLE
    assert exit_code_of(LeaseLost("x")) == ExitCode.UNAVAILABLE


# --- Reading options -------------------------------------------------------------------------------------


def test_setting_values_are_json_scalars_or_text() -> None:
    texts = ["a=true", "b=3", "c=0.5", "d=null", 'e="3"', "f=two words", "g=", "h=[1]", "i=NaN", "j= k=v"]

    assert parse_settings(texts) == {
        "a": True, "b": 3, "c": 0.5, "d": None, "e": "3", "f": "two words", "g": "", "h": "[1]", "i": "NaN",
        "j": " k=v",
    }  # fmt: skip
    assert parse_tags(["n=3"]) == {"n": "3"}
    for wrong in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(typer.BadParameter):
            parse_settings(wrong)


def test_durations_are_read_with_their_units() -> None:
    for text, seconds in (
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("1h30m", 5400),
        ("0.5h", 1800),
        ("1m1.5", 61.5),
    ):
        assert parse_duration(text) == timedelta(seconds=seconds)
    for wrong in ("", "h", "1d", "-5", "1 h", "30m1h"):
        with pytest.raises(typer.BadParameter):
            parse_duration(wrong)


def test_completion_offers_every_state() -> None:
    assert set(STATUS_FILTERS) == {"active", "all", *JobState}


# --- As a process ----------------------------------------------------------------------------------------


def start(service: Standin, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from scanfleet.cli import main; main()", *words],
        env={**os.environ, "SCANFLEET_URL": service.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name == "nt", reason="SIGINT cannot be sent to one process there")
def test_ctrl_c_leaves_the_job_running_and_says_so(service: Standin) -> None:
    service.steps = (STEPS[2],)

    process = start(service, "submit", SOURCE, TARGET, "--wait")
    assert process.stderr is not None
    try:
        while "processing" not in (line := process.stderr.readline()):
            assert line, "it ended before the job ran"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()  # nothing, when it has ended

    (job,) = service.jobs.values()
    assert (process.returncode, out) == (ExitCode.INTERRUPTED, "")
    assert f"scanfleet watch {job['job_id']}" in err
    assert f"scanfleet cancel {job['job_id']}" in err
    assert "Traceback" not in err
    assert job["status"] == "processing"


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_gets_a_live_bar_with_the_stage(service: Standin) -> None:
    import pty

    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from scanfleet.cli import main; main()", "submit", SOURCE, TARGET, "--wait"],
        env={**os.environ, "SCANFLEET_URL": service.url, "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=end,
    )
    os.close(end)
    drawn = b""
    with open(terminal, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor has no path
        try:
            while piece := stream.read(4096):
                drawn += piece
        except OSError:
            pass  # what Linux answers once the other end is closed
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    for part in ("processing, align", "━", "40%", "completed", "100%"):
        assert part in drawn.decode()
    assert b"\x1b" not in out, "stdout is a pipe"


def test_asking_for_a_status_imports_nothing_heavy(service: Standin) -> None:
    script = "import sys; from scanfleet.cli import app; app(['status', 'X'], standalone_mode=False)"
    heavy = "boto3 botocore numpy scipy PIL fastapi small_gicp"
    check = f"print([m for m in '{heavy}'.split() if m in sys.modules])"

    found = subprocess.run(
        [sys.executable, "-c", f"{script}; {check}"],
        env={**os.environ, "SCANFLEET_URL": service.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "there is no job X" in found.stderr
    assert found.stdout == "[]\n"


def test_version_and_help_are_there(cli: Cli) -> None:
    assert re.fullmatch(r"scanfleet \d+\.\d+\.\d+\n", cli("--version").stdout)
    for words in (["--help"], *([verb, "-h"] for verb in VERBS)):
        assert cli(*words).exit_code == 0
    assert "Exit codes" in cli("--help").stdout


def test_the_address_is_the_same_by_default_everywhere() -> None:
    assert ClientSettings().url == DEFAULT_URL


# --- The documentation -----------------------------------------------------------------------------------


def test_every_verb_option_and_exit_code_is_documented(repo_root: Path) -> None:
    text = (repo_root / "docs" / "cli.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]

    assert set(commands) == VERBS
    for verb, command in commands.items():
        assert f"`scanfleet {verb}" in text, verb
        for option in (o for p in command.params for o in p.opts if o.startswith("--")):
            assert option in text, (verb, option)
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \|", text, re.M), code


def test_every_method_of_the_client_is_documented(repo_root: Path) -> None:
    text = (repo_root / "docs" / "python-client.md").read_text(encoding="utf-8")

    methods = {name for name in vars(Scanfleet) if not name.startswith("_")} - {"close"}
    assert not [name for name in methods if f"`{name}(" not in text]
