"""The alarms: each has a section of the runbook, tells somebody, and rings when it should and not before."""

import re
from collections.abc import Callable, Iterator

import pytest

from cdk.alarms import BAD_INPUT, COMPLETED, FAILED, HANG, PROCESSING
from scanfleet.contract import (
    ROLLBACK_ALARMS,
    Alarm,
    Dimension,
    Metric,
    Pool,
    alarm_name,
    metric_namespace,
)
from scanfleet.jobs import FailureClass, JobState
from tests.support.cloudwatch_alarms import AlarmClock, MetricId, Samples, State, read_alarm
from tests.support.monitoring import SETTINGS, alarms
from tests.support.template import Resource, StackTemplate

POOL = Pool.WINDOWS_GPU
OF_ALL = {
    Alarm.API_ERRORS,
    Alarm.API_CRASHES,
    Alarm.API_THROTTLES,
    Alarm.EVENTS_LATE,
    Alarm.IMAGE_BUILD_FAILED,
    Alarm.BUDGET,
}
OF_A_POOL = set(Alarm) - OF_ALL
METRIC_MATH = {Alarm.HANG_RATE, Alarm.FAILURE_RATE, Alarm.NO_HEALTHY_AGENT, Alarm.DURATION_DRIFT}


@pytest.fixture(scope="session")
def monitoring(stack) -> StackTemplate:
    return stack("dev", "monitoring", **SETTINGS)


def alarm_of(template: StackTemplate, alarm: Alarm, pool: Pool | None = None) -> Resource:
    return alarms(template)[alarm_name("dev", alarm, pool)]


def test_the_words_of_the_alarms_are_the_runtimes():
    assert {HANG, BAD_INPUT} == {FailureClass.HANG, FailureClass.BAD_INPUT}
    assert {PROCESSING, COMPLETED, FAILED} == {JobState.PROCESSING, JobState.COMPLETED, JobState.FAILED}


def test_there_is_every_alarm_of_the_contract(monitoring):
    budget = monitoring.only("AWS::Budgets::Budget").properties["Budget"]["BudgetName"]
    expected = {alarm_name("dev", a, POOL if a in OF_A_POOL else None) for a in Alarm}

    assert {*alarms(monitoring), budget} == expected


def test_the_local_stage_leaves_out_what_its_emulator_refuses_and_no_more(stack):
    local = stack("local", "monitoring")
    kinds = {resource.kind for resource in local.resources()}
    left_out = {alarm_name("local", a, p) for a in METRIC_MATH for p in Pool}
    everything = {alarm_name("local", a, p) for a in OF_A_POOL for p in Pool}

    assert not kinds & {
        "AWS::Logs::QueryDefinition",
        "AWS::Budgets::Budget",
        "AWS::CloudWatch::CompositeAlarm",
    }
    assert not any("Metrics" in a.properties for a in local.all("AWS::CloudWatch::Alarm"))
    assert everything - set(alarms(local)) == left_out


