"""The pools' dead-letter queues: messages that nobody may run, each with the reason why.

Agents put letters there, and so does SQS itself after too many deliveries; operators look at them and send
them back (redrive.py). A letter is the bell: what became of a job says its record.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from scanfleet.contract import Pool
from scanfleet.errors import ConfigurationError, shorten
from scanfleet.messages import job_id_of
from scanfleet.sqs import answering

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

REASON_LENGTH = 500
LATEST_MOMENT = 253_402_300_799
"""The last second of the year 9999: dates go no further."""
MOST_AT_ONCE = 10
"""Of one ReceiveMessage or ChangeMessageVisibilityBatch. Source: SQS API reference."""
LONG_POLL_SECONDS = 1
"""A short poll asks some of SQS's servers only, and may miss letters; any wait asks all of them.
Source: SQS developer guide, "Amazon SQS short and long polling"."""


class Cause(StrEnum):
    """Why a message is a dead letter."""

    UNREADABLE = "unreadable"
    """Not JSON, of another version, or without a job id."""
    NO_SUCH_JOB = "no_such_job"
    """It names a job that was never recorded, or whose record has expired."""
    QUARANTINED = "quarantined"
    """Its job failed for good in a way that may hurt machines."""
    DELIVERED_TOO_OFTEN = "delivered_too_often"
    """SQS moved it: nobody deleted it at any of its deliveries."""


class _Attribute(StrEnum):
    CAUSE = "scanfleet_cause"
    REASON = "scanfleet_reason"
    WHEN = "scanfleet_when"
    AGENT = "scanfleet_agent"


@dataclass(frozen=True, kw_only=True)
class Burial:
    """Why, by whom and when (epoch seconds) a message was made a dead letter."""

    cause: Cause
    reason: str
    agent_id: str
    at: float

    def attributes(self) -> dict[str, Any]:
        """Return it as SQS message attributes; they hold printable text only, and never none."""
        values = {
            _Attribute.CAUSE: self.cause,
            _Attribute.REASON: shorten(self.reason, REASON_LENGTH),
            _Attribute.AGENT: self.agent_id,
        }
        texts = {name.value: _printable(text) or "?" for name, text in values.items()}
        when = {"DataType": "Number", "StringValue": f"{self.at:.3f}"}
        return {
            **{name: {"DataType": "String", "StringValue": text} for name, text in texts.items()},
            _Attribute.WHEN.value: when,
        }


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """One delivery of one dead letter. `receipt` is good for this delivery only."""

    letter_id: str
    pool: Pool
    receipt: str
    body: str
    cause: Cause
    reason: str
    agent_id: str | None
    """Who moved it; None: SQS did."""
    at: float
    """Epoch seconds: when it was moved, or sent when SQS moved it."""

    def job_id(self) -> str:
        """Return the job id that the letter carries. Raises UnreadableMessage."""
        return job_id_of(self.body)


class DeadLetterQueues:
    """Puts letters into the pools' dead-letter queues, looks at them and takes them out."""

    def __init__(self, client: "SQSClient", urls: Mapping[Pool, str]) -> None:
        self._client = client
        self._urls = urls

    @property
    def pools(self) -> tuple[Pool, ...]:
        """Return the pools that have a dead-letter queue here."""
        return tuple(self._urls)

    def put(self, pool: Pool, body: str, burial: Burial) -> None:
        """Keep a message's body as a letter, with what is known of its end."""
        url = self._url(pool)
        with answering("send dead letter"):
            try:
                self._client.send_message(
                    QueueUrl=url, MessageBody=body, MessageAttributes=burial.attributes()
                )
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") != "InvalidParameterValue":
                    raise
                # A message of the largest size has no room for attributes; the log has the reason.
                self._client.send_message(QueueUrl=url, MessageBody=body)

    def receive(self, pool: Pool, *, visibility: timedelta) -> tuple[DeadLetter, ...]:
        """Return up to MOST_AT_ONCE letters, hidden from others for this long; none when none is left."""
        with answering("receive dead letters"):
            answer = self._client.receive_message(
                QueueUrl=self._url(pool),
                MaxNumberOfMessages=MOST_AT_ONCE,
                WaitTimeSeconds=LONG_POLL_SECONDS,
                VisibilityTimeout=int(visibility.total_seconds()),
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["SentTimestamp"],
            )
        return tuple(_letter(pool, message) for message in answer.get("Messages", []))

    def release(self, letters: tuple[DeadLetter, ...]) -> None:
        """Make letters visible to others again at once."""
        for pool in self.pools:
            mine = [letter for letter in letters if letter.pool == pool]
            for batch in _batches(mine):
                entries: list[Any] = [
                    {"Id": str(number), "ReceiptHandle": letter.receipt, "VisibilityTimeout": 0}
                    for number, letter in enumerate(batch)
                ]
                with answering("release dead letters"):
                    # One that is not released comes back by itself.
                    self._client.change_message_visibility_batch(QueueUrl=self._url(pool), Entries=entries)

    def delete(self, letter: DeadLetter) -> None:
        """Delete the letter for good."""
        with answering("delete dead letter"):
            self._client.delete_message(QueueUrl=self._url(letter.pool), ReceiptHandle=letter.receipt)

    def waiting(self, pool: Pool) -> int:
        """Return SQS's approximate count of the letters that nobody looks at right now."""
        with answering("read queue attributes"):
            answer = self._client.get_queue_attributes(
                QueueUrl=self._url(pool), AttributeNames=["ApproximateNumberOfMessages"]
            )
        return int(answer.get("Attributes", {}).get("ApproximateNumberOfMessages", 0))

    def _url(self, pool: Pool) -> str:
        try:
            return self._urls[pool]
        except KeyError as error:
            known = ", ".join(self._urls) or "none"
            raise ConfigurationError(f"no dead-letter queue for {pool}; there are: {known}") from error


def _letter(pool: Pool, message: "MessageTypeDef") -> DeadLetter:
    attributes = message.get("MessageAttributes", {})
    told = {name: attributes[name].get("StringValue", "") for name in _Attribute if name in attributes}
    sent_at = int(message.get("Attributes", {}).get("SentTimestamp", "0")) / 1000
    return DeadLetter(
        letter_id=message["MessageId"],
        pool=pool,
        receipt=message["ReceiptHandle"],
        body=message["Body"],
        cause=_cause(told.get(_Attribute.CAUSE)),
        reason=told.get(_Attribute.REASON, "it was delivered too often, or its agent left no reason"),
        agent_id=told.get(_Attribute.AGENT),
        at=_moment(told.get(_Attribute.WHEN), sent_at),
    )


def _cause(text: str | None) -> Cause:
    return Cause(text) if text in set(Cause) else Cause.DELIVERED_TOO_OFTEN


def _moment(text: str | None, default: float) -> float:
    """Return the attribute's epoch seconds; somebody else's attribute of that name does not count."""
    try:
        moment = default if text is None else float(text)
    except ValueError:
        return default
    return moment if 0 <= moment <= LATEST_MOMENT else default


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _batches(letters: list[DeadLetter]) -> Iterator[list[DeadLetter]]:
    for start in range(0, len(letters), MOST_AT_ONCE):
        yield letters[start : start + MOST_AT_ONCE]
