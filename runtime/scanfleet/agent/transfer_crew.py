"""The threads of one transfer: they grow while they mostly wait, and stop at once when told to."""

import logging
import random
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from scanfleet.agent.transfer_http import EMPTY_SHA256, Answer, Connection, Endpoint, Signer
from scanfleet.errors import ConfigurationError, Conflict, JobFailure, NotFound, ScanfleetError, Unavailable
from scanfleet.jobs import FailureClass
from scanfleet.log_context import ContextThread
from scanfleet.s3_uri import S3Uri

log = logging.getLogger(__name__)

FIRST_THREADS = 4
MAX_THREADS = 64
GROW_BY = 4
IDLE_SHARE = 0.6
"""Threads are added while the process uses less of one core than this: then it waits for the network. Above
it more threads would only fight for the interpreter's lock."""
TICK_SECONDS = 0.1
BUFFER_BYTES = 512 * 1024
MAX_TRIES = 6
FIRST_DELAY_SECONDS = 0.2
"""Wait before the third try, doubled for each further one. The second try comes at once: servers close
connections that stood idle, and that says nothing about their health."""
STOP_WAIT_SECONDS = 0.5

OnBytes = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), by the caller's own thread."""
ShouldStop = Callable[[], bool]


class TransferStopped(ScanfleetError):
    """The caller asked to stop; what was transferred so far is incomplete."""


class _Busy(OSError):
    """S3 asks to try again."""


class Worker:
    """What one thread works with: its connection, its buffer, and the way to report and to notice a stop."""

    def __init__(self, crew: "Crew", connection: Connection) -> None:
        self._crew = crew
        self.connection = connection
        self.buffer = memoryview(bytearray(BUFFER_BYTES))

    def request(
        self,
        method: str,
        uri: S3Uri,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        sha256: str = EMPTY_SHA256,
        body: bytes | memoryview = b"",
        more: Callable[[], Iterator[memoryview]] | None = None,
        named: S3Uri | None = None,
    ) -> Answer:
        """Return S3's answer to one request, successful; its body is still to be read.

        more: yields the rest of the request's body, piece by piece. named: what a failure calls it, if not by
        `uri`. Raises OSError where another try may
        help and JobFailure where none will.
        """
        head = self._crew.signer.request_head(method, uri.key, query, headers or {}, sha256)
        self.connection.start(head + body)
        if more is not None:
            self._send_rest(more())
        answer = self.connection.finish(method)
        if not answer.is_success:
            raise _error_of(answer, named or uri)
        return answer

    def _send_rest(self, pieces: Iterator[memoryview]) -> None:
        try:
            for piece in pieces:
                self.connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a body answers and hangs up; the answer says why, if it still came.
            log.debug("the server hung up within a request", exc_info=True)

    def retrying(self, uri: S3Uri, operation: Callable[[], "Result"]) -> "Result":
        """Return the operation's result, tried again while S3 is busy or the connection breaks."""
        for tries in range(1, MAX_TRIES + 1):
            self.check_stop()
            try:
                return operation()
            except ssl.SSLCertVerificationError as error:
                raise JobFailure(FailureClass.TRANSFER, f"{uri}: {error}") from error
            except OSError as error:
                self.connection.close()
                if tries == MAX_TRIES:
                    reason = f"{uri}: gave up after {tries} tries: {error}"
                    raise JobFailure(FailureClass.TRANSFER, reason) from error
                if tries > 1:
                    self._crew.stopping.wait(FIRST_DELAY_SECONDS * 2 ** (tries - 2) * random.uniform(0.5, 1))
        raise AssertionError("the last try returns or raises")

    def check_stop(self) -> None:
        """Raise TransferStopped when the transfer is to stop."""
        if self._crew.stopping.is_set():
            raise TransferStopped("the transfer was stopped")

    def count(self, bytes_done: int) -> None:
        """Add to the bytes done; negative when a try's bytes did not count."""
        self._crew.count(bytes_done)

    @property
    def files_lock(self) -> threading.Lock:
        """Hold it while a file is created or renamed.

        Threads that create files in one folder wait for the folder in the kernel, spinning: 5,000 files then
        cost half as much CPU time again.
        """
        return self._crew.files_lock


Result = TypeVar("Result")
Task = Callable[[Worker], None]


