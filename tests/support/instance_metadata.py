"""The instance metadata service, version 2, as a local HTTP server that keeps its rules.

Rules, from the EC2 user guide ("Use the Instance Metadata Service to access instance metadata"):
- a question without a token, or with one that is not valid any more, is answered by 401;
- a token is had by PUT with a life time of 1 to 21,600 s, else 400;
- what there is not (no spot notice, no Auto Scaling group) is answered by 404.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from scanfleet.agent.instance import (
    IDENTITY_PATH,
    REBALANCE_PATH,
    SPOT_ACTION_PATH,
    TARGET_STATE_PATH,
    TOKEN_PATH,
)


class FakeMetadata:
    """What the service knows: `documents`, by path; change them while it runs."""

    def __init__(self, url: str, identity: dict[str, str]) -> None:
        self.url = url
        self.documents = {IDENTITY_PATH: json.dumps(identity)}
        self.tokens: list[str] = []
        self.is_broken = False

    def want(self, state: str) -> None:
        """Auto Scaling moves the instance to a state."""
        self.documents[TARGET_STATE_PATH] = state

    def take_back(self, time: str) -> None:
        """EC2 gives notice of a spot interruption."""
        self.documents[SPOT_ACTION_PATH] = json.dumps({"action": "terminate", "time": time})

    def advise_to_leave(self, time: str) -> None:
        """EC2 recommends to replace the instance."""
        self.documents[REBALANCE_PATH] = json.dumps({"noticeTime": time})

    def forget_tokens(self) -> None:
        """All tokens end."""
        self.tokens[:] = ["gone"] * len(self.tokens)

    def answer(self, method: str, path: str, headers) -> tuple[int, str]:
        """Return status and body."""
        if self.is_broken:
            return 503, ""
        if method == "PUT" and path == TOKEN_PATH:
            life = headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if not life.isdigit() or not 1 <= int(life) <= 21_600:
                return 400, ""
            self.tokens.append(f"token-{len(self.tokens)}")
            return 200, self.tokens[-1]
        if headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            return 401, ""
        found = self.documents.get(path)
        return (404, "") if found is None else (200, found)


@contextmanager
def fake_metadata(**identity: str) -> Iterator[FakeMetadata]:
    """Serve the metadata of one instance until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _reply(self):
            status, body = fake.answer(self.command, self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self):
            self._reply()

        def do_PUT(self):
            self._reply()

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake = FakeMetadata(f"http://127.0.0.1:{server.server_address[1]}", identity)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
