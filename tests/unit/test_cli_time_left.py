"""How the command line says how long a job still needs."""

import pytest

from scanfleet.cli_output import time_left
from scanfleet.client_models import Eta, JobInfo


def job(low: float, high: float, status: str = "processing") -> JobInfo:
    facts = {"job_id": "j", "processor": "p", "pool": "linux-cpu", "priority": "normal", "owner": "ann"}
    eta = Eta(low_seconds=low, likely_seconds=(low + high) / 2, high_seconds=high, runs=9)
    return JobInfo(**facts, source="s", target="t", status=status, eta=eta)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (250, 420, "4-7 min left"),
        (100, 150, "1.7-2.5 min left"),
        (20, 300, "20 s to 5 min left"),
        (1800, 9000, "30 min to 2.5 h left"),
        (20, 89, "20-89 s left"),
        (0.4, 1.6, "0-2 s left"),
        (0, 0, "0-1 s left"),
        (295, 305, "5 min left"),
        (5400, 9000, "1.5-2.5 h left"),
    ],
)
def test_a_range_is_said_in_the_unit_that_fits(low, high, said):
    assert time_left(job(low, high)) == said


def test_a_queued_job_needs_that_long_once_it_runs():
    assert time_left(job(250, 420, "queued")) == "4-7 min once it runs"


def test_without_a_prediction_and_after_the_end_nothing_is_said():
    assert time_left(job(250, 420, "completed")) == ""
    assert time_left(job(250, 420).model_copy(update={"eta": None})) == ""
