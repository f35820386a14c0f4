"""The function of live events on AWS: tickets, subscriptions, pushes. Over a table of moto's."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.models import dynamodb_backends

from scanfleet.callers import Caller
from scanfleet.contract import CONNECTIONS_KEPT, LIVE_PARTITIONS, TICKET_VALID, Pool
from scanfleet.errors import Unavailable
from scanfleet.events import connections
from scanfleet.events.connections import Connections
from scanfleet.events.conversation import Conversation
from scanfleet.events.feed import StreamFeed
from scanfleet.events.messages import job_message
from scanfleet.events.postbox import Postbox
from scanfleet.events.push import Push
from scanfleet.events.tickets import Tickets
from scanfleet.events.topics import ALL_JOBS, MAX_TOPICS, Topic
from scanfleet.jobs import Job, new_job_id
from scanfleet.leases import Lease, Leases
from scanfleet.store import JobStore
from tests.support.cloud import moto_job_table

ANN, EVE, OLGA = Caller("ann", False), Caller("eve", False), Caller("olga", True)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Gateway:
    """API Gateway's open connections: keeps what each got; some are gone, some cannot be written to."""

    def __init__(self) -> None:
        self.got: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.gone: set[str] = set()
        self.broken: set[str] = set()
        self.ended: list[str] = []

    def post_to_connection(self, **arguments: Any) -> None:
        connection_id = arguments["ConnectionId"]
        self._check(connection_id, "PostToConnection")
        self.got[connection_id].append(json.loads(arguments["Data"]))

    def delete_connection(self, **arguments: Any) -> None:
        self.ended.append(arguments["ConnectionId"])

    def _check(self, connection_id: str, call: str) -> None:
        for refused, code in ((self.gone, "GoneException"), (self.broken, "LimitExceededException")):
            if connection_id in refused:
                raise ClientError({"Error": {"Code": code, "Message": ""}}, call)


