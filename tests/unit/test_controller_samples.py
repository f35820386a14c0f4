"""The controller's real code against an account: what CloudWatch holds after scripted minutes of a fleet."""

import logging
from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from scanfleet.contract import (
    AGENT_SILENT_AFTER,
    LAUNCH_HOOK_TIMEOUT,
    Metric,
    Pool,
    Priority,
    metric_namespace,
)
from scanfleet.settings import FleetSettings
from tests.support.fleet_account import STAGE, FleetAccount, fleet_account


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with fleet_account() as made:
        made.write_image("ami-00000000000000002")
        yield made


def refuse(client, operation: str, code: str = "InternalFailure"):
    """Have a service refuse one operation, as AWS spells refusals."""

    def answer(**_):
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    client.meta.events.register(f"before-call.*.{operation}", answer)
    return lambda: client.meta.events.unregister(f"before-call.*.{operation}", answer)


# --- A fleet's life ----------------------------------------------------------------------------------------


def test_an_empty_fleet_with_work_asks_for_machines_at_once(account: FleetAccount):
    account.submit(3)
    account.submit(1, Priority.HIGH)

    values = account.sample()

    assert values[Metric.BACKLOG] == 4
    assert values[Metric.BACKLOG_PER_SLOT] == 4
    assert values[Metric.INSTANCES] == values[Metric.SLOTS_IN_SERVICE] == 0
    assert values[Metric.FLEET_COST_PER_HOUR] == 0
    assert values[Metric.CONTROLLER_SAMPLES] == 1


def test_delayed_retries_wait_like_any_other_job(account: FleetAccount):
    account.submit(2, delay_seconds=600)

    assert account.sample()[Metric.BACKLOG] == 2


def test_booting_machines_are_counted_apart_until_they_serve(account: FleetAccount):
    account.submit(2)
    first, second = account.scale(2)
    account.set_state(first, "Pending:Wait")
    account.set_state(second, "Pending")

    booting = account.sample()
    account.report(first)
    account.report(second)
    for name in (first, second):
        account.set_state(name, "InService")
    serving = account.sample()

    assert (booting[Metric.SLOTS_BOOTING], booting[Metric.SLOTS_IN_SERVICE]) == (2, 0)
    assert (booting[Metric.BACKLOG_PER_SLOT], serving[Metric.BACKLOG_PER_SLOT]) == (2, 1)
    assert (serving[Metric.SLOTS_BOOTING], serving[Metric.SLOTS_IN_SERVICE]) == (0, 2)
    assert serving[Metric.FLEET_COST_PER_HOUR] == pytest.approx(1.42)


def test_a_busy_fleet_has_no_idle_machine_and_a_finished_one_has(account: FleetAccount):
    account.submit(2)
    first, second = account.scale(2)
    account.receive(2)
    account.report(first, busy=1)
    account.report(second, busy=1)

    busy = account.sample()
    account.report(first)
    account.report(second, busy=1)
    half = account.sample()

    assert (busy[Metric.IN_FLIGHT], busy[Metric.SLOTS_BUSY], busy[Metric.IDLE_INSTANCES]) == (2, 2, 0)
    assert (half[Metric.SLOTS_BUSY], half[Metric.IDLE_INSTANCES]) == (1, 1)


def test_a_draining_machine_takes_nothing_but_still_works(account: FleetAccount):
    (leaving,) = account.scale(1)
    account.set_state(leaving, "Terminating:Wait")
    account.report(leaving, busy=1, is_stopping=True)
    account.submit(1)

    values = account.sample()

    assert values[Metric.SLOTS_IN_SERVICE] == 0
    assert values[Metric.SLOTS_BUSY] == 1
    assert values[Metric.BACKLOG_PER_SLOT] == 1
    assert values[Metric.INSTANCES] == 1


def test_a_dead_agents_slots_are_gone_once_its_report_is_old(account: FleetAccount):
    (machine,) = account.scale(1)
    account.report(machine, busy=1)
    assert account.sample()[Metric.SLOTS_BUSY] == 1

    account.clock.forward(AGENT_SILENT_AFTER)
    dead = account.sample()

    assert (dead[Metric.SLOTS_IN_SERVICE], dead[Metric.SLOTS_BUSY], dead[Metric.IDLE_INSTANCES]) == (0, 0, 0)


def test_a_machine_whose_agent_never_comes_stops_booting_and_may_go(account: FleetAccount):
    account.scale(2)
    young = account.sample()

    account.clock.forward(LAUNCH_HOOK_TIMEOUT)
    overdue = account.sample()

    assert (young[Metric.SLOTS_BOOTING], young[Metric.IDLE_INSTANCES]) == (2, 0)
    assert (overdue[Metric.SLOTS_BOOTING], overdue[Metric.IDLE_INSTANCES]) == (0, 2)


# --- What those who wait are told --------------------------------------------------------------------------


def test_each_sample_reports_the_groups_size_and_what_boots(account: FleetAccount):
    account.submit(3)
    serving, _ = account.scale(2)
    account.report(serving)

    account.sample()

    (report,) = account.fleet_reports.fresh().values()
    group = account.group()
    assert (report.desired, report.minimum, report.maximum) == (2, group["MinSize"], group["MaxSize"])
    assert (report.in_service, report.booting) == (1, 1)
    assert abs(account.clock() - report.booting_since) < 600, "since its launch"
    assert report.sampled_at == account.clock()
    assert not report.is_blocked


