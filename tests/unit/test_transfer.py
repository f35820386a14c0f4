"""The agent's transfer, against moto's S3 server, and against one that checks signatures."""

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scanfleet.agent import transfer as transfer_module
from scanfleet.agent import transfer_crew, transfer_download, transfer_upload
from scanfleet.agent.transfer import DownloadSummary, Transfer, TransferStopped
from scanfleet.agent.transfer_checks import NOTHING_KNOWN, expected_of
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass
from scanfleet.objects import ObjectStore, S3Uri
from tests.support.s3_server import BUCKET, clients_for, faulty, moto_s3

SOURCE = S3Uri(BUCKET, "test/src/")
TARGET = S3Uri(BUCKET, "test/out/")
MIB = 1024**2


@pytest.fixture(scope="module")
def server():
    with moto_s3() as url:
        yield url


@pytest.fixture
def store(monkeypatch, server):
    httpx.post(f"{server}/moto-api/reset")
    clients = clients_for(monkeypatch, server)
    clients.s3.create_bucket(Bucket=BUCKET)
    return ObjectStore(clients.s3)


@pytest.fixture
def proxy(server):
    with faulty(server) as found:
        yield found


@pytest.fixture
def transfer(monkeypatch, store, proxy):
    """A transfer that speaks to S3 through the proxy; quick to try again."""
    monkeypatch.setattr(transfer_crew, "FIRST_DELAY_SECONDS", 0.001)
    clients = clients_for(monkeypatch, proxy.url)
    return Transfer(ObjectStore(clients.s3), clients.credentials)


def put(store, **files):
    for name, data in files.items():
        store.put_bytes(SOURCE.child(name), data)


def download(transfer, into, *, source=SOURCE, should_stop=lambda: False):
    return transfer.download(source, into, on_bytes=lambda *_: None, should_stop=should_stop)


def upload(transfer, folder, *, to=TARGET, should_stop=lambda: False):
    return transfer.upload(folder, to, on_bytes=lambda *_: None, should_stop=should_stop)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def leftovers(folder):
    return [path.name for path in folder.iterdir()]


def threads_at_work():
    return [thread for thread in threading.enumerate() if thread.name == "transfer"]


# --- Down --------------------------------------------------------------------------------------------------


def test_a_download_brings_exactly_the_objects_under_the_folder(transfer, store, tmp_path):
    put(store, **{"a.ply": b"one", "deep/er/b.ply": b"two", "empty.ply": b"", "odd +%20é上.ply": b"three"})
    store.put_bytes(S3Uri(BUCKET, "test/src2/c.ply"), b"neighbour")
    store.put_bytes(S3Uri(BUCKET, "test/src/marker/"), b"")

    summary = download(transfer, tmp_path / "input")

    assert tree(tmp_path / "input") == {
        "a.ply": b"one",
        "deep/er/b.ply": b"two",
        "empty.ply": b"",
        "odd +%20é上.ply": b"three",
    }
    assert summary == DownloadSummary(files=4, size_bytes=11)
    assert leftovers(tmp_path) == ["input"]
    assert threads_at_work() == []


def test_progress_ends_at_the_total_and_never_exceeds_it(transfer, store, tmp_path):
    put(store, **{f"{n}.ply": os.urandom(n * 1000) for n in range(1, 30)})
    seen = []

    transfer.download(
        SOURCE, tmp_path / "input", on_bytes=lambda *both: seen.append(both), should_stop=lambda: False
    )

    assert seen[-1] == (435_000, 435_000)
    assert all(done <= total for done, total in seen)


@pytest.mark.parametrize("in_parts", [False, True], ids=["MD5 ETag", "ETag of an upload in parts"])
def test_a_large_object_comes_in_ranges_and_whole(monkeypatch, transfer, store, proxy, tmp_path, in_parts):
    monkeypatch.setattr(transfer_download, "PART_BYTES", MIB)
    data = os.urandom(6 * MIB + 77)
    store.put_bytes(SOURCE.child("plain"), data)
    if in_parts:
        ObjectStore(store.client, max_single_copy_bytes=1, copy_part_bytes=5 * MIB).copy(
            SOURCE.child("plain"), SOURCE.child("large.ply"), len(data)
        )
    else:
        store.copy(SOURCE.child("plain"), SOURCE.child("large.ply"), len(data))
    store.put_bytes(SOURCE.child("plain"), b"")

    download(transfer, tmp_path / "input")

    ranges = {passing.headers["range"] for passing in proxy.seen if "range" in passing.headers}
    assert len(ranges) == 7
    assert (tmp_path / "input" / "large.ply").read_bytes() == data


