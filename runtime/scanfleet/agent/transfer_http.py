"""S3 requests as lean as they can be: signed by hand, over connections that stay open.

botocore spends about 0.8 ms of CPU on a call; 5,000 small files are 4 s of one core before a byte has moved.
A request here costs about 0.06 ms. It does what bulk transfer needs and no more: GET and PUT of objects.
Everything else goes through boto3. docs/decisions/0020-transfer.md has the measurements.

Source: S3 API reference, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)".
"""

import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from botocore.credentials import Credentials
from botocore.httpsession import get_cert_path

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 30.0
READ_BUFFER_BYTES = 64 * 1024
MAX_TEXT_BYTES = 16 * 1024**2
"""Of an error or a page of a listing: 1,000 keys of 1,024 bytes, each up to three times as long encoded."""
MAX_LINE_BYTES = 64 * 1024
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class BrokenAnswer(OSError):
    """What came back is not a whole HTTP answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where one bucket is served.

    base_path: "" or "/bucket", without a closing slash, percent-encoded.
    region: for the signature.
    """

    is_tls: bool
    host: str
    port: int
    host_header: str
    base_path: str
    region: str

    @classmethod
    def of(cls, client: "S3Client", bucket: str) -> "Endpoint":
        """Return where `client` would send this bucket's requests.

        Asked of boto3 by presigning a call, so that its rules for regions, addressing styles and custom
        endpoints are followed and not repeated.
        """
        url = client.generate_presigned_url("head_object", Params={"Bucket": bucket, "Key": "-"})
        parts = urlsplit(url)
        scope = next(p for p in parts.query.split("&") if p.startswith("X-Amz-Credential=")).split("%2F")
        is_tls = parts.scheme == "https"
        return cls(
            is_tls=is_tls,
            host=parts.hostname or "",
            port=parts.port or (443 if is_tls else 80),
            host_header=parts.netloc,
            base_path=parts.path.removesuffix("/-"),
            region=scope[2],
        )


class Signer:
    """Adds Signature Version 4 to requests; the day's key is derived once. Threads may share one."""

    def __init__(self, credentials: Credentials, endpoint: Endpoint) -> None:
        self._credentials = credentials
        self._endpoint = endpoint
        self._key_for: tuple[str, str] = ("", "")
        self._key = b""

    def request_head(
        self, method: str, key: str, query: str, headers: Mapping[str, str], payload_sha256: str
    ) -> bytes:
        """Return the signed request line and headers of a request for the object `key`.

        query: canonical, that is sorted and percent-encoded. headers: lower-case names; all are signed.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        # Frozen: a refresh between reading the secret and the token would mix two identities.
        identity = self._credentials.get_frozen_credentials()
        path = (
            f"{self._endpoint.base_path}/{quote(key, safe='/~')}" if key else self._endpoint.base_path or "/"
        )
        signed = {
            **headers,
            "host": self._endpoint.host_header,
            "x-amz-content-sha256": payload_sha256,
            "x-amz-date": now,
        }
        if identity.token:
            signed["x-amz-security-token"] = identity.token
        names = sorted(signed)
        lines = "".join(f"{name}:{signed[name]}\n" for name in names)
        listed = ";".join(names)
        canonical = f"{method}\n{path}\n{query}\n{lines}\n{listed}\n{payload_sha256}"
        scope = f"{now[:8]}/{self._endpoint.region}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key_bytes = self._day_key(now[:8], identity.secret_key or "")
        signature = hmac.digest(key_bytes, to_sign.encode(), "sha256").hex()
        target = f"{path}?{query}" if query else path
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={identity.access_key}/{scope}, "
            f"SignedHeaders={listed}, Signature={signature}"
        )
        plain = "".join(f"{name}: {signed[name]}\r\n" for name in names)
        return f"{method} {target} HTTP/1.1\r\n{plain}authorization: {authorization}\r\n\r\n".encode()

    def _day_key(self, day: str, secret: str) -> bytes:
        if self._key_for != (day, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, self._endpoint.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key, self._key_for = key, (day, secret)
        return self._key


def _number(text: str, *, base: int) -> int:
    """Return a length from the wire. Raises BrokenAnswer, which another try may mend."""
    try:
        number = int(text, base)
    except ValueError as error:
        raise BrokenAnswer(f"no length: {text[:40]!r}") from error
    if number < 0:
        raise BrokenAnswer(f"no length: {text[:40]!r}")
    return number


class Answer:
    """One answer: its status, its headers (lower-case names) and its body, still on the wire."""

    def __init__(self, reader: BufferedReader, status: int, headers: dict[str, str], method: str) -> None:
        self.status = status
        self.headers = headers
        self._reader = reader
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        no_body = method == "HEAD" or status in (204, 304)
        self.body_bytes = 0 if no_body else _number(headers.get("content-length", "0"), base=10)
        """Length of the body; 0 when it comes in chunks, see `read_all`."""
        self._left = self.body_bytes

    @property
    def is_success(self) -> bool:
        """Say whether S3 did what was asked."""
        return 200 <= self.status < 300

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as the body reaches; return how many bytes that were, 0 at its end."""
        wanted = min(len(buffer), self._left)
        if wanted == 0:
            return 0
        count = self._reader.readinto(buffer[:wanted])
        if not count:
            raise BrokenAnswer(f"the connection ended {self._left} bytes before the body did")
        self._left -= count
        return count

    def read_all(self) -> bytes:
        """Return a body that is text: an error, a page of a listing."""
        if self._is_chunked:
            return self._read_chunks()
        if self._left > MAX_TEXT_BYTES:
            raise BrokenAnswer("the answer is too large to be a text")
        body = self._reader.read(self._left)
        if len(body) < self._left:
            raise BrokenAnswer("the connection ended before the body did")
        self._left = 0
        return body

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            line = self._reader.readline(MAX_LINE_BYTES).split(b";")[0]
            size = _number(line.decode("latin-1"), base=16)
            if len(body) + size > MAX_TEXT_BYTES:
                raise BrokenAnswer("the answer is too large to be a text")
            chunk = self._reader.read(size)
            if len(chunk) < size:
                raise BrokenAnswer("the connection ended within a chunk")
            body += chunk
            while (line := self._reader.readline(MAX_LINE_BYTES)) not in (b"\r\n", b""):
                if size:
                    raise BrokenAnswer(f"no end of chunk: {line[:40]!r}")
            if size == 0:
                self._is_chunked = False
                return bytes(body)

    @property
    def leaves_connection_usable(self) -> bool:
        """Say whether another request may follow on the connection."""
        keeps = self.headers.get("connection", "").lower() != "close"
        return keeps and self._left == 0 and not self._is_chunked


