"""From a request to an accepted job: check everything that can be checked, record it, then queue it."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from scanfleet import log_context
from scanfleet.api.identity import Caller, CallerDep
from scanfleet.api.places import Places
from scanfleet.api.queueing import enqueue
from scanfleet.api.services import Services, ServicesDep, SettingsDep
from scanfleet.api.validation import nearest, shown
from scanfleet.contract import Priority
from scanfleet.errors import (
    Conflict,
    FieldError,
    InvalidRequest,
    NotFound,
    ScanfleetError,
    Unavailable,
)
from scanfleet.jobs import Job, JobState, new_job_id
from scanfleet.objects import S3Uri
from scanfleet.processors.base import Processor
from scanfleet.settings import ApiSettings
from scanfleet.target_claims import TargetTaken

log = logging.getLogger(__name__)

MAX_SETTINGS_BYTES = 64 * 1024
MAX_SETTINGS = 256
MAX_TIME_LIMIT_SECONDS = 11 * 3600
"""SQS hides a message for 12 hours at most, and a job also downloads and uploads.
Source: SQS developer guide, "Amazon SQS visibility timeout"."""
MAX_TAGS = 20
KEYS_LOOKED_AT = 10_000
"""A source folder's first keys that are searched for one readable file: ten pages of a listing."""

_TAG_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_./@-]{0,63}$")
_TAG_VALUE_LENGTH = 256

Passed = TypeVar("Passed")


