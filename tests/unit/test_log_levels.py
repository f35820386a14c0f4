"""Log levels from outside: the rules, where they are kept, and what a process makes of them."""

import io
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from typer.testing import CliRunner

from scanfleet import cli
from scanfleet.contract import (
    NO_LOG_LEVELS,
    Component,
    Dimension,
    Metric,
    Parameter,
    Pool,
    parameter_name,
)
from scanfleet.errors import Conflict, NotFound, Unavailable
from scanfleet.log_context import bound
from scanfleet.log_levels import COMPONENTS, LEVELS, Rule, Scope, dump, levels_for, merge, parse
from scanfleet.log_levels_keeper import LOOK_EVERY, LevelKeeper
from scanfleet.log_levels_store import LIMIT_BYTES, LogLevelRules
from scanfleet.log_setup import JsonFormatter, Verbosity, configure_logging
from scanfleet.settings import AgentSettings
from scanfleet.telemetry import metrics

NOW = 1_800_000_000.0
NAME = parameter_name("dev", Parameter.LOG_LEVELS)
JOB, OTHER = "01J00000000000000000000000", "01J00000000000000000000001"


def rule(scope=Scope.JOB, name=JOB, level="DEBUG", *, until=NOW + 60, at=NOW):
    return Rule(scope, name, level, until=until, at=at)


rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from(Scope),
        st.sampled_from(["a", "b"]),
        st.sampled_from([*LEVELS, None]),
        until=st.sampled_from([NOW - 1, NOW + 5, NOW + 60]),
        at=st.integers(0, 3).map(lambda seconds: NOW - seconds),
    ),
    max_size=6,
)

# --- Rules -------------------------------------------------------------------------------------------------


@given(rules, rules, rules)
def test_documents_can_be_merged_in_any_order_and_more_than_once(a, b, c):
    merged = merge(a, b, c, now=NOW)

    assert merged == merge(c, a, b, now=NOW) == merge(merge(a, b, now=NOW), c, a, now=NOW)
    assert merged == merge(merged, now=NOW)


@given(rules)
def test_what_is_written_is_what_is_read(listed):
    assert parse(dump(listed)) == tuple(listed)


@pytest.mark.parametrize("text", ["", "[]", "{}", "7", '{"rules":[{}]}', '{"rules":[{"job":"x","level":7}]}'])
def test_what_is_no_document_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own for some
        parse(text)


def test_a_machines_rule_goes_before_its_components():
    found = levels_for(
        [rule(Scope.COMPONENT, "agent", "ERROR"), rule(Scope.MACHINE, "i-1"), rule(Scope.MACHINE, "i-2")],
        component=Component.AGENT,
        machines={"i-1"},
        now=NOW,
    )

    assert found.own == "DEBUG"


def test_rules_of_others_expired_ones_and_those_taken_back_do_not_hold():
    found = levels_for(
        [
            rule(Scope.COMPONENT, "api"),
            rule(Scope.MACHINE, "i-2"),
            rule(Scope.COMPONENT, "agent", until=NOW),
            rule(level=None),
        ],
        component=Component.AGENT,
        machines={"i-1"},
        now=NOW,
    )

    assert (found.own, found.jobs) == (None, {})


# --- What is written ---------------------------------------------------------------------------------------


@pytest.fixture
def logger():
    """Our own logger, whose lines go through a Verbosity as started with INFO."""
    ours = logging.getLogger("scanfleet")
    before = ours.level
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(Component.AGENT, stage="dev"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel("INFO")
    handler.verbosity = Verbosity("INFO")
    handler.addFilter(handler.verbosity)
    handler.lines = lambda: [json.loads(text)["message"] for text in stream.getvalue().splitlines()]
    yield handler
    ours.setLevel(before)


def say():
    log = logging.getLogger("scanfleet.agent.x")
    log.debug("nobody's")
    with bound(job_id=JOB):
        log.debug("job's")
    log.debug("about the job", extra={"job_id": JOB})
    with bound(job_id=OTHER):
        log.debug("other's")
        log.info("other's news")
    logging.getLogger("botocore.auth").debug("a signature")


def test_a_jobs_rule_makes_exactly_its_lines_verbose(logger):
    logger.verbosity.set(None, {JOB: "DEBUG"})
    say()

    assert logger.lines() == ["job's", "about the job", "other's news"]


def test_a_jobs_rule_can_also_silence_it(logger):
    logger.verbosity.set("DEBUG", {OTHER: "ERROR"})
    say()

    assert logger.lines() == ["nobody's", "job's", "about the job"]


def test_libraries_are_never_made_verbose_and_all_is_as_before_afterwards(logger):
    logger.verbosity.set("DEBUG", {})
    say()
    assert logger.lines() == ["nobody's", "job's", "about the job", "other's", "other's news"]

    logger.verbosity.set(None, {})
    say()
    assert logger.lines()[5:] == ["other's news"]
    assert not logging.getLogger("scanfleet").isEnabledFor(logging.DEBUG)


def test_lines_that_carry_metrics_are_written_by_a_silenced_process_too(logger):
    logger.verbosity.set("ERROR", {})
    say()
    counted = metrics({Metric.BREAKER_OPENED: 1}, {Dimension.POOL: Pool.LINUX_CPU.value})
    logging.getLogger("scanfleet.x").info("counted", extra=counted)

    assert logger.lines() == ["counted"]


@pytest.mark.parametrize("level", ["WARNING", "CRITICAL"])
def test_metrics_are_written_by_a_process_that_was_started_with_a_high_level_too(level):
    stream = io.StringIO()
    configure_logging(Component.AGENT, level, stage="dev", stream=stream)
    say()
    counted = metrics({Metric.BREAKER_OPENED: 1}, {Dimension.POOL: Pool.LINUX_CPU.value})
    logging.getLogger("scanfleet.x").info("counted", extra=counted)
    configure_logging(Component.AGENT, "INFO", stage="dev", stream=stream)
    say()

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "counted",
        "other's news",
    ]


