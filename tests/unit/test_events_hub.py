"""The hub goes on, whatever fails between the feed and its listeners."""

import asyncio
from dataclasses import replace

import pytest

from scanfleet.callers import Caller
from scanfleet.contract import Pool
from scanfleet.events.hub import Hub
from scanfleet.events.messages import job_message
from scanfleet.events.reading import Reading
from scanfleet.events.topics import ALL_JOBS
from scanfleet.jobs import Job

PATIENCE = 60
"""Seconds; only a hub that has stopped needs them."""


def job(job_id: str) -> Job:
    return Job(
        job_id=job_id,
        owner="alice",
        processor="ply",
        pool=Pool.LINUX_CPU,
        source_uri="s3://b/s/",
        target_uri="s3://b/t/",
        created_at=0.0,
        queued_at=0.0,
        state_changed_at=0.0,
    )


class Feed:
    """Gives the same job at each reading but the first, which finds the place."""

    def __init__(self) -> None:
        self.readings = 0

    def read(self) -> Reading:
        self.readings += 1
        return Reading((job("one"),)) if self.readings > 1 else Reading()


def test_a_change_that_cannot_be_told_does_not_silence_the_next_ones():
    failures = [RuntimeError("no words for it")]

    def encode(changed):
        if failures:
            raise failures.pop()
        return replace(job_message(changed), event_id="told")

    async def listen():
        hub = Hub(Feed, encode=encode, look_seconds=0.001)
        async with hub.listening(Caller(owner="alice", is_operator=False)) as listener:
            hub.follow(listener, ALL_JOBS)
            async with asyncio.timeout(PATIENCE):
                while not (found := await listener.take(seconds=1)):
                    continue
            return found, listener.must_be_told_all

    (message,), must_be_told_all = asyncio.run(listen())

    assert message.event_id == "told"
    assert must_be_told_all, "the one before was lost"


def test_a_feed_that_never_opens_refuses_its_listeners(monkeypatch):
    monkeypatch.setattr("scanfleet.events.hub.OPENING_SECONDS", 0.05)

    def closed():
        raise RuntimeError("away")

    async def listen():
        async with Hub(closed, look_seconds=0.001).listening(Caller(owner="alice", is_operator=False)):
            raise AssertionError("nothing can be heard")

    with pytest.raises(Exception, match="cannot be read now"):
        asyncio.run(listen())