class Aws:
    """The function's parts over one table."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.clock = Clock()
        self.gateway = Gateway()
        self.store = JobStore(client, "jobs", clock=self.clock)
        self.leases = Leases(client, "jobs", clock=self.clock)
        self.tickets = Tickets(client, "jobs", clock=self.clock)
        self.connections = Connections(client, "jobs", clock=self.clock)
        postbox = Postbox(self.gateway, self.connections)
        self.push = Push(self.connections, postbox, encode=job_message)
        self.converse = Conversation(
            self.tickets, self.connections, postbox, read=self.store.get, encode=job_message
        )
        self._read = 0

    def job(self, owner: str = "ann") -> Job:
        job_id = new_job_id()
        now = self.clock()
        return self.store.create(
            Job(
                job_id=job_id, owner=owner, processor="p", pool=Pool.LINUX_CPU, source_uri="s3://b/in/",
                target_uri=f"s3://b/{job_id}/", created_at=now, queued_at=now, state_changed_at=now,
            )
        )  # fmt: skip

    def take(self, job: Job) -> Lease:
        lease = self.leases.take(job.job_id, "a1")
        assert isinstance(lease, Lease)
        return lease

    def records(self) -> list[dict[str, Any]]:
        """Return what the stream has brought since the last call, as Lambda hands it over."""
        # moto's own client of streams does not reach it in one process.
        shard = dynamodb_backends["123456789012"]["us-east-1"].get_table("jobs").stream_shard
        records = [json.loads(json.dumps(record.to_json(), default=_plain)) for record in shard.items]
        new, self._read = records[self._read :], len(records)
        return new

    def connect(self, caller: Caller, connection_id: str) -> int:
        return self.event(
            "CONNECT", connection_id, queryStringParameters={"ticket": self.tickets.issue(caller)}
        )

    def say(self, connection_id: str, **request: object) -> list[dict[str, Any]]:
        """Send a message; return what came back."""
        before = len(self.gateway.got[connection_id])
        self.event("MESSAGE", connection_id, body=json.dumps(request))
        return self.gateway.got[connection_id][before:]

    def event(self, kind: str, connection_id: str, **facts: Any) -> int:
        context = {"connectionId": connection_id, "eventType": kind}
        return int(self.converse({"requestContext": context, **facts})["statusCode"])

    def live_items(self) -> list[str]:
        items = self.client.scan(TableName="jobs")["Items"]
        return [item["pk"]["S"] for item in items if item["pk"]["S"].startswith(LIVE_PARTITIONS)]


def _plain(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else str(value)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    with moto_job_table(monkeypatch) as client:
        yield Aws(client)


# --- Tickets ---------------------------------------------------------------------------------------------


def test_a_ticket_opens_one_connection_in_its_callers_name(aws):
    ticket = aws.tickets.issue(OLGA)

    assert aws.tickets.redeem(ticket) == OLGA
    assert aws.tickets.redeem(ticket) is None


def test_a_ticket_that_is_too_old_opens_nothing(aws):
    ticket = aws.tickets.issue(ANN)
    aws.clock.now += TICKET_VALID.total_seconds() + 1

    assert aws.tickets.redeem(ticket) is None


def test_the_table_does_not_hold_the_ticket_itself(aws):
    ticket = aws.tickets.issue(ANN)

    assert ticket not in json.dumps(aws.client.scan(TableName="jobs")["Items"])


@pytest.mark.parametrize("query", [None, {}, {"ticket": ""}, {"ticket": "made up"}, {"other": "x"}])
def test_a_connection_without_a_valid_ticket_is_refused(aws, query):
    assert aws.event("CONNECT", "c1", queryStringParameters=query) == 403
    assert aws.live_items() == []


# --- What clients say ------------------------------------------------------------------------------------


def test_a_subscription_to_a_job_is_answered_with_its_present_state(aws):
    job = aws.job()
    assert aws.connect(ANN, "c1") == 200

    state, done = aws.say("c1", subscribe={"job": job.job_id})

    assert (state["type"], state["job"]["job_id"], state["job"]["status"]) == ("job", job.job_id, "queued")
    assert done == {"type": "subscribed", "to": {"job": job.job_id}, "present": True}


def test_a_subscription_to_all_jobs_says_that_the_present_state_has_to_be_asked_for(aws):
    aws.connect(ANN, "c1")

    assert aws.say("c1", subscribe={"jobs": True}) == [
        {"type": "subscribed", "to": {"jobs": True}, "present": False}
    ]
    assert aws.say("c1", ping=True) == [{"type": "pong"}]


def test_another_owners_job_is_answered_like_none(aws):
    job = aws.job("ann")
    aws.connect(EVE, "c1")

    assert aws.say("c1", subscribe={"job": job.job_id}) == [
        {"type": "error", "detail": f"no job {job.job_id}"}
    ]
    (nonsense,) = aws.say("c1", subscribe={"job": "x"})
    assert nonsense["type"] == "error"


FEW = 4
"""Instead of `MAX_TOPICS`: the emulated table takes a tenth of a second for a subscription."""


@pytest.fixture
def few_topics(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FEW < MAX_TOPICS
    monkeypatch.setattr(connections, "MAX_TOPICS", FEW)


def test_a_connection_has_a_limited_number_of_topics(aws, few_topics):
    aws.connections.open("c1", ANN)
    for _ in range(FEW):
        assert aws.connections.subscribe("c1", ANN, Topic(new_job_id()))

    assert not aws.connections.subscribe("c1", ANN, ALL_JOBS)


def test_subscribing_twice_counts_once_and_unsubscribing_makes_room(aws, few_topics):
    job = aws.job()
    aws.connections.open("c1", ANN)
    for _ in range(FEW + 2):
        assert aws.connections.subscribe("c1", ANN, Topic(job.job_id))
    for _ in range(3):
        aws.connections.unsubscribe("c1", ANN, Topic(job.job_id))

    for _ in range(FEW):
        assert aws.connections.subscribe("c1", ANN, Topic(new_job_id()))
    assert aws.connections.audience()(job) == frozenset()


def test_a_closed_connection_leaves_nothing_behind(aws):
    job = aws.job()
    aws.connect(OLGA, "c1")
    aws.say("c1", subscribe={"job": job.job_id})
    aws.say("c1", subscribe={"jobs": True})

    aws.event("DISCONNECT", "c1")
    aws.event("DISCONNECT", "c1")

    assert aws.live_items() == []
    assert aws.say("c1", ping=True) == [], "a message that was under way is nobody's"


def test_everything_that_a_connection_leaves_expires_by_itself(aws):
    job = aws.job()
    aws.connect(ANN, "c1")
    aws.say("c1", subscribe={"job": job.job_id})
    aws.clock.now += CONNECTIONS_KEPT.total_seconds() + 1

    assert aws.connections.audience()(job) == frozenset()
    items = aws.client.scan(TableName="jobs")["Items"]
    assert all("expires_at" in item for item in items if item["pk"]["S"].startswith(LIVE_PARTITIONS))


# --- Pushes ----------------------------------------------------------------------------------------------


def test_each_listener_hears_of_the_jobs_that_it_may_see_and_asked_for(aws):
    mine, hers = aws.job("ann"), aws.job("eve")
    for caller, connection in ((ANN, "ann-all"), (ANN, "ann-one"), (EVE, "eve-all"), (OLGA, "olga")):
        aws.connect(caller, connection)
    for connection in ("ann-all", "eve-all", "olga"):
        aws.say(connection, subscribe={"jobs": True})
    aws.say("ann-one", subscribe={"job": mine.job_id})
    aws.records()
    for job in (mine, hers):
        aws.take(job)
    before = {name: len(messages) for name, messages in aws.gateway.got.items()}

    sent = aws.push(aws.records())

    heard = {
        name: {message["job"]["job_id"] for message in messages[before[name] :]}
        for name, messages in aws.gateway.got.items()
    }
    assert heard == {
        "ann-all": {mine.job_id},
        "ann-one": {mine.job_id},
        "eve-all": {hers.job_id},
        "olga": {mine.job_id, hers.job_id},
    }
    assert sent == 5


def test_a_batch_tells_each_job_once_as_it_is_last(aws):
    job = aws.job()
    aws.connect(ANN, "c1")
    aws.say("c1", subscribe={"jobs": True})
    lease = aws.take(job)
    lease = aws.leases.renew(lease, progress_percent=10, stage="a")
    aws.leases.renew(lease, progress_percent=20, stage="b")

    assert aws.push(aws.records()) == 1
    assert aws.gateway.got["c1"][-1]["job"]["progress_percent"] == 20


def test_a_heartbeat_that_changed_nothing_visible_is_not_pushed(aws):
    job = aws.job()
    lease = aws.take(job)
    aws.connect(ANN, "c1")
    aws.say("c1", subscribe={"jobs": True})
    aws.records()
    aws.clock.now += 5
    aws.leases.renew(lease, progress_percent=0, stage=None)

    assert aws.push(aws.records()) == 0


def test_a_connection_that_is_gone_is_forgotten_and_the_others_hear(aws):
    job = aws.job()
    for connection in ("c1", "c2"):
        aws.connect(ANN, connection)
        aws.say(connection, subscribe={"jobs": True})
    aws.gateway.gone.add("c1")
    aws.records()
    aws.take(job)

    assert aws.push(aws.records()) == 1
    assert aws.connections.audience()(job) == {"c2"}
    assert aws.gateway.ended == []


def test_a_connection_that_cannot_be_written_to_is_ended_so_that_its_client_comes_again(aws):
    job = aws.job()
    aws.connect(ANN, "c1")
    aws.say("c1", subscribe={"jobs": True})
    aws.gateway.broken.add("c1")
    aws.take(job)

    assert aws.push(aws.records()) == 0
    assert aws.gateway.ended == ["c1"]
    assert aws.live_items() == []


def test_a_table_that_does_not_answer_fails_the_batch_so_that_it_is_tried_again(aws):
    aws.job()
    records = aws.records()
    aws.client.delete_table(TableName="jobs")

    with pytest.raises(Unavailable):
        aws.push(records)


# --- Reading a stream on one machine ---------------------------------------------------------------------


class Shards:
    """A stream of two shards, the second the first's child, and iterators that expire."""

    def __init__(self, real: Any, arn: str) -> None:
        self._real = real
        self._arn = arn
        self.is_closed = False
        self.expire_next = False
        self.asked: list[tuple[str, str]] = []

    def describe_stream(self, **_: Any) -> dict[str, Any]:
        first: dict[str, Any] = {"ShardId": "s1", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
        if not self.is_closed:
            return {"StreamDescription": {"Shards": [first]}}
        first["SequenceNumberRange"]["EndingSequenceNumber"] = "2"
        second = {"ShardId": "s2", "ParentShardId": "s1", "SequenceNumberRange": {}}
        return {"StreamDescription": {"Shards": [first, second]}}

    def get_shard_iterator(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append((arguments["ShardId"], arguments["ShardIteratorType"]))
        return {"ShardIterator": f"{arguments['ShardId']}:{arguments.get('SequenceNumber', '')}"}

    def get_records(self, **arguments: Any) -> dict[str, Any]:
        shard, _, after = arguments["ShardIterator"].partition(":")
        if self.expire_next:
            self.expire_next = False
            raise ClientError({"Error": {"Code": "ExpiredIteratorException", "Message": ""}}, "GetRecords")
        page: dict[str, Any] = {"Records": []}
        if not after:
            page["Records"] = [self._real[shard]]
        if shard == "s2" or not self.is_closed:
            page["NextShardIterator"] = f"{shard}:read"
        return page


def record(aws: Aws) -> dict[str, Any]:
    aws.records()
    aws.job()
    return next(r for r in aws.records() if r["dynamodb"]["Keys"]["pk"]["S"].startswith("JOB#"))


def test_a_closed_shards_children_are_read_from_their_start(aws):
    first, second = record(aws), record(aws)
    shards = Shards({"s1": first, "s2": second}, "stream")
    feed = StreamFeed(shards, "stream")
    feed.read()
    shards.is_closed = True

    read = [job.job_id for _ in range(2) for job in feed.read().jobs]

    assert read == [r["dynamodb"]["NewImage"]["job_id"]["S"] for r in (first, second)]
    assert shards.asked == [("s1", "LATEST"), ("s2", "TRIM_HORIZON")]


def test_an_expired_iterator_goes_on_after_the_last_record_that_was_read(aws):
    shards = Shards({"s1": record(aws)}, "stream")
    feed = StreamFeed(shards, "stream")
    feed.read()
    feed.read()
    shards.expire_next = True

    assert not feed.read().has_gap
    assert shards.asked == [("s1", "LATEST"), ("s1", "AFTER_SEQUENCE_NUMBER")]


def test_an_iterator_that_expires_before_anything_was_read_is_a_gap(aws):
    shards = Shards({"s1": record(aws)}, "stream")
    feed = StreamFeed(shards, "stream")
    feed.read()
    shards.expire_next = True

    assert feed.read().has_gap
