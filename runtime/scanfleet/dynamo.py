"""One rule for DynamoDB's answers: what is a decision, and what is no answer; and one clock for leases."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

T = TypeVar("T")

DECISIONS = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})
ITEM_IS_BUSY = "TransactionConflictException"

TRANSACTION_TRIES = 6
FIRST_WAIT_SECONDS = 0.03
"""Before the second try of a transaction that met another write of one of its items, or of a write that met a
transaction; doubled each time."""

DATE_TOLERANCE_SECONDS = 2.0
"""An HTTP date has whole seconds, and its answer was some time on the way."""


class TransactionRefused(Exception):
    """A condition did not hold. `failed`: the positions of the writes whose own did not."""

    def __init__(self, failed: frozenset[int]) -> None:
        self.failed = failed
        super().__init__(f"conditions {sorted(failed)} did not hold")


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn "no answer" and "too busy" into Unavailable; let failed conditions through to the caller."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code in DECISIONS:
            raise
        raise Unavailable(f"{what}: the job table answered {code}") from error
    except BotoCoreError as error:
        raise Unavailable(f"{what}: the job table did not answer: {error}") from error


def write_when_free(what: str, write: Callable[[], T]) -> T:
    """Return what the write of one item returns; try again while a transaction has the item.

    botocore does not. Source: DynamoDB developer guide, "DynamoDB Transactions: How it works".
    Raises Unavailable when the item stays busy.
    """
    for tries in range(TRANSACTION_TRIES):
        try:
            with answering(what):
                return write()
        except Unavailable as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or cause.response["Error"].get("Code") != ITEM_IS_BUSY:
                raise
            _wait(tries)
    raise Unavailable(f"{what}: the job table is busy; try again")


def _wait(tries: int) -> None:
    time.sleep(FIRST_WAIT_SECONDS * 2**tries * random.uniform(0.5, 1))


def transact(client: "DynamoDBClient", what: str, writes: Sequence[Any]) -> None:
    """Make all of these writes or none.

    Raises TransactionRefused when a condition does not hold, Unavailable when the items stay busy. A lost
    answer is no danger: the client's own retry carries the same token. Source: DynamoDB API reference,
    TransactWriteItems.
    """
    for tries in range(TRANSACTION_TRIES):
        try:
            with answering(what):
                client.transact_write_items(TransactItems=list(writes))
        except client.exceptions.TransactionCanceledException as error:
            reasons = error.response.get("CancellationReasons", [])
            failed = [at for at, one in enumerate(reasons) if one.get("Code") == "ConditionalCheckFailed"]
            if failed:
                raise TransactionRefused(frozenset(failed)) from error
            # Another write of one of these items was under way, such as a heartbeat's.
            _wait(tries)
        else:
            return
    raise Unavailable(f"{what}: the job table is busy; try again")


class TableClock:
    """The time as DynamoDB's answers tell it, in epoch seconds: the same for every agent.

    A lease is taken when the taker's clock says that it has run out. By machines' own clocks, one that is
    wrong by half a minute would take every living lease; by this one it cannot. Between two answers the
    machine's monotonic clock counts on, which no correction of its wall clock moves.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._ahead = wall() - monotonic()
        self._lock = Lock()
        client.meta.events.register("after-call.dynamodb", self._hear)

    def __call__(self) -> float:
        """Return the time now; before the first answer it is the machine's."""
        with self._lock:
            return self._monotonic() + self._ahead

    def _hear(self, *, parsed: Mapping[str, Any], **_: object) -> None:
        told = parsed.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        try:
            date = parsedate_to_datetime(str(told)).timestamp()
        except ValueError:
            return  # an answer without a date, as some emulators give, tells nothing
        with self._lock:
            error = self._monotonic() + self._ahead - date
            if not 0 <= error <= DATE_TOLERANCE_SECONDS:
                self._ahead -= error - DATE_TOLERANCE_SECONDS / 4
