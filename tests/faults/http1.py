"""HTTP/1.1 messages as bytes: as much of it as standing between an AWS client and an emulator takes."""

import asyncio
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

MAX_HEAD_BYTES = 256 * 1024


@dataclass
class Message:
    """A request or an answer: its first line, its headers (lower-case names) and its whole body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        """Return a header's value, or nothing."""
        return next((value for known, value in self.headers if known.lower() == name), "")

    def without(self, *names: str) -> list[tuple[str, str]]:
        """Return the headers without some."""
        return [pair for pair in self.headers if pair[0].lower() not in names]

    def head(self) -> bytes:
        """Return the first line and the headers as they travel."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    @property
    def status(self) -> int:
        """Return an answer's status."""
        return int(self.first.split(" ", 2)[1])


@dataclass(frozen=True)
class Call:
    """What an AWS request asks for. S3: action is the method, and bucket and key are set."""

    service: str
    action: str
    bucket: str = ""
    key: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    copy_source: str = ""

    @property
    def is_write(self) -> bool:
        """Say whether it changes something."""
        if self.service == "s3":
            return self.action in {"PUT", "POST", "DELETE"}
        return self.action in {
            "UpdateItem",
            "PutItem",
            "TransactWriteItems",
            "SendMessage",
            "DeleteMessage",
            "ChangeMessageVisibility",
        }


async def read_head(reader: asyncio.StreamReader) -> Message | None:
    """Return a message without its body, or None at the connection's end."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Message(first, headers)


async def read_body(reader: asyncio.StreamReader, message: Message) -> None:
    """Read the body that the headers announce; a chunked one is put together and loses its chunks."""
    if "chunked" in message.header("transfer-encoding").lower():
        message.body = await _read_chunks(reader)
        message.headers = [
            *message.without("transfer-encoding", "content-length"),
            ("content-length", str(len(message.body))),
        ]
        return
    length = int(message.header("content-length") or 0)
    message.body = await reader.readexactly(length) if length else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        continue
    return b"".join(parts)


def call_of(request: Message) -> Call:
    """Return what a request asks for. The signature names the service."""
    method, target, _ = request.first.split(" ", 2)
    scope = request.header("authorization").partition("Credential=")[2].partition(",")[0].split("/")
    service = scope[3] if len(scope) > 3 else ""
    named = request.header("x-amz-target").rpartition(".")[2]
    if service != "s3":
        if not named:
            named = parse_qs(request.body.decode("latin-1")).get("Action", [""])[0]
        return Call(service, named)
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    return Call(
        service,
        method,
        bucket,
        key,
        parse_qs(parts.query, keep_blank_values=True),
        unquote(request.header("x-amz-copy-source")).lstrip("/"),
    )