def test_every_alarm_leads_to_a_section_of_the_runbook(repo_root, monitoring):
    runbook = (repo_root / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = {
        re.sub(r"[^\w -]", "", line).strip(" #").lower().replace(" ", "-") for line in headings(runbook)
    }

    for name, alarm in alarms(monitoring).items():
        link = re.search(r"Runbook: docs/runbook\.md#([\w-]+)$", alarm.properties["AlarmDescription"])
        assert link, name
        assert link[1] in sections, f"{name} leads to #{link[1]}"
    assert Alarm.BUDGET in sections


def headings(markdown: str) -> Iterator[str]:
    return (line.lstrip("#") for line in markdown.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("alarm", Alarm)
def test_every_section_of_an_alarm_tells_what_to_do(repo_root, alarm):
    runbook = (repo_root / "docs" / "runbook.md").read_text(encoding="utf-8")
    section = runbook.partition(f"\n### {alarm}\n")[2].partition("\n### ")[0].partition("\n## ")[0]

    for part in ("Means", "Users feel", "Look first", "Likely causes", "Fix", "Over when"):
        assert f"**{part}.**" in section, f"{alarm} lacks {part}"


def test_every_alarm_tells_people_when_it_rings_and_when_it_is_over(monitoring):
    topic = {"Ref": monitoring.only("AWS::SNS::Topic").logical_id}

    for name, alarm in alarms(monitoring).items():
        assert alarm.properties["AlarmActions"] == [topic], name
        assert alarm.properties["OKActions"] == [topic], name


def test_every_alarm_says_what_no_data_means(monitoring):
    for name, alarm in alarms(monitoring).items():
        assert alarm.properties["TreatMissingData"] in {"breaching", "notBreaching"}, name
        assert "No data: " in alarm.properties["AlarmDescription"], name


@pytest.mark.parametrize("name", ["network", "data", "image", "api", "fleet"])
def test_alarms_of_other_stacks_only_scale(stack, name):
    template = stack("dev", name, **SETTINGS)
    policies = {p.logical_id for p in template.all("AWS::AutoScaling::ScalingPolicy")}

    for alarm in alarms(template).values():
        assert {action["Ref"] for action in alarm.properties["AlarmActions"]} <= policies


def test_the_alarms_that_take_a_rollout_back_exist(monitoring):
    names = set(alarms(monitoring))

    assert {alarm_name("dev", a, POOL) for a in ROLLBACK_ALARMS} <= names


# --- When they ring ----------------------------------------------------------------------------------------


class Watch:
    """One alarm and the samples that it sees, second 0 being the start of a period of every length."""

    def __init__(self, resource: Resource) -> None:
        self._clock = AlarmClock(read_alarm(resource))
        self._samples = Samples()

    def publish(self, metric: Metric, *values: float, at: float = 1.0, **dimensions: str) -> None:
        """Publish values one after the other within a second."""
        names = {Dimension[name.upper()].value: value for name, value in dimensions.items()}
        names[Dimension.POOL.value] = POOL.value
        found = MetricId(metric_namespace("dev"), metric.value, tuple(sorted(names.items())))
        for value in values:
            self._samples.publish(found, at=at, value=value)

    def after(self, minutes: float) -> State:
        """Return the alarm's state when it was evaluated each minute until then."""
        for second in range(60, int(minutes * 60) + 1, 60):
            self._clock.tick(self._samples, now=second)
        return self._clock.state


@pytest.fixture
def watch(monitoring) -> Callable[[Alarm], Watch]:
    return lambda alarm: Watch(alarm_of(monitoring, alarm, POOL))


@pytest.mark.parametrize(
    ("runs", "retried", "failed", "rings"),
    [
        (1, 1, 0, False),
        (2, 1, 1, True),
        (5, 1, 0, False),
        (20, 5, 0, False),
        (20, 4, 2, True),
        (20, 0, 0, False),
    ],
)
def test_the_hang_rate_rings_above_a_quarter_and_never_for_a_single_hang(watch, runs, retried, failed, rings):
    watched = watch(Alarm.HANG_RATE)
    watched.publish(Metric.STATE_DURATION, *[600.0] * runs, state="processing")
    watched.publish(Metric.JOB_RETRIED, *[1.0] * retried, failure_class="hang")
    watched.publish(Metric.JOB_FAILED, *[1.0] * failed, failure_class="hang")

    assert watched.after(60) is (State.ALARM if rings else State.OK)


@pytest.mark.parametrize(
    ("done", "failed", "bad_input", "rings"),
    [
        (0, 1, 0, False),
        (0, 2, 0, True),
        (10, 3, 0, False),
        (10, 4, 0, True),
        (0, 9, 9, False),
        (5, 9, 2, True),
    ],
)
def test_the_failure_rate_leaves_out_what_clients_did_wrong(watch, done, failed, bad_input, rings):
    watched = watch(Alarm.FAILURE_RATE)
    watched.publish(Metric.JOB_FINISHED, *[1.0] * done, state="completed")
    watched.publish(Metric.JOB_FINISHED, *[1.0] * failed, state="failed")
    watched.publish(Metric.JOB_FAILED, *[1.0] * bad_input, failure_class="bad_input")

    percent = 100 * (failed - bad_input) / max(done + failed, 5)
    assert (percent > 25) is rings, "the case itself"
    assert watched.after(60) is (State.ALARM if rings else State.OK)


@pytest.mark.parametrize(
    ("ratios", "rings"),
    [
        ([1.4] * 8, True),
        ([1.1] * 8, False),
        ([1.4] * 5, False),  # too few to tell it from chance
        ([1.0] * 5 + [3.0] * 3, False),  # some are slow, not half of them
    ],
)
def test_programs_that_all_take_longer_for_an_hour_ring(watch, ratios, rings):
    watched = watch(Alarm.DURATION_DRIFT)
    for half_hour in range(2):
        watched.publish(Metric.DURATION_RATIO, *ratios, at=half_hour * 1800)

    assert watched.after(60) is (State.ALARM if rings else State.OK)


def test_one_slow_half_hour_does_not_ring(watch):
    watched = watch(Alarm.DURATION_DRIFT)
    watched.publish(Metric.DURATION_RATIO, *[1.0] * 8)
    watched.publish(Metric.DURATION_RATIO, *[1.6] * 8, at=1800)

    assert watched.after(60) is State.OK


@pytest.mark.parametrize(("slots_from_minute", "rings"), [(20, False), (None, True)])
def test_waiting_jobs_ring_only_when_no_agent_comes_within_a_boot(watch, slots_from_minute, rings):
    watched = watch(Alarm.NO_HEALTHY_AGENT)
    for minute in range(35):
        serves = slots_from_minute is not None and minute >= slots_from_minute
        watched.publish(Metric.BACKLOG, 3.0, at=minute * 60)
        watched.publish(Metric.SLOTS_IN_SERVICE, float(serves), at=minute * 60)

    assert watched.after(35) is (State.ALARM if rings else State.OK)


def test_an_empty_fleet_without_work_is_fine(watch):
    watched = watch(Alarm.NO_HEALTHY_AGENT)
    for minute in range(40):
        watched.publish(Metric.BACKLOG, 0.0, at=minute * 60)
        watched.publish(Metric.SLOTS_IN_SERVICE, 0.0, at=minute * 60)

    assert watched.after(40) is State.OK


def test_a_silent_controller_rings_within_minutes_and_a_short_gap_does_not(watch):
    gap = watch(Alarm.CONTROLLER_SILENT)
    for minute in (0, 1, 2, 5, 6):
        gap.publish(Metric.CONTROLLER_SAMPLES, 1.0, at=minute * 60)
    silent = watch(Alarm.CONTROLLER_SILENT)
    silent.publish(Metric.CONTROLLER_SAMPLES, 1.0, at=0)

    assert gap.after(5) is State.OK
    # CloudWatch looks at a few older datapoints, too, before it believes in silence.
    assert silent.after(6) is State.ALARM


@pytest.mark.parametrize(("failures", "rings"), [(1, False), (2, True)])
def test_one_failed_boot_is_replaced_in_silence_and_two_ring(watch, failures, rings):
    watched = watch(Alarm.BOOT_FAILURES)
    watched.publish(Metric.BOOT_FAILED, *[1.0] * failures)

    assert watched.after(30) is (State.ALARM if rings else State.OK)


def test_the_oldest_job_may_wait_for_a_boot_and_two_jobs(monitoring):
    normal, urgent = (
        alarm_of(monitoring, alarm, POOL).properties for alarm in (Alarm.OLDEST_JOB, Alarm.OLDEST_URGENT_JOB)
    )

    assert normal["Threshold"] >= (25 + 2 * 15) * 60
    assert (25 + 15) * 60 <= urgent["Threshold"] < normal["Threshold"]
