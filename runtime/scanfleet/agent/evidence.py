"""Saves what can be seen of a program before it is ended: only the living program shows where it stands.

Nothing here may hold the ending up: a machine that hangs may also hang whoever looks at it (a process that
the kernel does not let go of, a driver that does not answer, S3 out of reach). So every part is collected in
a thread of its own, all within one deadline; what is not there by then is left out, and the bundle says so.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from scanfleet.agent.dialogs import dialogs_of
from scanfleet.agent.output import ProgramLog
from scanfleet.agent.process_tree import clean, describe
from scanfleet.agent.program import RunningProgram
from scanfleet.agent.watch import Sample
from scanfleet.evidence import DialogFacts, Evidence, MachineFacts, evidence_uri, to_json
from scanfleet.log_context import ContextThread
from scanfleet.objects import ObjectStore

log = logging.getLogger(__name__)

COLLECT = timedelta(seconds=3)
STORE = timedelta(seconds=5)
"""How long the program's end waits for the bundle, together; usually both take some milliseconds."""
MAX_SAMPLES = 240
MAX_GPU_BYTES = 64 * 1024

Parts = Mapping[str, Callable[[], object]]
GpuState = Callable[[], Mapping[str, Any]]
"""Asks the GPUs for their state; it may never answer."""


class EvidenceSaver:
    """Saves one attempt's bundle to the artifacts bucket. See `watchdog.EvidencePort`."""

    def __init__(
        self,
        objects: ObjectStore,
        *,
        bucket: str,
        job_id: str,
        attempt: int,
        program_log: ProgramLog,
        scratch: Path,
        collect: timedelta = COLLECT,
        store: timedelta = STORE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._uri = evidence_uri(bucket, job_id, attempt)
        self._job_id, self._attempt = job_id, attempt
        self._program_log = program_log
        self._scratch = scratch
        self._collect, self._store = collect, store
        self._clock = clock

    def save(
        self,
        reason: str,
        *,
        program: RunningProgram,
        samples: Sequence[Sample],
        gpu: GpuState | None,
    ) -> bool:
        """Save the bundle; say whether it was stored."""
        facts: dict[str, object] = {
            "job_id": self._job_id,
            "attempt": self._attempt,
            "uri": str(self._uri),
        }
        try:
            bundle = to_json(self._bundle(reason, program, samples, gpu))
            stored, failed = in_threads({"stored": lambda: self._put(bundle)}, within=self._store)
        except Exception:
            # No thread, no memory, a value nobody thought of: the program must be ended all the same.
            log.exception("evidence not saved", extra={"action": "evidence_not_saved", **facts})
            return False
        if failed:
            log.warning(
                "evidence not saved: %s", failed["stored"], extra={"action": "evidence_not_saved", **facts}
            )
        else:
            log.info("evidence saved", extra={"action": "evidence_saved", "bytes": len(bundle), **facts})
        return bool(stored)

    def _bundle(
        self,
        reason: str,
        program: RunningProgram,
        samples: Sequence[Sample],
        gpu: GpuState | None,
    ) -> Evidence:
        parts: Parts = {
            "last_lines": self._program_log.last_lines,
            "processes": lambda: describe(program.process_ids()),
            "dialogs": lambda: _dialogs(program.process_ids()),
            "samples": lambda: tuple(asdict(sample) for sample in samples[-MAX_SAMPLES:]),
            "gpu": lambda: None if gpu is None else _gpu(gpu()),
            "machine": lambda: machine_facts(self._scratch),
        }
        found, missing = in_threads(parts, within=self._collect)
        return Evidence(
            job_id=self._job_id,
            attempt=self._attempt,
            saved_at=datetime.fromtimestamp(self._clock(), tz=UTC),
            reason=reason,
            pid=program.pid,
            missing=missing,
            **found,  # type: ignore[arg-type]
        )

    def _put(self, bundle: bytes) -> bool:
        self._objects.put_bytes(self._uri, bundle, content_type="application/json")
        return True


def in_threads(parts: Parts, *, within: timedelta) -> tuple[dict[str, object], dict[str, str]]:
    """Return what the functions returned by the deadline, and for the others why there is nothing.

    A function that does not return keeps its (daemon) thread, which ends with it.
    """
    found: dict[str, object] = {}
    failed: dict[str, str] = {}
    lock = threading.Lock()

    def collect(name: str, read: Callable[[], object]) -> None:
        try:
            value = read()
        except Exception as error:  # noqa: BLE001 - told in the bundle, whatever it is
            with lock:
                failed[name] = clean(f"{type(error).__name__}: {error}"[:500]) or ""
            return
        with lock:
            found[name] = value

    threads = [
        ContextThread(target=collect, args=part, name=f"evidence-{part[0]}", daemon=True)
        for part in parts.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + within.total_seconds()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    with lock:
        late = {name for name in parts if name not in found and name not in failed}
        seconds = within.total_seconds()
        return dict(found), failed | dict.fromkeys(late, f"was not there within {seconds:g} s")


def machine_facts(scratch: Path) -> MachineFacts:
    """Return the machine's memory, and the disk of the scratch folder. Raises OSError."""
    memory, swap, disk = psutil.virtual_memory(), psutil.swap_memory(), psutil.disk_usage(str(scratch))
    return MachineFacts(
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        swap_used_bytes=swap.used,
        disk_bytes=disk.total,
        disk_free_bytes=disk.free,
    )


def _dialogs(pids: Sequence[int]) -> tuple[DialogFacts, ...]:
    return tuple(
        DialogFacts(pid=dialog.pid, title=dialog.title, text=dialog.text) for dialog in dialogs_of(pids)
    )


def _gpu(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state as JSON has it. Raises ValueError when it is too much for a bundle."""
    text = json.dumps(gpu, default=str)
    if len(text) > MAX_GPU_BYTES:
        raise ValueError(f"{len(text)} bytes are more than a bundle takes ({MAX_GPU_BYTES})")
    parsed: dict[str, Any] = json.loads(text)
    return parsed
