"""The API called with what its own OpenAPI document allows and forbids: no server errors, no other answers.

In this process, over moto. What no schema can say (which folders are allowed, which jobs there are) may
refuse a valid request, so "valid requests are accepted" is not among the checks.
"""

from dataclasses import dataclass

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from scanfleet.api.app import create_app
from scanfleet.api.services import services_over
from scanfleet.contract import Pool
from scanfleet.dead_letters import Burial, Cause
from scanfleet.jobs import FailureClass, Job, new_job_id
from scanfleet.leases import Leases
from scanfleet.messages import body_for
from scanfleet.settings import ApiSettings
from tests.support.api import (
    OPERATOR,
    Clock,
    HeaderIdentity,
    PlyProcessor,
    WindowsProcessor,
    as_owner,
    clients_of,
    emulated_aws,
    make_resources,
)

HOST = {"Host": "127.0.0.1"}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
    checks.missing_required_header,
]
OPERATIONS = [
    "POST /process",
    "POST /jobs",
    "GET /jobs",
    "GET /job/{job_id}",
    "POST /job/{job_id}/cancel",
    "POST /job/{job_id}/retry",
    "GET /job/{job_id}/log",
    "GET /job/{job_id}/evidence",
    "GET /job/{job_id}/receipt",
    "POST /events/ticket",
    "GET /status/health",
    "GET /status/load",
    "GET /uploads",
    "GET /presign",
    "GET /dead-letters",
    "POST /dead-letters/redrive",
    "GET /processors",
    "GET /variance",
    "GET /metrics",
]
STREAMS = {"GET /events", "GET /job/{job_id}/events"}
"""Their answers last as long as their reader: test_events_api.py asks them."""
quick = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""Not more: a shrunk example of a whole request takes minutes, and the answer names the request anyway."""


@dataclass(frozen=True)
class Fuzzed:
    """The API in this process, its document, and jobs that are there."""

    schema: schemathesis.BaseSchema
    job_ids: tuple[str, ...]
    folder: str


@pytest.fixture(scope="module")
def fuzzed():
    with (
        pytest.MonkeyPatch.context() as patch,
        emulated_aws() as endpoint,
        clients_of(endpoint) as clients,
    ):
        patch.setattr("scanfleet.dead_letters.LONG_POLL_SECONDS", 0)
        api_settings = ApiSettings(**make_resources(clients))
        processors = {p.name: p for p in (PlyProcessor(), WindowsProcessor())}
        services = services_over(clients, api_settings, processors=processors, clock=Clock())
        clients.s3.put_object(Bucket="scan-data", Key="case/scan.ply", Body=b"ply")
        app = create_app(services, api_settings)
        app.state.identity = HeaderIdentity()
        jobs = list(some_jobs(services, Leases(clients.dynamodb, "jobs", clock=services.clock)))
        document = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
        yield Fuzzed(document, tuple(jobs), "s3://scan-data/case/")


def some_jobs(services, leases):
    """Make a job in each of three states, and dead letters; yield the jobs' ids."""
    now = services.clock()
    for number in range(3):
        job = services.store.create(
            Job(
                job_id=new_job_id(),
                owner="ann",
                processor="ply",
                pool=Pool.LINUX_CPU,
                source_uri="s3://scan-data/case/",
                target_uri=f"s3://scan-data/out-{number}/",
                created_at=now,
                queued_at=now,
                state_changed_at=now,
            )
        )
        if number:
            lease = leases.take(job.job_id, "agent-1")
            if number == 2:
                leases.fail(lease, leases.failure(lease, FailureClass.HANG, "it hung"))
        yield job.job_id
    burial = Burial(cause=Cause.UNREADABLE, reason="because", agent_id="i-1", at=now)
    for body in ("garbage", body_for(new_job_id()), body_for(job.job_id)):
        services.queues.dead_letters.put(Pool.LINUX_CPU, body, burial)


def test_every_call_of_the_document_is_fuzzed(fuzzed):
    found = {f"{one.ok().method.upper()} {one.ok().path}" for one in fuzzed.schema.get_all_operations()}

    assert found == STREAMS | set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_call_has_an_answer_that_is_documented(fuzzed, operation, mode):
    method, path = operation.split(" ")
    cases = fuzzed.schema[path][method].as_strategy(generation_mode=mode)
    callers = st.sampled_from([as_owner("ann"), as_owner("bob"), OPERATOR])
    seen = []

    @quick
    @given(case=cases, caller=callers, job_id=st.sampled_from(fuzzed.job_ids), is_known=st.booleans())
    def calls(case, caller, job_id, is_known):
        if is_known and "job_id" in case.path_parameters and mode is GenerationMode.POSITIVE:
            case.path_parameters["job_id"] = job_id
        if is_known and mode is GenerationMode.POSITIVE:
            name_the_folder(case, fuzzed.folder)
        answer = case.call(headers=HOST | caller)
        case.validate_response(answer, checks=CHECKS)
        assert answer.status_code < 500, answer.text
        seen.append(answer.status_code)

    try:
        calls()
    except Unsatisfiable:
        # Nothing of a call without parameters can be wrong, and any text is a job id of the document.
        assert mode is GenerationMode.NEGATIVE
        assert not fuzzed.schema[path][method].body
        return
    assert seen
    if (operation, mode) == ("POST /jobs", GenerationMode.POSITIVE):
        assert 202 in seen  # some were whole jobs, so that more was called than the refusals


def name_the_folder(case, folder):
    """Let a valid submission name a folder that holds a scan, so that jobs are made, too."""
    if isinstance(case.body, dict):
        for key in ("source", "Source Folder Path"):
            if key in case.body:
                case.body[key] = folder
        for key in ("target", "Target Folder Path"):
            if key in case.body:
                case.body[key] = f"s3://scan-data/out-{new_job_id()}/"
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = new_job_id()  # short ones were used for other requests
