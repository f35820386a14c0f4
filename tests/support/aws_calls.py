"""Which AWS calls a process makes, and which IAM permissions they need.

Recorded on real boto3 clients. Sources: Service Authorization Reference, "Actions, resources, and condition
keys" of SQS, DynamoDB, S3 and EC2 Auto Scaling; DynamoDB developer guide, "dynamodb:LeadingKeys".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

S3_ACTIONS = {
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetObject": "GetObject",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "UploadPartCopy": "PutObject",
    "AbortMultipartUpload": "AbortMultipartUpload",
    "DeleteObject": "DeleteObject",
    "DeleteObjects": "DeleteObject",
}
ON_BUCKETS = {"ListBucket", "ListBucketMultipartUploads"}


@dataclass(frozen=True, order=True)
class Need:
    """One permission that a call needs.

    resource: the queue's URL, the bucket or bucket/key, "" for a table or a group. leading_key: of the item.
    """

    action: str
    resource: str = ""
    leading_key: str = ""


def record(clients: Iterable[Any]) -> list[Need]:
    """Return a list that fills with what the clients' calls need, from now on."""
    found: list[Need] = []

    def note(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        if context.get("is_presign_request"):  # asks nobody
            return
        service = model.service_model.endpoint_prefix
        found.extend(_needs(service, model.name, params))

    for client in clients:
        client.meta.events.register("before-parameter-build", note)
    return found


def _needs(service: str, operation: str, params: dict[str, Any]) -> Iterator[Need]:
    match service:
        case "sqs":
            yield Need(f"sqs:{operation}", params["QueueUrl"])
        case "dynamodb":
            yield from _item_needs(operation, params)
        case "s3":
            yield from _object_needs(operation, params)
        case _:
            yield Need(f"{service}:{operation}")


def _item_needs(operation: str, params: dict[str, Any]) -> Iterator[Need]:
    if operation == "TransactWriteItems":
        for write in params["TransactItems"]:
            for kind, inner in write.items():
                yield from _item_needs(
                    {"ConditionCheck": "ConditionCheckItem"}.get(kind, f"{kind}Item"), inner
                )
        return
    if operation == "Query":
        key = params["ExpressionAttributeValues"][":pk"]
    else:
        key = (params.get("Key") or params["Item"])["pk"]
    yield Need(f"dynamodb:{operation}", leading_key=key["S"])


def _object_needs(operation: str, params: dict[str, Any]) -> Iterator[Need]:
    bucket, action = params["Bucket"], S3_ACTIONS[operation]
    if action in ON_BUCKETS:
        yield Need(f"s3:{action}", bucket)
    elif operation == "DeleteObjects":
        for found in params["Delete"]["Objects"]:
            yield Need(f"s3:{action}", f"{bucket}/{found['Key']}")
    else:
        yield Need(f"s3:{action}", f"{bucket}/{params['Key']}")
    if "CopySource" in params:
        source = params["CopySource"]
        text = source if isinstance(source, str) else f"{source['Bucket']}/{source['Key']}"
        yield Need("s3:GetObject", unquote(text.partition("?")[0].removeprefix("/")))
