"""Where something is in S3, and which places jobs may touch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scanfleet.errors import ConfigurationError, InvalidRequest

SCHEME = "s3://"
MAX_KEY_BYTES = 1024
"""Of UTF-8. Source: S3 user guide, "Naming Amazon S3 objects"."""

_FOLDER_FORM = "s3://bucket/folder/"
_BUCKET = re.compile(r"^(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
"""Source: S3 user guide, "General purpose bucket naming rules"."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, order=True)
class S3Uri:
    """A place in S3. `key` has no leading slash; a folder's ends with "/", or is "" for a whole bucket."""

    bucket: str
    key: str

    @classmethod
    def parse_folder(cls, text: object, *, field: str) -> "S3Uri":
        """Return the folder that a request names, with the closing slash added.

        Example: "s3://scans/test/src" -> S3Uri("scans", "test/src/"). Raises InvalidRequest for `field` that
        says what is wrong with the value, and the form that is allowed.
        """
        if not isinstance(text, str):
            raise InvalidRequest.of(field, "must be a string", value=text, allowed=_FOLDER_FORM)
        problem = _folder_problem(text)
        if problem is not None:
            raise InvalidRequest.of(field, problem, value=text, allowed=_FOLDER_FORM)
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        return cls(bucket, key if key.endswith("/") else key + "/")

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def is_inside(self, folder: "S3Uri") -> bool:
        """Say whether this is the folder or lies under it: "test/src2/" is not inside "test/src/"."""
        is_folder = folder.key == "" or folder.key.endswith("/")
        return is_folder and self.bucket == folder.bucket and self.key.startswith(folder.key)

    def child(self, relative: str) -> "S3Uri":
        """Return the object (or folder) `relative` under this folder."""
        return S3Uri(self.bucket, self.key + relative)


def _folder_problem(text: str) -> str | None:  # noqa: PLR0911 - a list of rules, one return each
    """Return what is wrong with a folder's URI, or None."""
    if "://" not in text:
        return "has no scheme"
    if not text.startswith(SCHEME):
        return "has another scheme than s3"
    if _CONTROL.search(text):
        return "contains a control character"
    if "\\" in text:
        return "contains a backslash"
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if not bucket:
        return "names no bucket"
    if not _BUCKET.fullmatch(bucket):
        return "names no valid bucket"
    return _key_problem(key.removesuffix("/"))


def _key_problem(key: str) -> str | None:
    if not key:
        return "names no folder"
    segments = key.split("/")
    if "" in segments:
        return "contains an empty folder name"
    if {".", ".."} & set(segments):
        return 'contains "." or ".." as a folder name'
    try:
        length = len(key.encode()) + 1
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"is over {MAX_KEY_BYTES} bytes long" if length > MAX_KEY_BYTES else None


class AllowedPrefixes:
    """The places that jobs may read and write."""

    def __init__(self, prefixes: Sequence[str]) -> None:
        """Take URIs of the form s3://bucket/ or s3://bucket/folder/. Raises ConfigurationError for others."""
        self._folders = tuple(_parse_prefix(prefix) for prefix in prefixes)

    @property
    def folders(self) -> tuple[S3Uri, ...]:
        """Return the places, in the order given."""
        return self._folders

    def allows(self, uri: S3Uri) -> bool:
        """Say whether `uri` lies in one of the places."""
        return any(uri.is_inside(folder) for folder in self._folders)

    def require(self, uri: S3Uri, *, field: str) -> None:
        """Raise InvalidRequest that names the value and what is allowed, unless `uri` lies inside."""
        if not self.allows(uri):
            allowed = "under " + ", ".join(str(folder) for folder in self._folders)
            raise InvalidRequest.of(field, "is not an allowed place", value=uri, allowed=allowed)


def _parse_prefix(text: str) -> S3Uri:
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    is_prefix = text.startswith(SCHEME) and text.endswith("/")
    if not (is_prefix and _BUCKET.fullmatch(bucket) and (not key or _key_problem(key[:-1]) is None)):
        raise ConfigurationError(f"allowed prefix {text!r}: must be s3://bucket/ or s3://bucket/folder/")
    return S3Uri(bucket, key)
