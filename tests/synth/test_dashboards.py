"""The dashboards: bodies that CloudWatch takes, without overlaps, holes or unknown alarms."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from cdk.dashboards_parts import ENDINGS
from cdk.metrics import scanfleet_search
from scanfleet.contract import Dimension, Metric
from scanfleet.jobs import TERMINAL_STATES
from tests.support.dashboards import ShownMetric, WrongDashboard, check_dashboard, check_search
from tests.support.monitoring import SETTINGS, alarms, bodies
from tests.support.template import StackTemplate


@pytest.fixture(scope="session")
def monitoring(stack) -> StackTemplate:
    return stack("dev", "monitoring", **SETTINGS)


def test_there_is_a_dashboard_for_each_view_and_each_pool(stack, monitoring):
    topics = ("fleet", "jobs", "releases", "api", "pool-windows-gpu")
    local = bodies(stack("local", "monitoring"))

    assert set(bodies(monitoring)) == {f"scanfleet-dev-{topic}" for topic in topics}
    assert {"scanfleet-local-pool-windows-gpu", "scanfleet-local-pool-linux-cpu"} <= set(local)


@pytest.mark.parametrize("stage", ["dev", "prod", "local"])
def test_every_dashboard_is_one_that_cloudwatch_takes(stack, stage):
    for name, body in bodies(stack(stage, "monitoring")).items():
        assert check_dashboard(body), name


def test_widgets_leave_no_holes_in_a_row(monitoring):
    for name, body in bodies(monitoring).items():
        rows: dict[int, int] = {}
        for widget in json.loads(body)["widgets"]:
            rows[widget["y"]] = rows.get(widget["y"], 0) + widget["width"]
        assert set(rows.values()) == {24}, name


def test_alarm_widgets_show_alarms_that_exist(stack, monitoring):
    by_id = {a.logical_id: name for name, a in alarms(monitoring).items()}
    scaling = stack("dev", "fleet", **SETTINGS)
    known = {*by_id.values(), *alarms(scaling)}

    for name, body in bodies(monitoring).items():
        for widget in json.loads(body)["widgets"]:
            for arn in widget["properties"].get("alarms", []):
                own = re.fullmatch(r"<\{Fn::GetAtt: \[(\w+), Arn\]\}>", arn)
                shown = by_id[own[1]] if own else arn.rpartition(":")[2]
                assert shown in known, (name, shown)


def test_values_without_bound_are_searched_for_and_never_written_out(monitoring):
    open_ended = {Dimension.STAGE, Dimension.ROUTE}

    for body in bodies(monitoring).values():
        for metric in check_dashboard(body):
            assert not any(metric.dimensions.get(name) for name in open_ended), metric


FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wider than the grid": lambda w: w.update(x=20, width=8),
    "over its neighbour": lambda w: w.update(y=w["y"] - 1),
    "no region": lambda w: w["properties"].pop("region"),
    "unknown view": lambda w: w["properties"].update(view="lines"),
    "unknown type": lambda w: w.update(type="graph"),
    "finer than what is kept": lambda w: w["properties"].update(period=10),
    "no metrics": lambda w: w["properties"].update(metrics=[]),
    "a dimension without value": lambda w: w["properties"].update(metrics=[["AWS/SQS", "X", "QueueName"]]),
    "unknown statistic": lambda w: w["properties"].update(
        metrics=[["AWS/SQS", "X", "QueueName", "q", {"stat": "P95"}]]
    ),
    "unknown rendering": lambda w: w["properties"].update(
        metrics=[["AWS/SQS", "X", "QueueName", "q", {"statistic": "Sum"}]]
    ),
    "a search without quotes": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{Scanfleet/dev,Pool} MetricName=\"X\"', 'Sum', 60)"}]]
    ),
    "a search by no dimension of its schema": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{N,Pool} MetricName=\"X\" State=\"s\"', 'Sum', 60)"}]]
    ),
    "a search that is not closed": lambda w: w["properties"].update(
        metrics=[[{"expression": "SEARCH('{N,Pool} MetricName=\"X', 'Sum', 60)"}]]
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_widget_is_seen(monitoring, fault):
    tree = json.loads(bodies(monitoring)["scanfleet-dev-fleet"])
    widget = next(w for w in tree["widgets"] if w["properties"].get("view") == "timeSeries")

    FAULTS[fault](widget)

    with pytest.raises(WrongDashboard):
        check_dashboard(json.dumps(tree))


def test_a_search_names_what_it_finds():
    expression = scanfleet_search(
        "dev", Metric.JOB_FAILED, statistic="Sum", fixed={Dimension.FAILURE_CLASS: "hang"}
    )

    assert check_search(expression) == ShownMetric(
        "Scanfleet/dev", "JobFailed", {"Pool": None, "FailureClass": "hang"}
    )


def test_every_end_of_a_job_has_a_colour():
    assert set(ENDINGS) == {state.value for state in TERMINAL_STATES}