def test_a_connection_that_breaks_is_resumed_where_it_broke(monkeypatch, transfer, store, proxy, tmp_path):
    monkeypatch.setattr(transfer_crew, "BUFFER_BYTES", 1000)
    data = os.urandom(10_000)
    put(store, **{"a.ply": data})
    broken = []

    def cut(passing):
        if passing.is_object and len(broken) < 2:
            passing.cut_at = 3500
            broken.append(passing)

    proxy.after = cut
    download(transfer, tmp_path / "input")

    asked = [passing.headers.get("range") for passing in proxy.seen if passing.is_object]
    assert asked == [None, "bytes=3500-9999", "bytes=7000-9999"]
    assert (tmp_path / "input" / "a.ply").read_bytes() == data


@pytest.mark.parametrize("part_bytes", [64 * MIB, MIB], ids=["in one stream", "in ranges"])
def test_a_wrong_content_is_fetched_once_more(monkeypatch, transfer, store, proxy, tmp_path, part_bytes):
    monkeypatch.setattr(transfer_download, "PART_BYTES", part_bytes)
    data = os.urandom(2 * MIB)
    put(store, **{"a.ply": data})
    spoilt = []

    def spoil(passing):
        if passing.is_object and not spoilt:
            spoilt.append(passing)
            passing.body = b"?" + passing.body[1:]

    proxy.after = spoil
    seen = []
    transfer.download(
        SOURCE, tmp_path / "input", on_bytes=lambda *both: seen.append(both), should_stop=lambda: False
    )

    assert spoilt
    assert (tmp_path / "input" / "a.ply").read_bytes() == data
    assert seen[-1] == (len(data), len(data))


@pytest.mark.parametrize("part_bytes", [64 * MIB, MIB], ids=["in one stream", "in ranges"])
def test_content_that_stays_wrong_fails_the_attempt_and_never_appears(
    monkeypatch, transfer, store, proxy, tmp_path, part_bytes
):
    monkeypatch.setattr(transfer_download, "PART_BYTES", part_bytes)
    put(store, **{"a.ply": os.urandom(2 * MIB)})

    def spoil(passing):
        if passing.is_object:
            passing.body = b"?" + passing.body[1:-1] + b"?"

    proxy.after = spoil
    with pytest.raises(
        JobFailure, match=r"src/a.ply: the content does not match its checksum, twice"
    ) as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER
    assert tree(tmp_path / "input") == {}
    assert leftovers(tmp_path) == ["input"]


def test_a_busy_service_is_asked_again(transfer, store, proxy, tmp_path):
    put(store, **{"a.ply": b"one"})
    refused = []

    def refuse(passing):
        if passing.is_object and len(refused) < 3:
            refused.append(passing)
            passing.status = 503
            passing.body = b"<Error><Code>SlowDown</Code></Error>"

    proxy.before = refuse
    download(transfer, tmp_path / "input")

    assert tree(tmp_path / "input") == {"a.ply": b"one"}


def test_a_service_that_stays_busy_fails_the_attempt_with_what_it_said(transfer, store, proxy, tmp_path):
    put(store, **{"a.ply": b"one"})

    def refuse(passing):
        if passing.is_object:
            passing.status, passing.body = 503, b"<Error><Code>SlowDown</Code></Error>"

    proxy.before = refuse
    with pytest.raises(
        JobFailure, match=r"s3://scans/test/src/a.ply: gave up after 6 tries.*SlowDown"
    ) as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER


def test_a_service_that_refuses_is_not_asked_again(transfer, store, proxy, tmp_path):
    put(store, **{"a.ply": b"one"})

    def refuse(passing):
        if passing.is_object:
            passing.status, passing.body = 403, b"<Error><Code>AccessDenied</Code></Error>"

    proxy.before = refuse
    with pytest.raises(JobFailure, match="403 AccessDenied") as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER
    assert sum(passing.is_object for passing in proxy.seen) == 1