# --- Where rules are kept ----------------------------------------------------------------------------------


@pytest.fixture
def ssm():
    with mock_aws():
        client = boto3.client(
            "ssm", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
        client.put_parameter(Name=NAME, Value=NO_LOG_LEVELS, Type="String")
        yield client


def kept(ssm, clock=lambda: NOW):
    return LogLevelRules(lambda: ssm, "dev", clock=clock)


def test_operators_at_once_lose_nothing(ssm):
    """Each reads before the others write, so that everybody writes over somebody."""
    names = [f"i-{number}" for number in range(8)]
    all_have_read = threading.Barrier(len(names))
    lock = threading.Lock()  # moto's answers are not made for threads

    class Slow:
        exceptions = ssm.exceptions
        first = threading.local()

        def get_parameter(self, **asked):
            with lock:
                found = ssm.get_parameter(**asked)
            if not getattr(self.first, "is_over", False):
                self.first.is_over = True
                all_have_read.wait(30)
            return found

        def put_parameter(self, **asked):
            with lock:
                return ssm.put_parameter(**asked)

        def get_paginator(self, name):
            with lock:
                return ssm.get_paginator(name)

    def set_one(name):
        return kept(Slow()).put([rule(Scope.MACHINE, name)])

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(set_one, names))

    assert sorted(found.name for found in kept(ssm).live()) == names


def test_two_operators_who_always_write_in_turn_come_to_an_end(ssm):
    """One of them writes right after each write of the other, and so over what the other has just written."""

    class Turns:
        exceptions = ssm.exceptions
        get_parameter, get_paginator = staticmethod(ssm.get_parameter), staticmethod(ssm.get_paginator)
        writes = 0

        def put_parameter(self, **asked):
            Turns.writes += 1
            if Turns.writes <= 40:
                theirs = merge(kept(ssm).read(), [rule(Scope.MACHINE, "theirs")], now=NOW)
                ssm.put_parameter(Name=NAME, Value=dump(theirs), Type="String", Overwrite=True)
            answer = ssm.put_parameter(**asked)
            if Turns.writes <= 40:
                both = merge(parse(asked["Value"]), theirs, now=NOW)
                ssm.put_parameter(Name=NAME, Value=dump(both), Type="String", Overwrite=True)
            return answer

    levels = LogLevelRules(Turns, "dev", clock=lambda: NOW, pause=lambda _seconds: None)
    held = levels.put([rule(Scope.MACHINE, "mine")])

    assert sorted(found.name for found in held) == ["mine", "theirs"]
    assert sorted(found.name for found in kept(ssm).live()) == ["mine", "theirs"]


def test_a_rule_replaces_the_one_before_although_its_operators_clock_is_behind(ssm):
    kept(ssm).put([rule(level="DEBUG", at=NOW)])
    kept(ssm).put([rule(level="ERROR", at=NOW - 30)])

    assert [found.level for found in kept(ssm).live()] == ["ERROR"]


def test_expired_rules_are_dropped_with_the_next_write(ssm):
    kept(ssm).put([rule(name="a", until=NOW + 5)])
    kept(ssm, clock=lambda: NOW + 10).put([rule(name="b")])

    assert [found.name for found in kept(ssm).read()] == ["b"]


def test_a_parameter_that_is_full_is_said_to_be_and_stays_as_it_was(ssm):
    many = [rule(Scope.MACHINE, f"i-{number:017d}") for number in range(30)]
    kept(ssm).put(many)

    with pytest.raises(Conflict, match=f"holds {LIMIT_BYTES}"):
        kept(ssm).put([rule(Scope.MACHINE, f"i-{number:017d}") for number in range(30, 60)])
    assert len(kept(ssm).live()) == 30


def test_a_stage_that_is_not_there_is_not_found(ssm):
    with pytest.raises(NotFound, match="is not deployed"):
        LogLevelRules(lambda: ssm, "prod", clock=lambda: NOW).read()


# --- The keeper --------------------------------------------------------------------------------------------


