"""What processes count for Prometheus: read back by Prometheus' own parser."""

import re
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scanfleet.contract import METRIC_FACTS, Dimension, Metric
from scanfleet.metrics import PROCESS, Gauge, Tally, exposition, series_of
from scanfleet.telemetry import metrics

POOL = {Dimension.POOL: "linux-cpu"}
BASE_UNITS = ("_seconds", "_bytes", "_ratio", "_total")


def read(text: bytes):
    """The families by name, and every sample's value by its name and labels."""
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    samples = {(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples}
    return families, samples


@pytest.mark.parametrize("metric", Metric)
def test_every_metric_has_a_name_that_prometheus_takes(metric):
    tally = Tally()
    tally.add({metric: 1}, dict.fromkeys(METRIC_FACTS[metric][1], "x"))

    families, _ = read(exposition(tally=tally))
    series = series_of(metric)

    family = families[series.name]
    assert re.fullmatch(r"scanfleet_[a-z0-9_]+", family.name)
    assert family.type == ("histogram" if series.buckets else "counter")
    shown = family.name if series.buckets else f"{family.name}_total"
    assert shown.endswith(BASE_UNITS)
    assert all(set(s.labels) - {"le"} == set(series.labels) for s in family.samples)


def test_no_two_metrics_share_a_name():
    assert len({series_of(metric).name for metric in Metric}) == len(Metric)


def test_counts_and_bytes_add_up_by_their_labels():
    tally = Tally()
    for size in (1000, 500):
        tally.add({Metric.BYTES_DOWNLOADED: size}, POOL)
    tally.add({Metric.BYTES_DOWNLOADED: 7}, {Dimension.POOL: "windows-gpu"})

    _, samples = read(exposition(tally=tally))

    assert samples["scanfleet_downloaded_bytes_total", ("pool", "linux-cpu")] == 1500
    assert samples["scanfleet_downloaded_bytes_total", ("pool", "windows-gpu")] == 7


def test_durations_fall_into_buckets_that_hold_all_below_them():
    tally = Tally()
    name, state = "scanfleet_state_duration_seconds", {Dimension.STATE: "processing"}
    for seconds in (0.2, 1, 1.5, 700, 50_000):
        tally.add({Metric.STATE_DURATION: seconds}, POOL | state)

    _, samples = read(exposition(tally=tally))
    labels = (("pool", "linux-cpu"), ("state", "processing"))

    def up_to(end):
        return samples[f"{name}_bucket", *sorted([("le", end), *labels])]

    assert [up_to(end) for end in ("1.0", "2.0", "600.0", "900.0", "43200.0", "+Inf")] == [2, 3, 3, 4, 4, 5]
    assert samples[f"{name}_count", *labels] == 5
    assert samples[f"{name}_sum", *labels] == pytest.approx(50_702.7)


def test_percentages_become_ratios():
    tally = Tally()
    tally.add({Metric.JOB_CPU_MEAN: 250.0}, POOL)

    _, samples = read(exposition(tally=tally))

    assert samples["scanfleet_job_cpu_mean_ratio_sum", ("pool", "linux-cpu")] == 2.5
    assert samples["scanfleet_job_cpu_mean_ratio_bucket", ("le", "2.0"), ("pool", "linux-cpu")] == 0
    assert samples["scanfleet_job_cpu_mean_ratio_bucket", ("le", "4.0"), ("pool", "linux-cpu")] == 1


def test_what_telemetry_logs_is_counted_in_the_process():
    key = "scanfleet_breaker_opened_total", ("pool", "linux-cpu")
    before = read(exposition())[1].get(key, 0)

    metrics({Metric.BREAKER_OPENED: 1}, POOL)

    assert read(exposition(tally=PROCESS))[1][key] == before + 1


def test_a_label_holds_any_text():
    tally = Tally()
    odd = 'a"b\\c\nd'
    tally.add({Metric.STAGE_DURATION: 1}, POOL | {Dimension.STAGE: odd})

    _, samples = read(exposition(tally=tally))

    assert samples["scanfleet_stage_duration_seconds_count", ("pool", "linux-cpu"), ("stage", odd)] == 1


def test_gauges_alone_for_a_process_that_does_not_live_on():
    gauge = Gauge("backlog", "Waiting messages.", {("linux-cpu",): 3}, labels=("pool",))

    families, samples = read(exposition([gauge], tally=None))

    assert set(families) == {"scanfleet_backlog"}
    assert samples == {("scanfleet_backlog", ("pool", "linux-cpu")): 3}


def test_no_count_is_lost_between_threads():
    tally = Tally()

    def count():
        for _ in range(2000):
            tally.add({Metric.JOB_FINISHED: 1}, POOL | {Dimension.STATE: "completed"})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    _, samples = read(exposition(tally=tally))
    assert samples["scanfleet_job_finished_total", ("pool", "linux-cpu"), ("state", "completed")] == 8000
