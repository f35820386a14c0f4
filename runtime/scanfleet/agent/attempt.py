"""One attempt at one job, from the lease to the settled record: download, run, stage, commit, publish."""

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from scanfleet import log_context
from scanfleet.agent.lease import Heartbeat
from scanfleet.agent.log_shipping import LogShipper
from scanfleet.agent.machine_time import Share
from scanfleet.agent.message import HeldMessage
from scanfleet.agent.output import ProgramLog, ProgressBoard
from scanfleet.agent.program_stream import ProgramStream
from scanfleet.agent.publication import summary
from scanfleet.agent.runner import ProgramStopped
from scanfleet.agent.running import PROGRAMS
from scanfleet.agent.settling import OnEnd, Settlement
from scanfleet.agent.stopping import StopReason, StopRequest
from scanfleet.agent.tally import Tally
from scanfleet.agent.target_folder import TargetFolder
from scanfleet.agent.tools import Run, Tools
from scanfleet.agent.transfer import TransferStopped
from scanfleet.agent.vitals import Phase, SeenWatch, Vitals
from scanfleet.agent.workspace import Workspace
from scanfleet.contract import Metric
from scanfleet.errors import CancelRequested, JobFailure, LeaseLost, ScanfleetError, TargetLost
from scanfleet.jobs import FailureClass, Job, JobState, Manifest
from scanfleet.leases import Lease
from scanfleet.processors.base import Processor
from scanfleet.queue import Message
from scanfleet.s3_uri import S3Uri
from scanfleet.telemetry import record_bytes, record_stages

log = logging.getLogger(__name__)