def test_an_old_report_tells_nothing(account: FleetAccount):
    account.sample()
    account.clock.forward(timedelta(minutes=3))

    assert account.fleet_reports.fresh() == {}


def test_a_report_of_another_version_tells_nothing(account: FleetAccount, caplog):
    item = {"pk": {"S": "FLEETS"}, "sk": {"S": "FLEET#windows-gpu"}, "report": {"S": '{"what": "ever"}'}}
    account.client["dynamodb"].put_item(TableName="jobs", Item=item)

    assert account.fleet_reports.fresh() == {}
    assert caplog.records[-1].action == "report_not_understood"


def test_a_report_that_cannot_be_written_does_not_hold_up_scaling(account: FleetAccount, caplog):
    account.submit(1)
    refuse(account.client["dynamodb"], "PutItem")

    values = account.sample()

    assert values[Metric.BACKLOG] == 1
    assert "fleet_not_reported" in {getattr(record, "action", "") for record in caplog.records}


def test_scaling_has_its_numbers_before_anybody_else_and_whatever_becomes_of_the_report(
    account: FleetAccount, caplog, monkeypatch
):
    order = []
    for service, operation in (("cloudwatch", "PutMetricData"), ("dynamodb", "PutItem")):
        account.client[service].meta.events.register(
            f"before-call.{service}.{operation}", lambda model, **_: order.append(model.name)
        )
    account.sample()
    assert order == ["PutMetricData", "PutItem"]

    def fail(_facts):
        raise ZeroDivisionError

    monkeypatch.setattr("scanfleet.controller.controller.fleet_report", fail)
    assert account.sample()[Metric.CONTROLLER_SAMPLES] == 1
    assert "fleet_not_reported" in {getattr(record, "action", "") for record in caplog.records}


# --- Publishing --------------------------------------------------------------------------------------------


def test_samples_are_of_high_resolution_and_have_the_pools_dimension(account: FleetAccount):
    sent = []
    account.client["cloudwatch"].meta.events.register(
        "provide-client-params.cloudwatch.PutMetricData", lambda params, **_: sent.append(params)
    )

    account.sample()

    (request,) = sent
    assert request["Namespace"] == metric_namespace(STAGE)
    assert {datum["StorageResolution"] for datum in request["MetricData"]} == {1}
    assert {d["Value"] for datum in request["MetricData"] for d in datum["Dimensions"]} == {"windows-gpu"}


def test_a_type_without_a_price_is_said_once_and_left_out(account: FleetAccount, caplog):
    account.controller = account.make_controller(region="mars-north-1")
    account.scale(1)

    first, second = account.sample(), account.sample()

    assert Metric.FLEET_COST_PER_HOUR not in first | second
    assert [r.action for r in caplog.records].count("price_unknown") == 1


# --- Failures ----------------------------------------------------------------------------------------------


def test_a_pool_that_fails_hides_no_other_and_its_silence_counts(account: FleetAccount, caplog):
    account.fleets[Pool.LINUX_CPU] = FleetSettings(group="no-such-group", slots=1)
    account.submit(1)

    values = account.sample()

    assert values[Metric.BACKLOG] == 1
    assert account.published(Pool.LINUX_CPU) == {}
    failed = [r for r in caplog.records if getattr(r, "action", "") == "sample_failed"]
    assert [r.pool for r in failed] == [Pool.LINUX_CPU]


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("sqs", "GetQueueAttributes"),
        ("dynamodb", "Query"),
        ("autoscaling", "DescribeAutoScalingGroups"),
        ("ec2", "DescribeInstances"),
        ("cloudwatch", "PutMetricData"),
    ],
)
def test_a_service_that_fails_costs_samples_not_the_controller(
    account: FleetAccount, service, operation, caplog
):
    account.scale(1)
    caplog.set_level(logging.ERROR)
    undo = refuse(account.client[service], operation)

    assert Metric.CONTROLLER_SAMPLES not in account.sample()
    undo()

    assert account.sample()[Metric.CONTROLLER_SAMPLES] == 1
    assert {r.action for r in caplog.records} <= {"sample_failed", "publish_failed"}


# --- Before the first image --------------------------------------------------------------------------------


def test_before_the_first_image_nobody_boots_a_bare_machine(caplog):
    with fleet_account() as seeded:
        seeded.submit(5)

        blocked = seeded.sample()
        seeded.controller.roll_out()
        seeded.write_image("ami-00000000000000002")
        built = seeded.sample()

    assert (blocked[Metric.BACKLOG], blocked[Metric.BACKLOG_PER_SLOT]) == (5, 0)
    assert blocked[Metric.CONTROLLER_SAMPLES] == 1
    assert "fleet_blocked" in {r.action for r in caplog.records}
    assert built[Metric.BACKLOG_PER_SLOT] == 5


def test_once_an_image_was_built_its_parameter_is_not_asked_for_each_sample(account: FleetAccount):
    account.sample()
    undo = refuse(account.client["ssm"], "GetParameter")

    assert account.sample()[Metric.CONTROLLER_SAMPLES] == 1
    undo()


def test_the_metrics_second_is_the_samples(account: FleetAccount):
    account.sample()
    account.clock.forward(timedelta(seconds=1))

    assert account.published() == {}
