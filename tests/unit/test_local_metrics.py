"""What takes CloudWatch's part on one machine: log lines become metrics, and pools are sampled."""

import json
import logging
import os
import threading
import time
from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

from scanfleet.agent_reports import AgentReport
from scanfleet.contract import Component, Dimension, Metric, Pool
from scanfleet.local.emf import Point, points
from scanfleet.local.following import BLOCK_BYTES, FollowedLogs
from scanfleet.local.sampling import LocalSampler, sampled
from scanfleet.local.shipping import VALUES_A_METRIC, MetricShipping, data
from scanfleet.log_setup import JsonFormatter
from scanfleet.queue import Backlog
from scanfleet.telemetry import metrics

NOW = 1_800_000_000.0
NAMESPACE = "Scanfleet/local"


def logged(values, dimensions) -> str:
    """A line as the processes write it."""
    record = logging.makeLogRecord({"msg": "x", "levelname": "INFO"} | metrics(values, dimensions))
    return JsonFormatter(Component.AGENT, stage="local").format(record)


def line(seconds=1.5, *, state="processing") -> str:
    return logged({Metric.STATE_DURATION: seconds}, {Dimension.POOL: "linux-cpu", Dimension.STATE: state})


# --- Lines -------------------------------------------------------------------------------------------------


def test_a_line_as_telemetry_writes_it_is_a_point():
    before = time.time()

    (point,) = points(line(1.5))

    assert before - 1 <= point.at <= time.time()
    assert (point.namespace, point.name, point.unit, point.resolution, point.value) == (
        NAMESPACE, "StateDuration", "Seconds", 60, 1.5
    )  # fmt: skip
    assert dict(point.dimensions) == {"Pool": "linux-cpu", "State": "processing"}


def test_several_metrics_dimension_sets_values_and_high_resolution_as_specified():
    document = {
        "_aws": {
            "Timestamp": NOW * 1000,
            "CloudWatchMetrics": [
                {
                    "Namespace": "N",
                    "Dimensions": [["a"], []],
                    "Metrics": [{"Name": "m", "StorageResolution": 1}, {"Name": "many", "Unit": "Bytes"}],
                }
            ],
        },
        "a": "x",
        "m": 1,
        "many": [2, 3],
    }

    found = points(json.dumps(document))

    assert [(p.name, p.dimensions, p.unit, p.resolution, p.value) for p in found] == [
        (name, dimensions, unit, resolution, value)
        for dimensions in ((("a", "x"),), ())
        for name, unit, resolution, value in (
            ("m", "None", 1, 1), ("many", "Bytes", 60, 2), ("many", "Bytes", 60, 3)
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):",
        '{"message": "no metric"}',
        '{"_aws": 7}',
        '{"_aws": {"Timestamp": 1}}',
        '{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "N", "Dimensions": [["gone"]], '
        '"Metrics": [{"Name": "m"}]}]}, "m": 1}',
        '{"_aws": {"Timestamp": "then", "CloudWatchMetrics": []}}',
        '["_aws"]',
        '{"_aws": {',
    ],
)
def test_what_is_no_metric_is_left_alone(text):
    assert points(text) == []


# --- Files -------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "logs"
    made.mkdir()
    return made


def test_each_line_is_read_once_and_only_when_it_is_complete(folder, tmp_path):
    followed = FollowedLogs(folder, tmp_path / "places.json")
    with (folder / "a.log").open("a") as log:
        log.write("one\ntwo\nthr")
        log.flush()
        first = followed.read()
        assert (first.lines, first.is_all) == (("one", "two"), True)
        followed.commit(first)
        log.write("ee\n")
    followed.commit(second := followed.read())

    assert second.lines == ("three",)
    assert followed.read().lines == ()


def test_what_was_not_committed_is_read_again(folder, tmp_path):
    (folder / "a.log").write_text("one\n")
    followed = FollowedLogs(folder, tmp_path / "places.json")

    assert followed.read().lines == followed.read().lines == ("one",)


