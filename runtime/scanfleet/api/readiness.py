"""Whether the API can do its work: table, queues and buckets answer, found out in bounded time."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from scanfleet.api.services import Services
from scanfleet.errors import ScanfleetError, Unavailable
from scanfleet.settings import ApiSettings

CHECK_SECONDS = 2.0
"""A load balancer's health check gives up after a few seconds; boto3's own retries take longer than that."""


class _Probe:
    """One question to a service. At most one is under way: a dead service does not pile up threads."""

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self._name = name
        self._ask = ask
        self._lock = threading.Lock()
        self._under_way: Future[None] | None = None

    def start(self) -> Future[None]:
        """Return the answer to come, of the question under way or of a new one."""
        with self._lock:
            if self._under_way is None or self._under_way.done():
                self._under_way = Future()
                threading.Thread(
                    target=self._run, args=(self._under_way,), name=f"probe {self._name}", daemon=True
                ).start()
            return self._under_way

    def _run(self, answer: "Future[None]") -> None:
        try:
            self._ask()
        except Exception as error:  # noqa: BLE001 - whatever it was belongs to who waits for the answer
            answer.set_exception(error)
        else:
            answer.set_result(None)

    def reason(self, answer: "Future[None]", deadline: float) -> str | None:
        """Return why the service is not usable, or None."""
        try:
            answer.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return f"{self._name} did not answer within {CHECK_SECONDS:g} s"
        except ScanfleetError as error:
            return f"{self._name}: {error}"
        return None


class Readiness:
    """Asks table, queues and buckets side by side."""

    def __init__(self, services: Services, settings: ApiSettings) -> None:
        self._probes = tuple(_probes(services, settings))

    def check(self) -> None:
        """Return when everything answers. Raises Unavailable that says what does not."""
        deadline = time.monotonic() + CHECK_SECONDS
        answers = [(probe, probe.start()) for probe in self._probes]
        reasons = [probe.reason(answer, deadline) for probe, answer in answers]
        wrong = [reason for reason in reasons if reason is not None]
        if wrong:
            raise Unavailable("; ".join(wrong))


def _probes(services: Services, settings: ApiSettings) -> Iterator[_Probe]:
    yield _Probe("job table", services.store.check)
    for pool in services.queues.pools:
        yield _Probe(f"queue of {pool}", partial(services.queues.backlog, pool))
    for bucket in sorted({settings.artifacts_bucket, settings.uploads_uri.split("/")[2]}):
        yield _Probe(f"bucket {bucket}", partial(_require_bucket, services, bucket))


def _require_bucket(services: Services, bucket: str) -> None:
    if not services.objects.bucket_exists(bucket):
        raise Unavailable("there is no such bucket")