@pytest.mark.parametrize("server_checks", [True, False], ids=["If-Match is honoured", "If-Match is ignored"])
def test_an_object_that_changes_meanwhile_is_noticed(transfer, store, proxy, tmp_path, server_checks):
    put(store, **{"a.ply": b"one"})

    def change(passing):
        if passing.is_object:
            put(store, **{"a.ply": b"two"})
            if not server_checks:
                del passing.headers["if-match"]

    proxy.before = change
    with pytest.raises(JobFailure, match=r"src/a.ply: the object changed while it was downloaded") as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER
    assert tree(tmp_path / "input") == {}


def test_an_object_that_vanishes_is_bad_input_and_named(transfer, store, proxy, tmp_path):
    put(store, **{"a.ply": b"one", "b.ply": b"two"})
    gone = [SOURCE.child("a.ply"), SOURCE.child("b.ply")]
    proxy.before = lambda passing: passing.is_object and store.delete_all(gone)

    with pytest.raises(JobFailure, match=r"s3://scans/test/src/[ab].ply: there is no such object") as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.BAD_INPUT


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (S3Uri(BUCKET, "test/nothing/"), "s3://scans/test/nothing/ is empty or does not exist"),
        (S3Uri("nowhere-bucket", "x/"), "s3://nowhere-bucket/x/: there is no such bucket"),
    ],
)
def test_a_source_without_objects_is_bad_input_and_named(transfer, tmp_path, source, why):
    with pytest.raises(JobFailure, match=why) as caught:
        download(transfer, tmp_path / "input", source=source)

    assert caught.value.failure_class is FailureClass.BAD_INPUT


@pytest.mark.parametrize(
    "keys", [["CON.ply"], ["a/C:/b.ply"], ["x.", "y"], ["A.ply", "a.ply"], ["back\\slash"], ["n" * 300]]
)
def test_unsafe_keys_are_refused_before_the_first_byte(transfer, store, proxy, tmp_path, keys):
    put(store, **dict.fromkeys(["good.ply", *keys], b"x"))

    with pytest.raises(JobFailure) as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.BAD_INPUT
    assert not any(passing.is_object for passing in proxy.seen)
    assert not (tmp_path / "input").exists()


def test_a_disk_without_room_is_noticed_before_the_first_byte(monkeypatch, transfer, store, proxy, tmp_path):
    put(store, **{"a.ply": b"one"})
    monkeypatch.setattr(transfer_module, "FREE_SPACE_RESERVE_BYTES", shutil.disk_usage(tmp_path).total * 2)

    with pytest.raises(JobFailure, match="GB free") as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER
    assert not any(passing.is_object for passing in proxy.seen)


def test_a_file_that_cannot_be_put_in_place_is_not_taken_for_a_network_failure(
    transfer, store, proxy, tmp_path
):
    put(store, **{"a.ply": b"one"})
    (tmp_path / "input" / "a.ply").mkdir(parents=True)

    with pytest.raises(JobFailure, match=r"the local file a.ply") as caught:
        download(transfer, tmp_path / "input")

    assert caught.value.failure_class is FailureClass.TRANSFER
    assert sum(passing.is_object for passing in proxy.seen) == 1


@pytest.mark.parametrize(("run", "folder"), [(download, "input"), (upload, "output")])
def test_a_stop_ends_a_transfer_that_waits_for_a_silent_server(transfer, store, proxy, tmp_path, run, folder):
    put(store, **{"a.ply": b"one"})
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "a.ply").write_bytes(b"one")
    waiting, end = threading.Event(), threading.Event()

    def hang(passing):
        if passing.is_object or passing.method == "PUT":
            waiting.set()
            end.wait()

    proxy.before = hang
    try:
        with pytest.raises(TransferStopped):
            run(transfer, tmp_path / folder, should_stop=waiting.is_set)

        assert threads_at_work() == []
    finally:
        end.set()
    assert "input.part" not in leftovers(tmp_path)