class Kept:
    """Rules of which each look says what is next: some, or an error."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.looks = 0

    def read(self):
        self.looks += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Applied:
    base = "INFO"

    def __init__(self):
        self.seen = []
        self.changed = threading.Condition()

    def set(self, own, jobs):
        with self.changed:
            self.seen.append((own, dict(jobs)))
            self.changed.notify_all()

    def await_count(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.seen) >= count, 60), self.seen


def keeper(source, applied, *, clock=lambda: NOW, every=LOOK_EVERY):
    return LevelKeeper(
        source,
        applied,
        component=Component.AGENT,
        machines={"i-1"},
        look_every=every,
        clock=clock,
    )


def test_a_change_takes_effect_well_within_half_a_minute():
    assert timedelta(seconds=15) >= LOOK_EVERY
    assert AgentSettings.model_fields["log_level_look_seconds"].default == LOOK_EVERY.total_seconds()


def test_rules_hold_on_while_they_cannot_be_read_and_that_is_said_once(caplog):
    applied = Applied()
    keeps = keeper(Kept([rule()], Unavailable("away"), Unavailable("still")), applied)
    for _ in range(3):
        keeps.look()

    assert applied.seen == [(None, {JOB: "DEBUG"})]
    assert [r.action for r in caplog.records] == ["log_levels_changed", "log_levels_not_read"]


def test_rules_that_cannot_be_read_any_more_expire_nevertheless():
    applied, now = Applied(), [NOW]
    keeps = keeper(Kept([rule(until=NOW + 60)], Unavailable("away")), applied, clock=lambda: now[0])
    keeps.look()
    now[0] += 61
    keeps.look()

    assert applied.seen == [(None, {JOB: "DEBUG"}), (None, {})]


@pytest.mark.parametrize("answer", [ValueError("no document"), NotFound("no parameter"), RuntimeError("?")])
def test_no_look_ever_raises(answer):
    applied = Applied()
    keeper(Kept(answer), applied).look()

    assert applied.seen == []


def test_looks_in_passing_are_rare():
    source = Kept([])
    keeps = keeper(source, Applied())
    for _ in range(100):
        keeps.look_if_due()

    assert source.looks == 1


def test_who_wants_no_looks_has_none():
    source = Kept([])
    keeps = keeper(source, Applied(), every=timedelta())
    keeps.start()
    keeps.look_if_due()
    keeps.stop()

    assert source.looks == 0


def test_the_thread_ends_a_rule_when_it_expires_not_at_the_next_look():
    applied = Applied()
    until = time.time() + 0.5
    keeps = keeper(Kept([rule(until=until)]), applied, clock=time.time, every=timedelta(hours=1))
    keeps.start()
    applied.await_count(2)
    keeps.stop()

    assert applied.seen == [(None, {JOB: "DEBUG"}), (None, {})]
    assert time.time() >= until


# --- The command line --------------------------------------------------------------------------------------


@pytest.fixture
def run(ssm, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(cli.app, ["loglevel", *words])


def test_an_operator_sets_shows_and_clears_a_level(run):
    assert run("set", "debug", "--stage", "dev", "--job", JOB, "--for", "10m").exit_code == 0
    assert run("set", "ERROR", "--stage", "dev", "--component", "api").exit_code == 0
    shown = json.loads(run("show", "--stage", "dev", "--json").stdout)["levels"]
    assert [(row["scope"], row["name"], row["level"]) for row in shown] == [
        ("component", "api", "ERROR"),
        ("job", JOB, "DEBUG"),
    ]

    run("clear", "--stage", "dev", "--component", "api")
    assert [row["name"] for row in json.loads(run("show", "--stage", "dev", "--json").stdout)["levels"]] == [
        JOB
    ]
    run("clear", "--stage", "dev", "--all")
    assert json.loads(run("show", "--stage", "dev", "--json").stdout) == {"levels": []}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["LOUD", "--job", JOB], "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        (["DEBUG"], "one of --component, --machine and --job"),
        (["DEBUG", "--job", JOB, "--machine", "i-1"], "one of --component, --machine and --job"),
        (["DEBUG", "--component", "jobs"], ", ".join(COMPONENTS)),
        (["DEBUG", "--job", "7"], "26 characters"),
        (["DEBUG", "--machine", ""], "1 to 128 characters"),
        (["DEBUG", "--machine", "i\x1b[2J"], "1 to 128 characters"),
        (["DEBUG", "--job", JOB, "--for", "0s"], "1s to 168h"),
        (["DEBUG", "--job", JOB, "--for", "1000h"], "1s to 168h"),
    ],
)
def test_what_cannot_be_set_is_refused_with_what_can(run, ssm, words, told):
    answer = run("set", *words, "--stage", "dev")

    assert answer.exit_code == 2
    assert told in answer.output
    assert ssm.get_parameter(Name=NAME)["Parameter"]["Version"] == 1


def test_a_document_that_is_not_ours_is_not_overwritten(run, ssm):
    ssm.put_parameter(Name=NAME, Value="somebody's", Type="String", Overwrite=True)

    assert run("set", "DEBUG", "--stage", "dev", "--job", JOB).exit_code == 4
    assert ssm.get_parameter(Name=NAME)["Parameter"]["Value"] == "somebody's"
