"""A small Scanfleet service over real HTTP, for tests of the client and the command line.

It keeps the rules that a client can see (docs/api.md): idempotency keys, states and which calls they allow,
problem documents, presigned URLs that name one object, lengths that must be the announced ones. A job moves
one step of its script each time that it is read, so that nothing here depends on time.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from scanfleet.jobs import new_job_id

UPLOADS = "s3://data/uploads/local/"
STEPS: tuple[dict[str, Any], ...] = (
    {"status": "queued", "why_waiting": "no free slot"},
    {"status": "downloading"},
    {"status": "processing", "stage": "align", "progress_percent": 40.0},
    {"status": "uploading", "stage": "align", "progress_percent": 100.0},
    {"status": "completed", "progress_percent": 100.0},
)
FAILING = (
    STEPS[0],
    {
        "status": "failed",
        "failure": {
            "failure_class": "bad_input",
            "reason": "scan_03.ply is truncated",
            "attempt": 1,
            "at": "2026-01-02T03:04:05Z",
        },
    },
)
STATES = {step["status"] for step in STEPS} | {"failed", "cancelled"}
ENDED = {"completed", "failed", "cancelled"}


class Standin:
    """The service's memory. Tests read it and script what it does next."""

    def __init__(self) -> None:
        self.url = ""
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}
        """By URI."""
        self.jobs: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, tuple[dict[str, Any], str]] = {}
        self.steps = STEPS
        """The script of jobs that are submitted from now on."""
        self.calls: list[tuple[str, str]] = []
        self.broken: dict[str, list[int]] = {}
        """Path -> statuses that it answers, one a call, before it works."""
        self.extra_results: dict[str, bytes] = {}
        self.manifest_files_shown = 100
        self.page_size = 2
        self.examined_at_most: int | None = None
        """How many jobs one page looks at, those that its filter leaves out included."""
        self.log = "".join(f"line {n}\n" for n in range(5))

    # --- What tests do with it -----------------------------------------------------------------------------

    def tamper(self, uri: str, content: bytes) -> None:
        """Change a stored object behind the job's back."""
        assert uri in self.objects
        self.objects[uri] = content

    # --- The service's rules -------------------------------------------------------------------------------

    def submit(self, body: dict[str, Any], key: str | None) -> tuple[int, Any]:
        if key in self.keys:
            request, job_id = self.keys[key]
            if request != body:
                return problem(409, "this Idempotency-Key was used for another request")
            return 202, {"job_id": job_id, "status": "started"}
        bad = [name for name in body.get("settings", {}) if name not in {"Use GPU", "Complete Type"}]
        if bad:
            error = {"field": f"settings.{bad[0]}", "message": "unknown setting", "value": "1"}
            return problem(422, "refused", errors=[error | {"allowed": "Use GPU, Complete Type"}])
        if not any(uri.startswith(body["source"]) for uri in self.objects):
            error = {"field": "source", "message": "the folder does not exist or is empty"}
            return problem(422, "refused", errors=[error | {"value": body["source"]}])
        job_id = new_job_id()
        self.jobs[job_id] = {
            "job_id": job_id,
            "status": "queued",
            "processor": body.get("processor", "reference"),
            "pool": "linux-cpu",
            "priority": body.get("priority", "normal"),
            "owner": "local",
            "source": body["source"],
            "target": body["target"],
            "settings": body["settings"],
            "tags": body["tags"],
            "attempt": 1,
            "timestamps": {"created": "2026-01-02T03:04:00Z", "queued": "2026-01-02T03:04:00Z"},
            "script": list(self.steps),
            "body": body,
        }
        if key is not None:
            self.keys[key] = (body, job_id)
        return 202, {"job_id": job_id, "status": "started"}

    def read(self, job_id: str) -> tuple[int, Any]:
        job = self.jobs.get(job_id)
        if job is None:
            return problem(404, f"there is no job {job_id}")
        if job["script"]:
            job.update({"why_waiting": None, **job["script"].pop(0)})
            if job["status"] == "completed":
                job["result"] = self.publish(job)
        return 200, shown(job)

    def publish(self, job: dict[str, Any]) -> dict[str, Any]:
        """Copy the source as the result, and write the manifest into the target folder."""
        contents = {
            uri.removeprefix(job["source"]): content
            for uri, content in self.objects.items()
            if uri.startswith(job["source"])
        } | self.extra_results
        files = [
            {"key": key, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for key, content in contents.items()
        ]
        self.objects |= {job["target"] + key: content for key, content in contents.items()}
        manifest_uri = job["target"] + "scanfleet-manifest.json"
        manifest = {"job_id": job["job_id"], "attempt": 1, "processor": job["processor"]}
        whole = manifest | {"target_uri": job["target"], "files": files}
        self.objects[manifest_uri] = json.dumps(whole).encode()
        shown_files = files[: self.manifest_files_shown]
        return {
            "files": len(files),
            "size_bytes": sum(len(content) for content in contents.values()),
            "attempt": 1,
            "manifest_uri": manifest_uri,
            "manifest": {"files": shown_files, "is_truncated": len(shown_files) < len(files)},
        }

    def act(self, job_id: str, action: str) -> tuple[int, Any]:
        job = self.jobs.get(job_id)
        if job is None:
            return problem(404, f"there is no job {job_id}")
        allowed = {"failed", "cancelled", "queued"} if action == "retry" else STATES - ENDED
        if job["status"] not in allowed:
            return problem(409, f"job {job_id} is {job['status']}")
        if action == "retry":
            job.update(status="queued", script=list(self.steps))
        else:
            job.update(status="cancelled", script=[])
        return 202, shown(job)

    def page(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        status, tags = query["status"][0], query.get("tag", [])
        listed = list(reversed(self.jobs.values()))
        start = int(query.get("cursor", ["0"])[0])
        end, found = start, []
        while end < len(listed) and len(found) < min(self.page_size, int(query["limit"][0])):
            if self.examined_at_most is not None and end - start >= self.examined_at_most:
                break
            if is_wanted(listed[end], status, tags):
                found.append(listed[end])
            end += 1
        return 200, {
            "jobs": [shown(job) for job in found],
            "next_cursor": str(end) if end < len(listed) else None,
        }

    def log_page(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        lines = self.log.splitlines()
        if "after" not in query:
            return 200, {"attempt": 1, "lines": lines[-int(query["tail_lines"][0]) :], "next": "9-9"}
        start = int(query["after"][0].removeprefix("0-"))
        end = min(start + self.page_size, len(lines))
        return 200, {"attempt": 1, "lines": lines[start:end], "next": f"0-{end}"}

    def presign(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        uri, mode = query["file"][0], query["mode"][0]
        if mode == "upload" and not uri.startswith(UPLOADS):
            return problem(
                422, "refused", errors=[{"field": "file", "message": "is not yours", "value": uri}]
            )
        headers = {"Content-Length": query["size_bytes"][0]} if mode == "upload" else {}
        return 200, {
            "url": f"{self.url}/storage/{quote(uri.removeprefix('s3://'))}?signature=secret",
            "method": "PUT" if mode == "upload" else "GET",
            "expires_in_seconds": 900,
            "headers": headers,
            "uri": uri,
        }

    def answer(self, method: str, target: str, body: bytes, headers: Any) -> tuple[int, Any]:
        """Return status and answer: a dict is JSON, a str plain text, bytes as they are."""
        parts = urlsplit(target)
        path, query = parts.path, parse_qs(parts.query)
        self.calls.append((method, path))
        if self.broken.get(path):
            return problem(self.broken[path].pop(0), "the table did not answer")
        match [method, *path.strip("/").split("/")]:
            case ["PUT", "storage", *_]:
                self.objects["s3://" + unquote(path.removeprefix("/storage/"))] = body
                return 200, b""
            case ["GET", "storage", *_]:
                uri = "s3://" + unquote(path.removeprefix("/storage/"))
                return (200, self.objects[uri]) if uri in self.objects else (404, b"NoSuchKey")
            case ["POST", "jobs"]:
                return self.submit(json.loads(body), headers["Idempotency-Key"])
            case ["GET", "jobs"]:
                return self.page(query)
            case ["GET", "job", job_id]:
                return self.read(job_id)
            case ["GET", "job", _, "log"]:
                return self.log_page(query)
            case ["POST", "job", job_id, ("cancel" | "retry") as action]:
                return self.act(job_id, action)
            case ["GET", "uploads"]:
                return 200, {"uri": UPLOADS}
            case ["GET", "presign"]:
                return self.presign(query)
            case ["GET", "status", "health"]:
                return 200, {"status": "ready"}
            case ["GET", "status", "load"]:
                pool = {"slots": 2, "busy": 1, "backlog": 3}
                return 200, {
                    "pools": {"linux-cpu": pool},
                    "instances": [{"agent_id": "agent-1", "slots": 2, "job_ids": ["A"]}],
                }
        return problem(404, f"there is nothing at {path}")


def is_wanted(job: dict[str, Any], status: str, tags: list[str]) -> bool:
    """Say whether a list with this filter shows the job."""
    is_active = job["status"] not in ENDED
    return (status == "all" or (is_active if status == "active" else job["status"] == status)) and all(
        job["tags"].get(tag.partition(":")[0]) == tag.partition(":")[2] for tag in tags
    )


def shown(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name not in {"script", "body"}}


def problem(status: int, detail: str, *, errors: list[dict[str, Any]] | None = None) -> tuple[int, Any]:
    return status, {
        "type": "urn:scanfleet:problem:test",
        "title": "A problem",
        "status": status,
        "detail": detail,
        "errors": errors or [],
    }


@contextmanager
def running_standin() -> Iterator[Standin]:
    """Give a service on a free port of this machine; stopped afterwards."""
    service = Standin()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes; waiting to join them costs 40 ms

        def handle_any(self) -> None:
            announced = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(announced)
            if len(body) < announced:
                self.close_connection = True  # the client hung up half-way: nothing of this counts
                return
            with service.lock:
                status, answer = service.answer(self.command, self.path, body, self.headers)
            content, kind = encoded(answer, status)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.handle_any()

        do_POST = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *args: Any) -> None:
            """Say nothing: the calls are in `service.calls`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def encoded(answer: Any, status: int) -> tuple[bytes, str]:
    if isinstance(answer, bytes):
        return answer, "application/octet-stream"
    if isinstance(answer, str):
        return answer.encode(), "text/plain; charset=utf-8"
    return json.dumps(answer).encode(), "application/json" if status < 400 else "application/problem+json"