class Attempt:
    """Works on one leased job. `run` returns when the job is settled or lost, and never raises."""

    def __init__(
        self,
        tools: Tools,
        lease: Lease,
        message: Message,
        stop: StopRequest,
        on_end: OnEnd | None = None,
        *,
        share: Share | None = None,
    ) -> None:
        """share: the attempt's of the machine's time, if anybody counts it."""
        self._tools = tools
        self._lease = lease
        rules = tools.pulse.rules
        self._message = HeldMessage(message, lease.job, visibility_seconds=rules.visibility_seconds)
        self._stop = stop
        self._on_end = on_end
        self._board = ProgressBoard(time.monotonic)
        self._tally = Tally(board=self._board, share=share)
        self._vitals = Vitals(rules.allowances, time.monotonic)
        self._on_completed: Callable[[], None] | None = None
        """Has the run remembered; None: an earlier attempt's results are published."""

    def run(self) -> None:
        """Work and settle."""
        with log_context.bound(**self._identity()):
            self._run()

    def _identity(self) -> dict[str, object]:
        """Return what each line of this attempt says, whichever of its threads logs it."""
        job = self._lease.job
        processor = self._tools.processors.get(job.processor)
        return {
            "job_id": job.job_id,
            "attempt": job.attempt,
            "owner": job.owner,
            "agent_id": self._lease.agent_id,
            "release": processor.release if processor else None,
            "trace_id": job.trace_id,
        }

    def _run(self) -> None:
        try:
            self._work_and_settle(
                Settlement(
                    self._tools.leases,
                    self._tools.queues,
                    self._message,
                    self._on_end,
                    work=self._tally.close,
                )
            )
        except LeaseLost as lost:
            log.warning("attempt given up: %s", lost, extra=self._facts("attempt_given_up"))
        except ScanfleetError as error:
            # Nothing could be settled: the lease runs out and the message comes back by itself.
            log.error("attempt not settled: %s", error, extra=self._facts("attempt_not_settled"))
        except Exception:
            log.exception("attempt not settled", extra=self._facts("attempt_not_settled"))

    def _work_and_settle(self, settlement: Settlement) -> None:
        job = self._lease.job
        with ExitStack() as stack:
            try:
                workspace = stack.enter_context(self._tools.scratch.workspace(job.job_id, job.attempt))
                settle = self._work_with_heartbeat(workspace, settlement)
            except (OSError, RuntimeError) as error:  # no folder, no log file, no thread: no work was done
                log.exception("the attempt could not begin", extra=self._facts("attempt_failed"))
                reason = f"the machine has no room for the job: {error}"
                settle = partial(settlement.failed, self._lease, JobFailure(FailureClass.TRANSFER, reason))
            settle()

    def _work_with_heartbeat(self, workspace: Workspace, settlement: Settlement) -> Callable[[], None]:
        """Do the work and return what has to be settled; the heartbeat has ended by then."""
        job = self._lease.job
        program_log = ProgramLog(workspace.log_path)
        shipper = LogShipper(
            self._tools.objects,
            bucket=self._tools.artifacts_bucket,
            job_id=job.job_id,
            attempt=job.attempt,
            source=program_log,
            also=self._shown(program_log),
        )
        heartbeat = Heartbeat(
            pulse=self._tools.pulse,
            lease=self._lease,
            message=self._message,
            board=self._board,
            usage=self._tally.usage,
            vitals=self._vitals,
            stop=self._stop,
            on_stuck=partial(self._tell_end, job),
        )
        with ExitStack() as stack:  # undone in reverse order: the heartbeat goes on while the log is shipped
            stack.callback(program_log.close)
            heartbeat.start()
            stack.callback(heartbeat.stop)
            shipper.start()
            stack.callback(shipper.stop)
            stack.callback(self._vitals.begin, Phase.LOG)
            return self._outcome(workspace, program_log, settlement)

    def _shown(self, program_log: ProgramLog) -> Callable[[], None]:
        """Return what shows new output in CloudWatch Logs, where there is a log group for it."""
        if self._tools.new_log_stream is None:
            return lambda: None
        return ProgramStream(program_log, self._tools.new_log_stream(self._lease.job)).ship

    def _outcome(
        self, workspace: Workspace, program_log: ProgramLog, settlement: Settlement
    ) -> Callable[[], None]:
        """Turn how the work ended into what has to be settled. Raises LeaseLost."""
        try:
            manifest = self._work(workspace, program_log)
            self._publish(manifest)
        except LeaseLost:
            raise
        except (ProgramStopped, TransferStopped, CancelRequested) as stopped:
            return self._stopped(settlement, stopped)
        except JobFailure as failure:
            return partial(settlement.failed, self._lease, failure)
        except TargetLost as lost:
            return partial(settlement.failed, self._lease, JobFailure(FailureClass.BAD_INPUT, str(lost)))
        except (ScanfleetError, OSError) as error:  # a service, or this machine's own disk
            transfer = JobFailure(FailureClass.TRANSFER, str(error))
            return partial(settlement.failed, self._lease, transfer)
        except Exception as error:
            log.exception("attempt failed", extra=self._facts("attempt_failed"))
            internal = JobFailure(FailureClass.PROGRAM_ERROR, f"internal error: {error!r}")
            return partial(settlement.failed, self._lease, internal)
        return partial(self._completed, settlement, manifest)

    def _stopped(self, settlement: Settlement, stopped: Exception) -> Callable[[], None]:
        reason = self._stop.reason
        if reason is StopReason.LEASE_LOST:
            raise LeaseLost("the heartbeat lost the lease") from stopped
        if reason is StopReason.AGENT_STOPPING:
            return partial(settlement.handed_back, self._lease)
        if reason is StopReason.STALLED:
            stall = self._stop.failure or JobFailure(FailureClass.TRANSFER, "the attempt stood still")
            return partial(settlement.failed, self._lease, stall)
        return partial(settlement.cancelled, self._lease)

    def _work(self, workspace: Workspace, program_log: ProgramLog) -> Manifest:
        """Do everything up to the commit and return what is to be published. Once committed, always so."""
        if self._lease.job.committed_attempt is None:
            self._check_folders(self._lease.job)
            processor = self._processor(self._lease.job)
            input_bytes = self._download(workspace)
            with processor.pinned() as pinned:  # a release that is activated meanwhile is for the next job
                log_context.add(release=pinned.release)
                self._advance(JobState.PROCESSING, release=pinned.release, input_bytes=input_bytes)
                self._run_program(pinned, workspace, program_log, input_bytes)
            stages = self._board.finish()
            record_stages(self._lease.job, stages, known=processor.stages)
            self._advance(JobState.UPLOADING, stage=None, stage_since=None, stage_seconds=stages)
            return self._stage_and_commit(workspace)
        return self._tools.publication.recorded(self._lease.job)

    def _stage_and_commit(self, workspace: Workspace) -> Manifest:
        job, publication = self._lease.job, self._tools.publication
        self._vitals.begin(Phase.STAGE)
        manifest = publication.stage(
            job, workspace.folders.output, on_bytes=self._vitals.moved, should_stop=self._stop.is_set
        )
        TargetFolder(
            job,
            self._tools.objects,
            read_job=self._tools.leases.get,
            read_manifest=publication.recorded,
        ).check(manifest.files)
        self._lease = self._tools.leases.commit(self._lease)
        return manifest

    def _publish(self, manifest: Manifest) -> None:
        """Publish, say so in the record, then take away whatever could be published from."""
        self._vitals.begin(Phase.PUBLISH)
        if self._lease.job.published_at is None:
            self._tools.publication.publish(manifest, on_copied=self._on_copied)
            self._lease = self._tools.leases.published(self._lease)
        self._tools.publication.clean_up(manifest)

    def _on_copied(self) -> None:
        """Other stops wait: what is committed is soon published."""
        self._vitals.sign()
        if self._stop.reason in (StopReason.LEASE_LOST, StopReason.STALLED):
            raise TransferStopped("the publication was stopped")

    def _completed(self, settlement: Settlement, manifest: Manifest) -> None:
        result = summary(manifest)
        self._tally.bytes_published = result.size_bytes
        settlement.completed(self._lease, result)
        if self._on_completed is not None:
            self._on_completed()
        record_bytes(Metric.BYTES_PUBLISHED, self._lease.job, result.size_bytes)

    def _check_folders(self, job: Job) -> None:
        """Refuse folders outside the allowed prefixes, whoever wrote the record (design, invariant 4)."""
        for name, uri in (("source_uri", job.source_uri), ("target_uri", job.target_uri)):
            try:
                self._tools.allowed_prefixes.require(S3Uri.parse_folder(uri, field=name), field=name)
            except ScanfleetError as error:
                raise JobFailure(FailureClass.BAD_INPUT, str(error)) from error

    def _processor(self, job: Job) -> Processor:
        processor = self._tools.processors.get(job.processor)
        if processor is None:
            known = ", ".join(self._tools.processors)
            raise JobFailure(
                FailureClass.PROGRAM_ERROR, f"this agent does not run {job.processor!r}; it runs: {known}"
            )
        return processor

    def _download(self, workspace: Workspace) -> int:
        source = S3Uri.parse_folder(self._lease.job.source_uri, field="source_uri")
        self._vitals.begin(Phase.DOWNLOAD)
        done = self._tools.transfer.download(
            source, workspace.folders.input, on_bytes=self._on_downloaded, should_stop=self._stop.is_set
        )
        self._tally.bytes_downloaded = done.size_bytes
        record_bytes(Metric.BYTES_DOWNLOADED, self._lease.job, done.size_bytes)
        return done.size_bytes

    def _on_downloaded(self, bytes_done: int, total: int) -> None:
        self._tally.bytes_downloaded = bytes_done
        self._vitals.moved(bytes_done, total)

    def _run_program(
        self, processor: Processor, workspace: Workspace, program_log: ProgramLog, input_bytes: int
    ) -> None:
        job = self._lease.job
        run = Run(
            job=job,
            processor=processor,
            workspace=workspace,
            program_log=program_log,
            board=self._board,
            input_bytes=input_bytes,
            machine=self._tools.machine,
            usage=self._tally.usage,
            beside=None if self._tally.share is None else self._tally.share.beside,
        )
        invocation = processor.prepare(job, workspace.folders)
        watch = SeenWatch(self._tools.new_watch(run), self._vitals)
        self._vitals.begin(Phase.RUN)
        with PROGRAMS.running(self._tally.usage):
            self._tools.runner.run(
                invocation,
                processor=processor,
                program_log=program_log,
                board=self._board,
                stop=self._stop,
                watch=watch,
                usage=self._tally.usage,
            )
        stages, ended_at = self._board.finish(), time.monotonic()
        self._on_completed = lambda: watch.completed(stages, since_end=time.monotonic() - ended_at)

    def _advance(self, state: JobState, **facts: object) -> None:
        if self._stop.is_set():
            raise ProgramStopped
        self._lease = self._tools.leases.advance(self._lease, state, **facts)

    def _tell_end(self, job: Job, failure: JobFailure) -> None:
        if self._on_end is not None:
            self._on_end(job, failure)

    def _facts(self, action: str) -> dict[str, object]:
        return {"action": action, "job_id": self._lease.job.job_id, "attempt": self._lease.attempt}
