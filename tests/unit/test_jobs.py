"""Job ids and the retry rules."""

import time
from datetime import timedelta

import pytest

from scanfleet import contract
from scanfleet.contract import Pool
from scanfleet.jobs import Failure, FailureClass, Job, is_job_id, new_job_id, retry_delay, utc


def job_after(*classes: FailureClass, forgiven: int = 0) -> Job:
    failures = tuple(
        Failure(failure_class=c, reason="r", attempt=n, at=utc(0)) for n, c in enumerate(classes, start=1)
    )
    return Job(
        job_id=new_job_id(),
        owner="ann",
        processor="reference",
        pool=Pool.LINUX_CPU,
        source_uri="s3://b/in/",
        target_uri="s3://b/out/",
        created_at=0,
        queued_at=0,
        state_changed_at=0,
        failures=failures,
        failures_forgiven=forgiven,
    )


def test_job_ids_sort_by_time_and_do_not_collide():
    earlier = [new_job_id() for _ in range(5000)]
    time.sleep(0.002)  # ids are sorted by the millisecond
    later = new_job_id()

    assert len(set(earlier)) == len(earlier)
    assert max(earlier) < later


@pytest.mark.parametrize(
    "text", ["", "x", "01M7Y0NEW15834XF4D6KH50FZ", "81M7Y0NEW15834XF4D6KH50FZ8", "a" * 26, "../x"]
)
def test_other_texts_are_not_job_ids(text):
    assert not is_job_id(text)


def test_a_job_id_is_one():
    assert is_job_id(new_job_id())


def test_bad_input_is_never_retried():
    assert retry_delay(job_after(), FailureClass.BAD_INPUT) is None


def test_a_class_is_retried_as_often_as_its_rule_says_with_doubled_waits():
    transfer = FailureClass.TRANSFER

    assert retry_delay(job_after(), transfer) == timedelta(seconds=5)
    assert retry_delay(job_after(transfer), transfer) == timedelta(seconds=10)
    assert retry_delay(job_after(transfer, transfer), transfer) == timedelta(seconds=20)
    assert retry_delay(job_after(transfer, transfer, transfer), transfer) is None


def test_all_classes_together_end_at_the_cap_of_attempts():
    mixed = (FailureClass.TRANSFER, FailureClass.CRASH, FailureClass.HANG)
    assert len(mixed) + 1 == contract.MAX_ATTEMPTS

    assert retry_delay(job_after(*mixed), FailureClass.OUT_OF_MEMORY) is None


def test_lost_machines_do_not_count_towards_the_cap():
    lost = (FailureClass.LOST_MACHINE,) * 5

    assert retry_delay(job_after(*lost), FailureClass.CRASH) == timedelta(seconds=2)
    assert retry_delay(job_after(*lost), FailureClass.LOST_MACHINE) == timedelta()


def test_a_job_that_kills_every_machine_ends():
    lost = (FailureClass.LOST_MACHINE,) * contract.MAX_LOST_MACHINES

    assert retry_delay(job_after(*lost), FailureClass.LOST_MACHINE) is None


def test_forgiven_failures_do_not_count():
    crashes = (FailureClass.CRASH,) * 3

    assert retry_delay(job_after(*crashes), FailureClass.CRASH) is None
    assert retry_delay(job_after(*crashes, forgiven=3), FailureClass.CRASH) == timedelta(seconds=2)