def test_a_restart_goes_on_where_the_last_run_ended(folder, tmp_path):
    (folder / "a.log").write_text("one\n")
    first = FollowedLogs(folder, tmp_path / "places.json")
    first.commit(first.read())
    with (folder / "a.log").open("a") as log:
        log.write("while nobody looked\n")

    assert FollowedLogs(folder, tmp_path / "places.json").read().lines == ("while nobody looked",)


def test_a_damaged_memory_begins_anew(folder, tmp_path):
    (folder / "a.log").write_text("one\n")
    (tmp_path / "places.json").write_text('{"a.log": {"inode"')

    assert FollowedLogs(folder, tmp_path / "places.json").read().lines == ("one",)


@pytest.mark.parametrize("how", ["renamed away", "cut to nothing"])
def test_a_rotated_file_is_read_from_its_beginning(folder, tmp_path, how):
    log = folder / "a.log"
    log.write_text("old old old\n")
    followed = FollowedLogs(folder, tmp_path / "places.json")
    followed.commit(followed.read())
    if how == "renamed away":
        log.rename(folder / "a.log.1")
        log.write_text("new, and longer than the old one was\n")
    else:
        os.truncate(log, 0)
        log.write_text("new\n")

    (found,) = followed.read().lines
    assert found.startswith("new")


def test_a_long_file_comes_in_blocks_and_keeps_no_other_waiting(folder, tmp_path):
    lines = [f"{n} " + "x" * 1000 for n in range(2500)]
    (folder / "long.log").write_text("\n".join(lines) + "\n")
    (folder / "short.log").write_text("hello\n")
    followed = FollowedLogs(folder, tmp_path / "places.json")
    found: list[str] = []

    reading = followed.read()
    assert "hello" in reading.lines
    while True:
        found += [text for text in reading.lines if text != "hello"]
        followed.commit(reading)
        if reading.is_all:
            break
        reading = followed.read()

    assert found == lines


def test_a_line_without_end_is_left_behind(folder, tmp_path):
    (folder / "a.log").write_bytes(b"x" * (BLOCK_BYTES + 10) + b"\nafter\n")
    followed = FollowedLogs(folder, tmp_path / "places.json")

    followed.commit(followed.read())

    assert followed.read().lines[-1] == "after"


# --- Shipping ----------------------------------------------------------------------------------------------


def point(value=1.0, **facts) -> Point:
    defaults = {
        "namespace": "N", "name": "m", "dimensions": (("Pool", "p"),), "unit": "Count", "resolution": 60,
        "at": NOW, "value": value,
    }  # fmt: skip
    return Point(**(defaults | facts))


def test_values_of_one_second_are_one_item_up_to_what_cloudwatch_takes():
    items = list(
        data([point(float(n), at=NOW + 0.001 * n) for n in range(VALUES_A_METRIC + 1)] + [point(at=NOW + 1)])
    )

    assert [len(item["Values"]) for item in items] == [VALUES_A_METRIC, 1, 1]


def test_other_units_resolutions_and_dimensions_are_other_items():
    items = list(
        data([point(), point(unit="Bytes"), point(resolution=1), point(dimensions=()), point(name="n")])
    )

    assert len(items) == 5
    assert [item["StorageResolution"] for item in items] == [60, 60, 1, 60, 60]


@pytest.fixture
def cloudwatch():
    with mock_aws():
        yield boto3.client(
            "cloudwatch", region_name="eu-west-1", aws_access_key_id="t", aws_secret_access_key="t"
        )


def stored(client, name) -> float:
    """Return the sum of all of a metric's values."""
    found = [m for m in client.list_metrics(Namespace=NAMESPACE)["Metrics"] if m["MetricName"] == name]
    total = 0.0
    for metric in {json.dumps(m, sort_keys=True): m for m in found}.values():
        answer = client.get_metric_statistics(
            **metric, StartTime=time.time() - 3600, EndTime=time.time() + 60, Period=3600, Statistics=["Sum"]
        )
        total += sum(point["Sum"] for point in answer["Datapoints"])
    return total


