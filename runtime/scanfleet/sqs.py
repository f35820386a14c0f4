"""One rule for SQS's answers: whatever is no answer is Unavailable."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from scanfleet.errors import Unavailable

_OVER = frozenset({"MessageNotInflight", "ReceiptHandleIsInvalid"})


class DeliveryOver(Unavailable):
    """The delivery cannot be extended: it has ended, or SQS's 12 hours are over."""


@contextmanager
def answering(what: str) -> Iterator[None]:
    """Turn refusals and silence into Unavailable."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        text = error.response.get("Error", {}).get("Message", "")
        if code.rpartition(".")[2] in _OVER or "Total VisibilityTimeout" in text:
            raise DeliveryOver(f"{what}: the queue answered {code}: {text}") from error
        raise Unavailable(f"{what}: the queue answered {code}") from error
    except BotoCoreError as error:
        raise Unavailable(f"{what}: the queue did not answer: {error}") from error