def test_what_the_callers_questions_raise_ends_the_transfer_too(transfer, store, tmp_path):
    put(store, **{f"{n}.ply": os.urandom(100_000) for n in range(50)})

    class LostIt(Exception):
        """What a caller may raise instead of answering."""

    def ask():
        raise LostIt

    with pytest.raises(LostIt):
        transfer.download(SOURCE, tmp_path / "input", on_bytes=lambda *_: ask(), should_stop=lambda: False)

    assert threads_at_work() == []


def test_more_threads_join_while_the_network_is_slow(monkeypatch, transfer, store, proxy, tmp_path):
    """Every request waits until more of them are there than there were threads at first."""
    put(store, **{f"{n}.ply": b"x" for n in range(20)})
    together = threading.Barrier(transfer_crew.FIRST_THREADS + transfer_crew.GROW_BY)
    passed = threading.Event()

    def wait_for_others(passing):
        if passing.is_object and not passed.is_set():
            together.wait()
            passed.set()

    proxy.before = wait_for_others
    download(transfer, tmp_path / "input")

    assert len(tree(tmp_path / "input")) == 20


# --- Up ----------------------------------------------------------------------------------------------------


def write(folder, **files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_an_upload_stores_every_file_and_tells_its_size_and_sha256(transfer, store, tmp_path):
    large = os.urandom(MIB)
    files = {"merged.ply": large, "deep/er/report.json": b"{}", "odd +%20é.png": b"three", "empty": b""}
    write(tmp_path, **files)
    seen = []

    published = transfer.upload(
        tmp_path, TARGET, on_bytes=lambda *both: seen.append(both), should_stop=lambda: False
    )

    assert {f.key: (f.size_bytes, f.sha256) for f in published} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    assert [f.key for f in published] == sorted(files)
    assert {o.relative: store.get_bytes(TARGET.child(o.relative)) for o in store.list_folder(TARGET)} == files
    assert seen[-1] == (MIB + 7, MIB + 7)
    assert threads_at_work() == []


def test_a_large_file_goes_up_in_parts_and_comes_back_equal(monkeypatch, transfer, store, proxy, tmp_path):
    monkeypatch.setattr(transfer_upload, "MIN_PART_BYTES", 5 * MIB)
    data = os.urandom(16 * MIB + 5)
    write(tmp_path / "output", **{"large.ply": data})

    (published,) = upload(transfer, tmp_path / "output")

    assert published.sha256 == hashlib.sha256(data).hexdigest()
    assert sum("partNumber" in passing.path for passing in proxy.seen) == 4
    download(transfer, tmp_path / "input", source=TARGET)
    assert (tmp_path / "input" / "large.ply").read_bytes() == data


def test_an_upload_in_parts_that_fails_leaves_no_parts_behind(monkeypatch, transfer, store, proxy, tmp_path):
    monkeypatch.setattr(transfer_upload, "MIN_PART_BYTES", 5 * MIB)
    monkeypatch.setattr(transfer_module, "ABORT_WAIT_SECONDS", 30)
    write(tmp_path, **{"large.ply": os.urandom(11 * MIB)})

    def refuse(passing):
        if "partNumber=2" in passing.path:
            passing.status, passing.body = 403, b"<Error><Code>AccessDenied</Code></Error>"

    proxy.before = refuse
    with pytest.raises(JobFailure, match="AccessDenied"):
        upload(transfer, tmp_path)

    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=BUCKET)


def test_every_request_that_stores_carries_its_contents_sha256_for_s3_to_check(transfer, proxy, tmp_path):
    write(tmp_path, **{"a": b"hello", "b": os.urandom(2 * MIB)})

    upload(transfer, tmp_path)

    for passing in proxy.seen:
        data = (tmp_path / passing.path.rpartition("/")[2]).read_bytes()
        digest = hashlib.sha256(data)
        assert passing.headers["x-amz-content-sha256"] == digest.hexdigest()
        assert passing.headers["x-amz-checksum-sha256"] == base64.b64encode(digest.digest()).decode()