class Connection:
    """One connection to an endpoint, opened at need. One thread uses it; another one may `interrupt` it."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._socket: socket.socket | None = None
        self._reader: BufferedReader | None = None
        self._last: Answer | None = None

    def start(self, head: bytes) -> None:
        """Send a request's head (and a small body joined to it), over the open connection if it is usable."""
        if self._last is not None and not self._last.leaves_connection_usable:
            self.close()
        self._last = None
        self._open().sendall(head)

    def send(self, data: memoryview) -> None:
        """Send a piece of the request's body."""
        assert self._socket is not None, "start comes first"
        self._socket.sendall(data)

    def finish(self, method: str) -> Answer:
        """Return the answer to the request sent."""
        assert self._reader is not None, "start comes first"
        status, headers = _read_head(self._reader)
        while 100 <= status < 200:
            status, headers = _read_head(self._reader)
        self._last = Answer(self._reader, status, headers, method)
        return self._last

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._reader is not None:
            self._reader.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._reader = self._last = None

    def interrupt(self) -> None:
        """Make the thread that waits on this connection fail at once."""
        current = self._socket
        if current is not None:
            with suppress(OSError):  # already closed: nobody waits on it
                current.shutdown(socket.SHUT_RDWR)

    def _open(self) -> socket.socket:
        if self._socket is None:
            address = (self._endpoint.host, self._endpoint.port)
            plain = socket.create_connection(address, timeout=CONNECT_TIMEOUT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened = plain
            if self._tls is not None:
                opened = self._tls.wrap_socket(plain, server_hostname=self._endpoint.host)
            opened.settimeout(READ_TIMEOUT_SECONDS)
            self._socket = opened
            self._reader = BufferedReader(opened.makefile("rb", buffering=0), READ_BUFFER_BYTES)
        return self._socket


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return how to verify the endpoint; None where it is plain HTTP.

    Trusted are the system's certificates and boto3's bundle: a fresh Windows fetches its roots only when its
    own libraries first need them, and Python is none of those.
    """
    if not endpoint.is_tls:
        return None
    context = ssl.create_default_context()
    context.load_verify_locations(cafile=get_cert_path(True))
    return context


def _read_head(reader: BufferedReader) -> tuple[int, dict[str, str]]:
    first = reader.readline(MAX_LINE_BYTES)
    if not first:
        raise BrokenAnswer("the connection was closed without an answer")
    words = first.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise BrokenAnswer(f"not an HTTP answer: {first[:60]!r}")
    lines = []
    while (line := reader.readline(MAX_LINE_BYTES)) not in (b"\r\n", b"\n"):
        if not line:
            raise BrokenAnswer("the connection was closed within the headers")
        lines.append(line)
    headers: dict[str, str] = {}
    for text in b"".join(lines).decode("latin-1").splitlines():
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    return int(words[1]), headers
