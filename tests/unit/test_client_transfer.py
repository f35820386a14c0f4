"""Folders between disk and storage: odd names, verification, and names that would leave the folder."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scanfleet.client import DownloadRefused, Scanfleet, TransferProgress
from scanfleet.client_files import list_files, local_path
from scanfleet.client_http import Clock
from scanfleet.errors import Conflict, InvalidRequest, NotFound, Unavailable
from tests.support.standin import UPLOADS, Standin, running_standin

TARGET = "s3://data/result/"
ODD_NAMES = (
    "with blank.ply",
    "Zähne übrig.ply",
    "50%.ply",
    "%41.ply",
    "a#b?c=d&e.ply",
    "a+b.ply",
    "~'(x)!*;,@$[1].ply",
    "sub folder/日本語.ply",
    "deep/er/.hidden",
    "empty.ply",
)


class NoWait(Clock):
    def sleep(self, seconds: float) -> None:
        """Return at once."""


@pytest.fixture
def service() -> Iterator[Standin]:
    with running_standin() as service:
        yield service


@pytest.fixture
def fleet(service: Standin) -> Iterator[Scanfleet]:
    with Scanfleet(service.url, clock=NoWait()) as fleet:
        yield fleet


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every odd name; each file's content is its own."""
    folder = tmp_path / "scans"
    for name in ODD_NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty.ply" else name.encode() * 1000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def completed(fleet: Scanfleet, folder: Path) -> str:
    """Return the id of a job over the folder that has completed; its result is a copy of the input."""
    handle = fleet.submit(folder, TARGET)
    assert handle.wait().status == "completed"
    return handle.job_id


def test_odd_names_survive_the_way_to_storage_and_back(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path
) -> None:
    ups: list[TransferProgress] = []
    downs: list[TransferProgress] = []

    uri = fleet.upload_folder(folder, on_progress=ups.append)
    assert {u.removeprefix(uri): c for u, c in service.objects.items()} == contents(folder)

    job = fleet.submit(uri, TARGET).wait()
    manifest = fleet.download_result(job, tmp_path / "out", on_progress=downs.append)

    found = contents(tmp_path / "out")
    written = json.loads(found.pop("scanfleet-manifest.json"))
    assert found == contents(folder)
    assert (written["job_id"], len(written["files"])) == (job.job_id, len(manifest.files))
    total = sum(map(len, found.values()))
    for seen in (ups, downs):
        assert seen[0] == TransferProgress(0, len(found), 0, total)
        assert seen[-1] == TransferProgress(len(found), len(found), total, total)


def test_every_upload_gets_a_folder_of_its_own(fleet: Scanfleet, folder: Path) -> None:
    first, second = fleet.upload_folder(folder), fleet.upload_folder(folder)

    assert first != second
    assert first.startswith(UPLOADS)
    assert first.endswith("/")


def test_a_long_manifest_is_read_from_the_target_folder(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path
) -> None:
    service.manifest_files_shown = 2

    fleet.download_result(completed(fleet, folder), tmp_path / "out")

    assert len(contents(tmp_path / "out")) == len(ODD_NAMES) + 1


def test_a_corrupted_result_is_refused_and_nothing_of_it_stays(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path
) -> None:
    job_id = completed(fleet, folder)
    good = service.objects[TARGET + "a+b.ply"]

    for bad in (good[:-1] + b"?", good[:-1], good + b"?"):
        service.tamper(TARGET + "a+b.ply", bad)
        with pytest.raises(DownloadRefused, match=r"a\+b\.ply is not what the job published"):
            fleet.download_result(job_id, tmp_path / "out")
        found = contents(tmp_path / "out")
        assert not {"a+b.ply", "scanfleet-manifest.json"} & found.keys()
        assert not [name for name in found if name.endswith(".part")]


def test_a_second_download_keeps_what_is_right_and_replaces_what_is_not(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path
) -> None:
    job_id = completed(fleet, folder)
    fleet.download_result(job_id, tmp_path / "out")
    (tmp_path / "out" / "a+b.ply").write_bytes(b"changed")
    service.calls.clear()

    fleet.download_result(job_id, tmp_path / "out")

    assert (tmp_path / "out" / "a+b.ply").read_bytes() == (folder / "a+b.ply").read_bytes()
    assert [path for _, path in service.calls if path.startswith("/storage")] == [
        "/storage/data/result/a%2Bb.ply"
    ]


@pytest.mark.parametrize(
    "key",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "C:/evil",
        "c:evil",
        "a\\..\\evil",
        "a//b",
        "./a",
        "a/",
        "a\x00b",
        "",
    ],
)
def test_a_result_that_would_leave_the_folder_is_refused_before_anything_is_fetched(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path, key: str
) -> None:
    service.extra_results = {key: b"evil"}
    job_id = completed(fleet, folder)
    service.calls.clear()

    with pytest.raises(DownloadRefused, match="would leave"):
        fleet.download_result(job_id, tmp_path / "out")

    assert contents(tmp_path / "out") == {}
    assert [path for _, path in service.calls] == [f"/job/{job_id}"]