def test_a_busy_service_gets_the_file_again(transfer, store, proxy, tmp_path):
    data = os.urandom(2 * MIB)
    write(tmp_path, **{"a.ply": data})
    refused = []

    def refuse(passing):
        if len(refused) < 2:
            refused.append(passing)
            passing.status, passing.body = 500, b"<Error><Code>InternalError</Code></Error>"

    proxy.before = refuse
    seen = []
    transfer.upload(tmp_path, TARGET, on_bytes=lambda *both: seen.append(both), should_stop=lambda: False)

    assert store.get_bytes(TARGET.child("a.ply")) == data
    assert seen[-1] == (len(data), len(data))


def test_a_program_that_wrote_nothing_has_failed(transfer, tmp_path):
    (tmp_path / "empty folder").mkdir()

    with pytest.raises(JobFailure, match="the program wrote no output") as caught:
        upload(transfer, tmp_path)

    assert caught.value.failure_class is FailureClass.PROGRAM_ERROR


def _link_out(folder):
    (folder / "passwords").symlink_to("/etc/passwd")


def _link_to_nowhere(folder):
    (folder / "gone").symlink_to(folder / "nothing")


def _link_to_folder_outside(folder):
    (folder / "etc").symlink_to("/etc")


def _link_to_folder_inside(folder):
    (folder / "loop").symlink_to(folder)


def _pipe(folder):
    os.mkfifo(folder / "pipe")


def _reserved_name(folder):
    (folder / "CON.txt").write_text("x")


def _names_that_differ_in_case(folder):
    (folder / "A.txt").write_text("x")
    (folder / "a.txt").write_text("x")


def _name_that_is_no_unicode(folder):
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("x")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot make most of these")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_link_out, "'passwords' is a link that leads out"),
        (_link_to_folder_outside, "'etc' is a link that leads out"),
        (_link_to_nowhere, "'gone' is a link that leads nowhere"),
        (_link_to_folder_inside, "'loop' is a link to a folder"),
        (_pipe, "'pipe' is neither a file nor a folder"),
        (_reserved_name, "'CON.txt'"),
        (_names_that_differ_in_case, "only in case"),
        (_name_that_is_no_unicode, "Unicode"),
    ],
)
def test_an_output_that_cannot_be_published_fails_and_nothing_is_stored(
    transfer, store, proxy, tmp_path, spoil, why
):
    write(tmp_path, **{"good.ply": b"x"})
    spoil(tmp_path)

    with pytest.raises(JobFailure, match=why) as caught:
        upload(transfer, tmp_path)

    assert caught.value.failure_class is FailureClass.PROGRAM_ERROR
    assert proxy.seen == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_to_a_file_inside_is_published_as_that_file(transfer, store, tmp_path):
    write(tmp_path, **{"a.ply": b"one"})
    (tmp_path / "latest.ply").symlink_to("a.ply")

    published = upload(transfer, tmp_path)

    assert [f.key for f in published] == ["a.ply", "latest.ply"]
    assert store.get_bytes(TARGET.child("latest.ply")) == b"one"


def test_a_bucket_that_does_not_exist_is_bad_input(transfer, tmp_path):
    write(tmp_path, **{"a.ply": b"one"})

    with pytest.raises(JobFailure, match=r"s3://nowhere-bucket/x/a.ply: there is no such bucket") as caught:
        upload(transfer, tmp_path, to=S3Uri("nowhere-bucket", "x/"))

    assert caught.value.failure_class is FailureClass.BAD_INPUT


# --- Checksums and signatures ------------------------------------------------------------------------------

CONTENT = b"the content"
MD5 = hashlib.md5(CONTENT).hexdigest()
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()
SHA256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {"etag": f'"{MD5}"'},
        {"etag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"},
        {"x-amz-checksum-crc32": CRC32},
        {"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-crc32": CRC32, "etag": f'"{"0" * 32}"'},
    ],
)
def test_the_promised_checksum_fits_the_content_and_no_other(headers):
    expected = expected_of(headers, BUCKET)
    right, wrong = expected.new(), expected.new()
    right.update(memoryview(CONTENT))
    wrong.update(memoryview(CONTENT[:-1]))

    assert right.hexdigest() == expected.hexdigest
    assert wrong.hexdigest() != expected.hexdigest