class Crew:
    """Runs the tasks of one transfer."""

    def __init__(self, endpoint: Endpoint, signer: Signer, tls: ssl.SSLContext | None) -> None:
        self.signer = signer
        self.stopping = threading.Event()
        self.files_lock = threading.Lock()
        self._endpoint = endpoint
        self._tls = tls
        self._tasks: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        self._bytes_done = 0
        self._running = 0
        self._finished = threading.Event()
        self._failure: BaseException | None = None

    def run(
        self, tasks: Iterable[Task], *, total_bytes: int, on_bytes: OnBytes, should_stop: ShouldStop
    ) -> None:
        """Return when every task is done; raises the first failure, or TransferStopped.

        `on_bytes` and `should_stop` are called by this thread, about ten times a second.
        """
        self._tasks.extend(tasks)
        try:
            self._hire(min(FIRST_THREADS, len(self._tasks)))
            self._watch(total_bytes, on_bytes, should_stop)
        finally:
            self._dismiss()
        if self._failure is not None:
            raise self._failure
        on_bytes(self._bytes_done, total_bytes)

    def count(self, bytes_done: int) -> None:
        """Add to the bytes done."""
        with self._lock:
            self._bytes_done += bytes_done

    def _watch(self, total_bytes: int, on_bytes: OnBytes, should_stop: ShouldStop) -> None:
        cpu, wall = time.process_time(), time.monotonic()
        while self._threads and not self._finished.wait(TICK_SECONDS):
            on_bytes(self._bytes_done, total_bytes)
            if should_stop():
                raise TransferStopped("the transfer was stopped")
            cpu_before, wall_before = cpu, wall
            cpu, wall = time.process_time(), time.monotonic()
            if cpu - cpu_before < IDLE_SHARE * (wall - wall_before):
                self._hire(min(GROW_BY, MAX_THREADS - len(self._threads), len(self._tasks)))

    def _hire(self, count: int) -> None:
        for _ in range(count):
            connection = Connection(self._endpoint, self._tls)
            self._connections.append(connection)
            with self._lock:
                self._running += 1
            # Daemons: one that still waits for a connection must not keep a stopped agent alive.
            thread = ContextThread(target=self._work, args=(connection,), name="transfer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, connection: Connection) -> None:
        worker = Worker(self, connection)
        try:
            while not self.stopping.is_set():
                try:
                    task = self._tasks.popleft()
                except IndexError:
                    return
                task(worker)
        except BaseException as failure:  # noqa: BLE001 - `run` raises it in the caller's thread
            self._fail(failure)
        finally:
            connection.close()
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._finished.set()

    def _fail(self, failure: BaseException) -> None:
        with self._lock:
            if self._failure is None and not self.stopping.is_set():
                self._failure = failure
        self.stopping.set()
        self._finished.set()

    def _dismiss(self) -> None:
        """Leave no thread at work: they end by themselves when all is done, otherwise they are cut off."""
        if self._tasks or self._running:
            self.stopping.set()
            for connection in self._connections:
                connection.interrupt()
        give_up_at = time.monotonic() + STOP_WAIT_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))


@contextmanager
def local_file(path: Path) -> Iterator[None]:
    """Turn the disk's errors inside into a JobFailure, so that they are not taken for the network's."""
    try:
        yield
    except OSError as error:
        raise JobFailure(FailureClass.TRANSFER, f"the local file {path.name}: {error}") from error


@contextmanager
def as_job_failure() -> Iterator[None]:
    """Turn the errors of `objects` inside into what they mean for the attempt.

    Uploads go to a bucket of ours: one that is missing there is no fault of the job's input.
    """
    try:
        yield
    except (NotFound, Unavailable, Conflict, ConfigurationError) as error:
        raise JobFailure(FailureClass.TRANSFER, str(error)) from error


_ERROR_CODE = re.compile(rb"<Code>([^<]*)</Code>")
_ERROR_TEXT = re.compile(rb"<Message>([^<]*)</Message>")
_TRY_AGAIN_CODES = frozenset({"RequestTimeout", "SlowDown", "OperationAborted", "ExpiredToken"})
_TRY_AGAIN_STATUS = frozenset({408, 429})


def _error_of(answer: Answer, uri: S3Uri) -> Exception:
    body = answer.read_all()
    code, text = (
        found[1].decode("utf-8", "replace") if (found := pattern.search(body)) else ""
        for pattern in (_ERROR_CODE, _ERROR_TEXT)
    )
    said = f"{answer.status} {code} {text}".strip()
    if answer.status >= 500 or answer.status in _TRY_AGAIN_STATUS or code in _TRY_AGAIN_CODES:
        return _Busy(f"S3 is busy ({said})")
    if answer.status == 404 and code != "NoSuchUpload":
        what = "bucket" if code == "NoSuchBucket" else "object"
        return JobFailure(FailureClass.BAD_INPUT, f"{uri}: there is no such {what}")
    if answer.status == 412:
        return JobFailure(FailureClass.TRANSFER, f"{uri}: the object changed while it was downloaded")
    return JobFailure(FailureClass.TRANSFER, f"{uri}: S3 refused it ({said})")
