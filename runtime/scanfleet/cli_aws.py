"""The AWS session of verbs that an operator runs with credentials of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scanfleet.errors import ConfigurationError, Unavailable


@contextmanager
def aws_session() -> Iterator[Any]:
    """Give a boto3 session; what AWS and boto3 raise becomes an error of ours that says what to do."""
    import boto3  # noqa: PLC0415 - half a second that the other verbs need not pay
    from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415
    from botocore import exceptions  # noqa: PLC0415

    try:
        yield boto3.session.Session()
    except (exceptions.NoCredentialsError, exceptions.NoRegionError) as error:
        raise ConfigurationError(
            "no AWS credentials or region: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_DEFAULT_REGION"
        ) from error
    except (exceptions.ClientError, exceptions.BotoCoreError, S3UploadFailedError) as error:
        raise Unavailable(f"AWS refused or did not answer: {error}") from error