@pytest.mark.parametrize(
    ("headers", "bucket"),
    [
        ({}, BUCKET),
        ({"etag": f'"{MD5}-2"'}, BUCKET),
        ({"etag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"}, BUCKET),
        ({"etag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"}, BUCKET),
        ({"etag": f'"{MD5}"'}, "scans--use1-az4--x-s3"),
        ({"x-amz-checksum-sha256": SHA256 + "-3"}, BUCKET),
        ({"x-amz-checksum-sha256": SHA256, "x-amz-checksum-type": "COMPOSITE"}, BUCKET),
        ({"x-amz-checksum-sha256": "no base64!"}, BUCKET),
    ],
)
def test_what_is_no_checksum_of_the_whole_content_is_not_taken_for_one(headers, bucket):
    assert expected_of(headers, bucket) == NOTHING_KNOWN


def test_a_session_token_travels_with_the_request_and_is_signed(monkeypatch, store, proxy, tmp_path):
    clients = clients_for(monkeypatch, proxy.url, AWS_SESSION_TOKEN="token-of-a-role")
    put(store, **{"a.ply": b"one"})

    download(Transfer(ObjectStore(clients.s3), clients.credentials), tmp_path / "input")

    sent = next(passing.headers for passing in proxy.seen if passing.is_object)
    assert sent["x-amz-security-token"] == "token-of-a-role"
    assert ";x-amz-security-token" in sent["authorization"]


@contextmanager
def rclone_s3(folder, *options):
    """Serve the folder by an S3 server that checks signatures; yield its port."""
    program = Path(sys.executable).with_name("rclone")
    if not program.exists():
        pytest.skip("rclone is not installed")
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [str(program), "--config=", "serve", "s3", str(folder), f"--addr=127.0.0.1:{port}", *options]
    server = subprocess.Popen([*argv, "--auth-key=KEY,right-secret", "--log-level=CRITICAL"])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            threading.Event().wait(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def strict_server(tmp_path):
    with rclone_s3(tmp_path / "served") as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def certificate(tmp_path):
    """A certificate for this machine that signs itself; returns the files of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.parametrize("is_trusted", [True, False])
def test_over_https_only_a_trusted_server_is_spoken_to(monkeypatch, certificate, tmp_path, is_trusted):
    data = os.urandom(3 * MIB)
    write(tmp_path / "output", **{"a.ply": data})
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with rclone_s3(tmp_path / "served", f"--cert={certificate[0]}", f"--key={certificate[1]}") as port:
        clients = clients_for(
            monkeypatch,
            f"https://localhost:{port}",
            AWS_ACCESS_KEY_ID="KEY",
            AWS_SECRET_ACCESS_KEY="right-secret",
        )
        transfer = Transfer(ObjectStore(clients.s3), clients.credentials)

        if not is_trusted:
            with pytest.raises(JobFailure, match="self-signed certificate"):
                upload(transfer, tmp_path / "output")
            return
        upload(transfer, tmp_path / "output")
        download(transfer, tmp_path / "input", source=TARGET)

    assert (tmp_path / "input" / "a.ply").read_bytes() == data


def test_a_server_that_checks_signatures_accepts_ours(monkeypatch, strict_server, tmp_path):
    files = {"a b+c%20.ply": b"one", "deep/q&x=1;~!'(),@$é上.ply": b"two", "large": os.urandom(MIB)}
    write(tmp_path / "output", **files)
    clients = clients_for(
        monkeypatch, strict_server, AWS_ACCESS_KEY_ID="KEY", AWS_SECRET_ACCESS_KEY="right-secret"
    )
    transfer = Transfer(ObjectStore(clients.s3), clients.credentials)

    upload(transfer, tmp_path / "output")
    download(transfer, tmp_path / "input", source=TARGET)

    assert tree(tmp_path / "input") == files


def test_a_server_that_checks_signatures_refuses_a_wrong_secret(monkeypatch, strict_server, tmp_path):
    write(tmp_path / "output", **{"a.ply": b"one"})
    clients = clients_for(monkeypatch, strict_server, AWS_ACCESS_KEY_ID="KEY", AWS_SECRET_ACCESS_KEY="wrong")

    with pytest.raises(JobFailure, match="S3 refused it") as caught:
        upload(Transfer(ObjectStore(clients.s3), clients.credentials), tmp_path / "output")

    assert caught.value.failure_class is FailureClass.TRANSFER
