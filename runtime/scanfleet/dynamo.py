"""One rule for DynamoDB's answers: what is a decision, and what is no answer."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.errors import Unavailable

DECISIONS = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})


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