class JobRequest(BaseModel):
    """A job, in the general form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(description="s3://bucket/folder/ that holds the inputs.")
    target: str = Field(description="s3://bucket/folder/ for the results; neither the source nor inside it.")
    processor: str | None = Field(default=None, description="The deployment's default when left out.")
    settings: dict[str, Any] = Field(default_factory=dict, description="The processor's own keys.")
    priority: Priority = Priority.NORMAL
    time_limit_seconds: Annotated[StrictInt, Field(ge=1, le=MAX_TIME_LIMIT_SECONDS)] | None = Field(
        default=None, description="The program's running time at most; the agent's own limit when left out."
    )
    tags: dict[str, Any] = Field(
        default_factory=dict,
        description="Up to 20 of the owner's own labels: keys of 1 to 64 letters, digits and _./@-, "
        "values of up to 256 characters.",
    )
    replace_results: StrictBool = Field(
        default=False,
        description="Replace the results that a completed job of yours has in the target folder.",
    )


@dataclass(frozen=True)
class FieldNames:
    """How this kind of request spells what a job needs; errors speak its language."""

    source: str = "source"
    target: str = "target"
    settings_prefix: str = "settings."


@dataclass(frozen=True)
class Accepted:
    """A job that the API answers for. `is_replay`: the same Idempotency-Key made it before."""

    job: Job
    is_replay: bool


@dataclass(frozen=True)
class _Checked:
    """What a request means, once everything that needs no look into S3 is right."""

    source: S3Uri
    target: S3Uri
    processor: Processor
    settings: dict[str, Any]
    tags: dict[str, str]


@dataclass
class _Errors:
    """Collects what is wrong, so that the caller learns all of it at once."""

    found: list[FieldError] = field(default_factory=list)

    def attempt(self, check: Callable[[], Passed], *, prefix: str = "") -> Passed | None:
        try:
            return check()
        except InvalidRequest as invalid:
            self.found += [
                FieldError(field=prefix + e.field, message=e.message, value=e.value, allowed=e.allowed)
                for e in invalid.errors
            ]
            return None

    def raise_any(self) -> None:
        if self.found:
            raise InvalidRequest(self.found)


class Submitter:
    """Accepts jobs for one caller."""

    def __init__(self, services: ServicesDep, settings: SettingsDep, caller: CallerDep) -> None:
        self._services: Services = services
        self._settings: ApiSettings = settings
        self._caller: Caller = caller

    def replay(self, raw: Mapping[str, Any], kind: str, idempotency: str | None) -> Accepted | None:
        """Return the job that this key and this very request made before, or None.

        Looked up before the request is checked: the source folder may be gone since, and the answer must
        still be the same. Raises Conflict when the key was used for another request.
        """
        if idempotency is None:
            return None
        job = self._services.store.created_before(
            self._caller.owner, idempotency, fingerprint(raw, kind=kind)
        )
        return None if job is None else self._queue_again(job)

    def submit(
        self,
        request: JobRequest,
        raw: Mapping[str, Any],
        *,
        kind: str,
        idempotency: str | None,
        names: FieldNames,
    ) -> Accepted:
        """Return the accepted job: recorded first, then queued.

        Raises InvalidRequest, Conflict, or Unavailable (then nothing was started without an idempotency key,
        and the same key finishes what was begun).
        """
        job = self._check(request, names)
        try:
            created = self._services.store.create(
                job,
                idempotency=idempotency,
                fingerprint=fingerprint(raw, kind=kind),
                replace=request.replace_results,
            )
        except TargetTaken as taken:
            raise target_conflict(taken, self._caller) from taken
        if created.job_id != job.job_id:
            return self._queue_again(created)
        log_context.add(job_id=created.job_id)
        self._queue_new(created, may_come_again=idempotency is not None)
        log.info(
            "job accepted",
            extra={"action": "job_accepted", "job_id": job.job_id, "owner": job.owner, "pool": job.pool},
        )
        return Accepted(created, is_replay=False)

    def _queue_new(self, job: Job, *, may_come_again: bool) -> None:
        try:
            enqueue(job, self._services)
        except Unavailable as error:
            if may_come_again:
                raise Unavailable(
                    f"job {job.job_id} is recorded but not queued; send the same request with the same "
                    f"Idempotency-Key again ({error})"
                ) from error
            self._forget(job)
            raise Unavailable(f"the job was not started; send the request again ({error})") from error

    def _forget(self, job: Job) -> None:
        """Cancel a job that its caller will never hear of."""
        try:
            self._services.store.request_cancel(job)
        except ScanfleetError as error:
            log.warning(
                "a job that could not be queued could not be cancelled either: %s",
                error,
                extra={"action": "orphan_left", "job_id": job.job_id},
            )

    def _queue_again(self, job: Job) -> Accepted:
        """Answer a repeated request; its message may have been lost, and a second one harms nothing."""
        if job.state is JobState.QUEUED and job.attempt == 0:
            enqueue(job, self._services)
        return Accepted(job, is_replay=True)

    def _check(self, request: JobRequest, names: FieldNames) -> Job:
        errors = _Errors()
        places = Places(self._settings, self._caller)
        source = errors.attempt(lambda: places.folder(request.source, field=names.source))
        target = errors.attempt(lambda: places.folder(request.target, field=names.target))
        if source and target and target.is_inside(source):
            allowed = f"a folder outside {source}"
            inside = FieldError(names.target, "is the source folder or inside it", str(target), allowed)
            errors.found.append(inside)
        processor = errors.attempt(lambda: self._processor(request.processor))
        settings: dict[str, Any] | None = None
        errors.attempt(lambda: _check_settings_size(request.settings))
        if processor is not None and len(request.settings) <= MAX_SETTINGS:
            validate = processor.validate_settings
            settings = errors.attempt(lambda: validate(request.settings), prefix=names.settings_prefix)
        tags = errors.attempt(lambda: _checked_tags(request.tags))
        errors.raise_any()
        assert source
        assert target
        assert processor
        assert settings is not None
        assert tags is not None
        self._check_source(source, processor, field_name=names.source)
        checked = _Checked(source, target, processor, settings, tags)
        return self._new_job(request, checked)

    def _new_job(self, request: JobRequest, checked: _Checked) -> Job:
        now = self._services.clock()
        return Job(
            job_id=new_job_id(),
            owner=self._caller.owner,
            processor=checked.processor.name,
            pool=checked.processor.pool,
            source_uri=str(checked.source),
            target_uri=str(checked.target),
            settings=checked.settings,
            priority=request.priority,
            time_limit_seconds=request.time_limit_seconds,
            tags=checked.tags,
            trace_id=log_context.bound_fact("trace_id"),
            created_at=now,
            queued_at=now,
            state_changed_at=now,
        )

    def _processor(self, name: str | None) -> Processor:
        wanted = self._settings.default_processor if name is None else name
        processor = self._services.processors.get(wanted)
        if processor is None:
            known = sorted(self._services.processors)
            message = "unknown processor" + nearest(wanted, known)
            raise InvalidRequest.of("processor", message, value=wanted, allowed=", ".join(known))
        if processor.pool not in self._services.queues.pools:
            pools = ", ".join(self._services.queues.pools)
            message = f"its pool {processor.pool} is not part of this deployment"
            raise InvalidRequest.of(
                "processor", message, value=wanted, allowed=f"a processor of the pools: {pools}"
            )
        return processor

    def _check_source(self, source: S3Uri, processor: Processor, *, field_name: str) -> None:
        """Raise InvalidRequest unless the folder holds at least one file that the processor reads."""
        reads = f"a folder with {processor.input_kinds}"
        seen = 0
        try:
            for found in islice(self._services.objects.list_folder(source), KEYS_LOOKED_AT):
                seen += 1
                if processor.accepts(found.relative):
                    return
        except NotFound as error:
            raise InvalidRequest.of(
                field_name, "there is no such bucket", value=source, allowed=reads
            ) from error
        if not seen:
            message = "the folder does not exist or is empty"
        else:
            more = f" among its first {seen} files" if seen == KEYS_LOOKED_AT else ""
            message = f"the folder holds nothing that {processor.name} reads{more}"
        raise InvalidRequest.of(field_name, message, value=source, allowed=reads)


SubmitterDep = Annotated[Submitter, Depends(Submitter)]


def target_conflict(taken: TargetTaken, caller: Caller) -> Conflict:
    """Return the conflict as this caller may know it: another owner's job stays unnamed."""
    return Conflict(taken.told() if caller.may_see(taken.holder.owner) else str(taken))