def test_a_link_in_the_folder_leads_no_result_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(DownloadRefused):
        local_path(tmp_path / "out", "link/evil")


def test_a_job_without_a_result_has_nothing_to_download(
    fleet: Scanfleet, folder: Path, tmp_path: Path
) -> None:
    handle = fleet.submit(folder, TARGET)

    with pytest.raises(Conflict, match="has no result"):
        handle.download(tmp_path / "out")


def test_a_result_that_was_deleted_is_not_found(
    fleet: Scanfleet, service: Standin, folder: Path, tmp_path: Path
) -> None:
    job_id = completed(fleet, folder)
    del service.objects[TARGET + "50%.ply"]

    with pytest.raises(NotFound, match=r"50%\.ply"):
        fleet.download_result(job_id, tmp_path / "out")


class Flaky(httpx.HTTPTransport):
    """Breaks the first body of every storage call half-way; storage must not see the API's credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: set[str] = set()
        self.secrets: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        key = f"{request.method} {request.url.path}"
        if not request.url.path.startswith("/storage"):
            return super().handle_request(request)
        self.secrets += [request.headers["Authorization"]] if "Authorization" in request.headers else []
        if key in self.broken:
            return super().handle_request(request)
        self.broken.add(key)
        if request.method == "PUT":
            next(iter(request.stream), None)
            raise httpx.WriteError("broken pipe")
        whole = super().handle_request(request).read()
        return httpx.Response(200, headers={"Content-Length": str(len(whole))}, stream=Half(whole))


class Half(httpx.SyncByteStream):
    def __init__(self, whole: bytes) -> None:
        self.whole = whole

    def __iter__(self) -> Iterator[bytes]:
        yield self.whole[: len(self.whole) // 2]
        raise httpx.RemoteProtocolError("peer closed connection")


def test_transfers_that_break_half_way_are_repeated_and_counted_once(
    service: Standin, folder: Path, tmp_path: Path
) -> None:
    transport, seen = Flaky(), list[TransferProgress]()
    with Scanfleet(service.url, transport=transport, clock=NoWait(), auth=("me", "secret")) as fleet:
        handle = fleet.submit(folder, tmp_path / "out", on_progress=seen.append)
        handle.wait(on_progress=seen.append)

    assert {n: c for n, c in contents(tmp_path / "out").items() if "manifest" not in n} == contents(folder)
    assert len(transport.broken) == 2 * len(ODD_NAMES)
    assert seen[-1].bytes_done == seen[-1].bytes_total
    assert max(p.bytes_done for p in seen) == seen[-1].bytes_total
    assert transport.secrets == []


def test_storage_that_stays_away_is_unavailable_and_no_signed_url_is_shown(
    fleet: Scanfleet, service: Standin, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    presign = service.presign

    def presign_elsewhere(query: dict[str, list[str]]) -> tuple[int, dict[str, str]]:
        status, answer = presign(query)
        return status, answer | {"url": answer["url"].replace(service.url, "http://127.0.0.1:9")}

    monkeypatch.setattr(service, "presign", presign_elsewhere)

    with pytest.raises(Unavailable, match="storage did not answer") as caught:
        fleet.upload_folder(folder)

    assert "signature" not in str(caught.value)


def test_a_file_that_changes_while_it_is_uploaded_is_refused(
    fleet: Scanfleet, tmp_path: Path, service: Standin
) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(b"x" * 1000)
    files = list_files(tmp_path)

    for size in (999, 1001):
        path.write_bytes(b"x" * size)
        with pytest.raises(InvalidRequest, match="changed while it was uploaded"):
            fleet._upload(files, fleet._new_folder(), None)
    assert service.objects == {}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_named(fleet: Scanfleet, tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_bytes(b"x")
    (tmp_path / "a.ply").chmod(0)

    with pytest.raises(InvalidRequest, match="Permission denied"):
        fleet.upload_folder(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="file names there are Unicode")
def test_a_name_that_is_not_unicode_is_refused(fleet: Scanfleet, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.ply")).write_bytes(b"x")

    with pytest.raises(InvalidRequest, match="not Unicode"):
        fleet.upload_folder(tmp_path)


def test_a_target_that_cannot_be_written_is_the_callers_to_mend(
    fleet: Scanfleet, folder: Path, tmp_path: Path
) -> None:
    job_id = completed(fleet, folder)
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(InvalidRequest, match="target"):
        fleet.download_result(job_id, tmp_path / "file" / "below")
