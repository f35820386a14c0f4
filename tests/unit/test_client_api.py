"""The Python client against the real API over an emulated cloud: both sides mean the same contract."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanfleet.client import JobInfo, Scanfleet
from scanfleet.errors import Conflict, InvalidRequest, NotFound
from scanfleet.jobs import JobState, Manifest, PublishedFile, ResultSummary, new_job_id
from tests.support.api import ARTIFACTS, DATA, RunningApi, running_api

ODD_NAMES = (
    "with blank.ply",
    "Zähne.ply",
    "50%.ply",
    "a#b?c=d&e.ply",
    "a+b.ply",
    "~'(x)!*;,@$.ply",
    "s/日本.ply",
)


@pytest.fixture(scope="module")
def api() -> Iterator[RunningApi]:
    with running_api() as api:
        yield api


@pytest.fixture
def fleet(api: RunningApi) -> Iterator[Scanfleet]:
    with Scanfleet(api.url) as fleet:
        yield fleet


def complete(api: RunningApi, job_id: str) -> None:
    """Do what an agent does, with the inputs as results."""
    leases, s3 = api.leases, api.clients.s3
    lease = api.take(job_id)
    job = lease.job
    source, target = (uri.removeprefix(f"s3://{DATA}/") for uri in (job.source_uri, job.target_uri))
    files = []
    for found in s3.list_objects_v2(Bucket=DATA, Prefix=source)["Contents"]:
        name = found["Key"].removeprefix(source)
        content = s3.get_object(Bucket=DATA, Key=found["Key"])["Body"].read()
        api.put(target + name, content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(PublishedFile(key=name, size_bytes=len(content), sha256=digest))
    manifest = Manifest(
        job_id=job_id, attempt=1, processor=job.processor, target_uri=job.target_uri, files=tuple(files)
    )
    api.put(f"manifests/{job_id}/1.json", manifest.model_dump_json().encode(), bucket=ARTIFACTS)
    size = sum(file.size_bytes for file in files)
    for state in (JobState.PROCESSING, JobState.UPLOADING):
        lease = leases.advance(lease, state)
    leases.complete(leases.commit(lease), ResultSummary(attempt=1, files=len(files), size_bytes=size))


def test_a_local_folder_goes_through_the_real_api_and_comes_back(
    api: RunningApi, fleet: Scanfleet, tmp_path: Path
) -> None:
    for name in ODD_NAMES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode() * 100)
    seen: list[JobInfo] = []

    handle = fleet.submit(
        tmp_path / "in",
        tmp_path / "out",
        settings={"Reduce Roughness": 1},
        priority="high",
        tags={"case": "7"},
        idempotency_key="round-trip",
    )
    assert handle.refresh().why_waiting is not None
    complete(api, handle.job_id)
    job = handle.wait(on_change=seen.append, raise_on_failure=True)

    assert (job.status, job.priority, job.tags) == ("completed", "high", {"case": "7"})
    assert job.settings["Reduce Roughness"] == 1
    for name in ODD_NAMES:
        assert (tmp_path / "out" / name).read_bytes() == name.encode() * 100
    again = fleet.submit(
        tmp_path / "in",
        tmp_path / "elsewhere",
        settings={"Reduce Roughness": 1},
        priority="high",
        tags={"case": "7"},
        idempotency_key="round-trip",
    )
    assert again.job_id == handle.job_id


def test_the_real_api_answers_every_other_call_as_the_client_reads_it(
    api: RunningApi, fleet: Scanfleet
) -> None:
    source = api.folder("calls")
    first = fleet.submit(source, f"s3://{DATA}/calls-out/", tags={"suite": "calls"})
    second = fleet.submit(source, f"s3://{DATA}/calls-out2/", tags={"suite": "calls", "n": "2"})

    assert [job.job_id for job in fleet.jobs(tags={"suite": "calls"})] == [second.job_id, first.job_id]
    assert [job.job_id for job in fleet.jobs(tags={"suite": "calls", "n": "2"})] == [second.job_id]
    assert len(list(fleet.jobs(status="all", limit=1))) == 1
    assert first.log() == first.log(tail_lines=10) == ""
    assert first.cancel().status == "cancelled"
    with pytest.raises(Conflict):
        first.cancel()
    assert first.retry().status == "queued"
    assert fleet.health().status == "ready"
    api.report_agent()
    assert fleet.load().pools["linux-cpu"]["slots"] == 2
    with pytest.raises(NotFound):
        fleet.get(new_job_id())
    with pytest.raises(InvalidRequest) as caught:
        fleet.submit(source, "s3://elsewhere/x/", settings={"Use GPUs": 1}, processor="plyy")
    assert {error.field for error in caught.value.errors} >= {"target", "processor"}


def test_a_log_of_several_segments_comes_whole(api: RunningApi, fleet: Scanfleet) -> None:
    job_id = api.submit("logged")
    api.take(job_id)
    lines = [f"line {n} of the program" for n in range(60_000)]
    text = "".join(f"{line}\n" for line in lines).encode()
    for number, start in enumerate(range(0, len(text), 300_000), start=1):
        api.put(f"logs/{job_id}/1/{number:06}.log", text[start : start + 300_000], bucket=ARTIFACTS)

    assert fleet.log(job_id).splitlines() == lines
    assert fleet.log(job_id, tail_lines=2).splitlines() == lines[-2:]