def test_what_is_logged_is_shipped_and_the_last_lines_at_the_stop(folder, tmp_path, cloudwatch):
    (folder / "agent-1.log").write_text(f"{line(1)}\nnot JSON\n{line(2)}\n")
    shipping = MetricShipping(
        FollowedLogs(folder, tmp_path / "p.json"), lambda: cloudwatch, every=timedelta(hours=1)
    )
    shipping.start()
    with (folder / "api.log").open("a") as log:
        log.write(line(4) + "\n")

    shipping.stop()

    assert stored(cloudwatch, "StateDuration") == 7
    again = MetricShipping(FollowedLogs(folder, tmp_path / "p.json"), lambda: cloudwatch)
    again.start()
    again.stop()
    assert stored(cloudwatch, "StateDuration") == 7


def test_what_cloudwatch_would_refuse_as_too_old_is_left_out(folder, tmp_path, cloudwatch):
    old = json.loads(line(9))
    old["_aws"]["Timestamp"] -= 15 * 24 * 3600 * 1000
    (folder / "a.log").write_text(f"{json.dumps(old)}\n{line(1)}\n")
    shipping = MetricShipping(FollowedLogs(folder, tmp_path / "p.json"), lambda: cloudwatch)

    shipping.start()
    shipping.stop()

    assert stored(cloudwatch, "StateDuration") == 1


def test_what_was_not_taken_is_shipped_later_and_told_once(folder, tmp_path, cloudwatch, caplog):
    (folder / "a.log").write_text(line(3) + "\n")
    tries = threading.Semaphore(0)

    def connect():
        tries.release()
        if tries._value < 3:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
        return cloudwatch

    shipping = MetricShipping(
        FollowedLogs(folder, tmp_path / "p.json"), connect, every=timedelta(seconds=0.01)
    )
    shipping.start()
    deadline = time.monotonic() + 60
    while stored(cloudwatch, "StateDuration") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shipping.stop()

    assert stored(cloudwatch, "StateDuration") == 3
    assert len([r for r in caplog.records if getattr(r, "action", "") == "metrics_not_shipped"]) == 1


# --- Sampling ----------------------------------------------------------------------------------------------


class TwoPools:
    """Queues with a backlog."""

    pools = (Pool.LINUX_CPU, Pool.WINDOWS_GPU)

    def backlog(self, pool):
        return Backlog(waiting=6, in_flight=2) if pool is Pool.LINUX_CPU else Backlog(0, 0)


def agent(name, **facts) -> AgentReport:
    defaults = {"pool": Pool.LINUX_CPU, "slots": 2, "busy": 1, "started_at": NOW, "seen_at": NOW}
    return AgentReport(agent_id=name, **(defaults | facts))


def test_agents_are_the_instances_of_the_local_pool():
    found = sampled(Pool.LINUX_CPU, TwoPools(), [agent("a"), agent("b", busy=0)], now=NOW)

    assert found == {
        Metric.BACKLOG: 6,
        Metric.IN_FLIGHT: 2,
        Metric.BACKLOG_PER_SLOT: 1.5,
        Metric.SLOTS_IN_SERVICE: 4,
        Metric.SLOTS_BOOTING: 0,
        Metric.SLOTS_BUSY: 1,
        Metric.IDLE_INSTANCES: 0,
        Metric.INSTANCES: 2,
        Metric.CONTROLLER_SAMPLES: 1,
    }


def test_a_pool_that_nobody_serves_is_sampled_too():
    found = sampled(Pool.WINDOWS_GPU, TwoPools(), [agent("a")], now=NOW)

    assert (found[Metric.SLOTS_IN_SERVICE], found[Metric.INSTANCES], found[Metric.BACKLOG]) == (0, 0, 0)


def test_samples_are_published_until_the_stop():
    class Directory:
        def in_service(self):
            return (agent("a"),)

    class Published:
        def __init__(self):
            self.samples = []
            self.came = threading.Event()

        def publish(self, samples):
            self.samples += samples
            self.came.set()

    published = Published()
    sampler = LocalSampler(lambda: (TwoPools(), Directory(), published), every=timedelta(seconds=0.05))
    sampler.start()
    assert published.came.wait(60)
    sampler.stop()
    count = len(published.samples)

    assert {sample.pool for sample in published.samples} == set(TwoPools.pools)
    assert len(published.samples) == count