def fingerprint(raw: Mapping[str, Any], *, kind: str) -> str:
    """Return what two requests share only if they ask for the same: SHA-256 of kind and canonical JSON."""
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{kind}\n{canonical}".encode()).hexdigest()


def _check_settings_size(settings: Mapping[str, Any]) -> None:
    if len(settings) > MAX_SETTINGS:
        allowed = f"at most {MAX_SETTINGS} keys"
        raise InvalidRequest.of("settings", "have too many keys", value=len(settings), allowed=allowed)
    size = len(json.dumps(settings, separators=(",", ":")))
    if size > MAX_SETTINGS_BYTES:
        allowed = f"at most {MAX_SETTINGS_BYTES} bytes of JSON"
        raise InvalidRequest.of("settings", "are too large", value=f"{size} bytes", allowed=allowed)


def _checked_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    allowed = f"text of at most {_TAG_VALUE_LENGTH} printable characters"
    if len(tags) > MAX_TAGS:
        raise InvalidRequest.of("tags", "too many tags", value=len(tags), allowed=f"at most {MAX_TAGS}")
    errors = _Errors()
    for key, value in tags.items():
        if not _TAG_KEY.fullmatch(key):
            errors.found.append(
                FieldError("tags", "bad tag key", shown(key), "1 to 64 letters, digits and _./@-")
            )
        if not isinstance(value, str) or len(value) > _TAG_VALUE_LENGTH or not value.isprintable():
            errors.found.append(FieldError(f"tags.{key[:64]}", "bad tag value", shown(value), allowed))
    errors.raise_any()
    return dict(tags)
