"""Runs one program to its end, or stops it: by request, or when its watch says so."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from scanfleet.agent.output import ProgramLog, ProgressBoard, pump
from scanfleet.agent.program import RunningProgram, starter
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent.usage import account_of
from scanfleet.agent.usage_meter import UsageMeter
from scanfleet.agent.watch import Watch
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.log_context import ContextThread
from scanfleet.processors.base import Invocation, Processor, ProgramExit

log = logging.getLogger(__name__)

KILL_SECONDS = 30.0
"""A killed tree is gone at once, unless a process is stuck in the kernel: then the job goes on without it."""
PIPE_DRAIN_SECONDS = 5.0
"""After the whole tree is gone its pipes end at once; this only bounds what should not happen."""


class ProgramStopped(Exception):
    """The program was stopped on request; `StopRequest.reason` says why."""


@dataclass(frozen=True)
class Runner:
    """How programs are run on this machine."""

    grace: timedelta
    start: Callable[[Invocation], RunningProgram] | None = None
    clock: Callable[[], float] = time.monotonic

    def run(
        self,
        invocation: Invocation,
        *,
        processor: Processor,
        program_log: ProgramLog,
        board: ProgressBoard,
        stop: StopRequest,
        watch: Watch,
        usage: UsageMeter | None = None,
    ) -> None:
        """Run the program to a successful end. usage: gets the system's account of it all.

        Raises JobFailure when it fails or `watch` ends it, ProgramStopped when `stop` was set. Whatever the
        outcome, none of its processes is left when this returns.
        """
        try:
            program = (self.start or starter())(invocation)
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the command line
            raise JobFailure(
                FailureClass.PROGRAM_ERROR, f"{invocation.argv[0]} could not be started: {error}"
            ) from error
        started_at = self.clock()
        facts = {"action": "program_started", "pid": program.pid, "release": processor.release}
        log.info("program started", extra=facts)
        readers = _start_readers(program, processor, program_log, board)
        try:
            exit_code, verdict = self._wait(program, stop, watch)
        finally:
            seconds = self.clock() - started_at
            program.kill()
            for reader in readers:
                reader.join(PIPE_DRAIN_SECONDS)
            if usage is not None and (account := account_of(program)) is not None:
                usage.ended(seconds, cpu_seconds=account.cpu_seconds, memory_bytes=account.peak_process_bytes)
            program.close()
        facts = {"action": "program_ended", "pid": program.pid, "exit_code": exit_code}
        log.info("program ended", extra=facts)
        if stop.is_set():
            raise ProgramStopped
        if verdict is not None:
            raise verdict
        failure = processor.explain_exit(ProgramExit(exit_code, board.failure_reason))
        if failure is not None:
            raise failure

    def _wait(
        self, program: RunningProgram, stop: StopRequest, watch: Watch
    ) -> tuple[int, JobFailure | None]:
        """Return the exit code, and the watch's verdict if that was what ended the program."""
        verdict: JobFailure | None = None
        changed = threading.Event()
        exit_codes: list[int] = []

        def await_exit() -> None:
            try:
                exit_codes.append(program.wait())
            finally:
                changed.set()

        waiter = ContextThread(target=await_exit, name=f"wait-{program.pid}", daemon=True)
        waiter.start()
        stop.listen(changed.set)
        try:
            while verdict is None and not changed.wait(watch.interval.total_seconds()):
                verdict = watch.look(program)
        finally:
            stop.forget(changed.set)
        if not exit_codes:
            self._end(program, waiter, at_once=stop.reason is StopReason.LEASE_LOST)
        waiter.join(KILL_SECONDS)
        if not exit_codes:
            raise JobFailure(
                FailureClass.HANG,
                f"the program (process {program.pid}) could not be killed",
                condemns_machine=True,
            )
        return exit_codes[0], verdict

    def _end(self, program: RunningProgram, waiter: threading.Thread, *, at_once: bool) -> None:
        """Ask, wait for the grace, kill the whole tree. Without the lease there is no time for grace."""
        if not at_once:
            program.ask_to_stop()
            waiter.join(self.grace.total_seconds())
        program.kill()


def _start_readers(
    program: RunningProgram, processor: Processor, program_log: ProgramLog, board: ProgressBoard
) -> list[threading.Thread]:
    def on_line(line: str) -> None:
        progress = processor.read_line(line)
        if progress is not None:
            board.update(progress)

    readers: list[threading.Thread] = [
        ContextThread(
            target=pump, args=(pipe, program_log, on_line), name=f"{name}-{program.pid}", daemon=True
        )
        for name, pipe in (("stdout", program.stdout), ("stderr", program.stderr))
    ]
    for reader in readers:
        reader.start()
    return readers
