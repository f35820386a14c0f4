"""S3 places and objects, against moto's S3 server."""

from datetime import timedelta

import httpx
import pytest

from scanfleet.clients import build_clients
from scanfleet.errors import ConfigurationError, Conflict, InvalidRequest, NotFound, Unavailable
from scanfleet.objects import AllowedPrefixes, Copy, ObjectStore, S3Uri
from tests.support.s3_server import BUCKET, clients_for, faulty, moto_s3

BAD_FOLDERS = {
    "no string": (7, "must be a string"),
    "nothing": (None, "must be a string"),
    "empty": ("", "no scheme"),
    "no scheme": ("scans/test/src", "no scheme"),
    "path": ("/scans/test", "no scheme"),
    "windows path": ("C:\\scans", "no scheme"),
    "other scheme": ("https://scans/test/", "another scheme"),
    "upper-case scheme": ("S3://scans/test/", "another scheme"),
    "blank before": (" s3://scans/test/", "another scheme"),
    "no bucket": ("s3:///test/", "no bucket"),
    "nothing after the scheme": ("s3://", "no bucket"),
    "short bucket": ("s3://b/test/", "no valid bucket"),
    "upper-case bucket": ("s3://Scans/test/", "no valid bucket"),
    "address as bucket": ("s3://192.168.0.1/test/", "no valid bucket"),
    "bucket with underscore": ("s3://my_scans/test/", "no valid bucket"),
    "bucket with two dots": ("s3://my..scans/test/", "no valid bucket"),
    "bucket with a query": ("s3://scans?x=1/test/", "no valid bucket"),
    "no folder": ("s3://scans", "no folder"),
    "no folder, slash": ("s3://scans/", "no folder"),
    "dot dot": ("s3://scans/test/../other/", '".."'),
    "dot": ("s3://scans/./test/", '"."'),
    "empty name": ("s3://scans/test//src/", "empty folder name"),
    "only slashes": ("s3://scans//", "no folder"),
    "control character": ("s3://scans/te\x07st/", "control character"),
    "newline at the end": ("s3://scans/test/\n", "control character"),
    "backslash": ("s3://scans/test\\src/", "backslash"),
    "too long": ("s3://scans/" + "ä" * 512, "over 1024 bytes"),
    "lone surrogate": ("s3://scans/\ud800/", "Unicode"),
}


@pytest.mark.parametrize(("text", "why"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_a_folder_that_is_none_is_refused_with_field_value_and_allowed_form(text, why):
    with pytest.raises(InvalidRequest) as caught:
        S3Uri.parse_folder(text, field="Source Folder Path")

    error = caught.value.errors[0]
    assert error.field == "Source Folder Path"
    assert why in error.message
    assert error.allowed == "s3://bucket/folder/"
    assert text is None or error.value is not None


@pytest.mark.parametrize("text", ["s3://scans/test/src", "s3://scans/test/src/"])
def test_a_folder_gets_its_closing_slash(text):
    assert str(S3Uri.parse_folder(text, field="x")) == "s3://scans/test/src/"


def test_a_folder_whose_name_begins_alike_is_not_inside():
    source = S3Uri("scans", "test/src/")

    assert S3Uri("scans", "test/src/deep/").is_inside(source)
    assert source.is_inside(source)
    assert not S3Uri("scans", "test/src2/").is_inside(source)
    assert not S3Uri("other", "test/src/deep/").is_inside(source)
    assert not S3Uri("scans", "test/src2/").is_inside(S3Uri("scans", "test/src"))


def test_only_places_under_an_allowed_prefix_pass_and_the_others_are_told_which():
    allowed = AllowedPrefixes(("s3://scans/clinic/", "s3://open-data/"))

    allowed.require(S3Uri("scans", "clinic/a/"), field="x")
    allowed.require(S3Uri("open-data", "any/"), field="x")
    with pytest.raises(InvalidRequest) as caught:
        allowed.require(S3Uri("scans", "clinic2/a/"), field="Target Folder Path")

    error = caught.value.errors[0]
    assert (error.field, error.value) == ("Target Folder Path", "s3://scans/clinic2/a/")
    assert error.allowed == "under s3://scans/clinic/, s3://open-data/"


@pytest.mark.parametrize("prefix", ["scans/", "s3://scans/x", "s3://S/", "s3://scans/../"])
def test_a_wrong_prefix_is_a_configuration_error(prefix):
    with pytest.raises(ConfigurationError, match="allowed prefix"):
        AllowedPrefixes((prefix,))


@pytest.fixture(scope="module")
def server():
    with moto_s3() as url:
        yield url


@pytest.fixture
def clients(monkeypatch, server):
    httpx.post(f"{server}/moto-api/reset")
    found = clients_for(monkeypatch, server)
    found.s3.create_bucket(Bucket=BUCKET)
    return found


@pytest.fixture
def store(clients):
    return ObjectStore(clients.s3)


def put(store, *keys, data=b"x"):
    for key in keys:
        store.put_bytes(S3Uri(BUCKET, key), data)


def test_listing_a_folder_gives_exactly_what_lies_under_it(store):
    put(store, "test/src/a.ply", "test/src/deep/b.ply", "test/src2/c.ply", "test/src", "test/srcd.ply")
    store.put_bytes(S3Uri(BUCKET, "test/src/"), b"")
    store.put_bytes(S3Uri(BUCKET, "test/src/empty/"), b"")

    found = list(store.list_folder(S3Uri(BUCKET, "test/src/")))

    assert [(o.key, o.relative, o.size_bytes) for o in found] == [
        ("test/src/a.ply", "a.ply", 1),
        ("test/src/deep/b.ply", "deep/b.ply", 1),
    ]
    assert found[0].etag == "9dd4e461268c8034f5c8564e155c67a6"


def test_listing_goes_beyond_one_page_and_leaves_the_neighbours_out(monkeypatch, store):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # the server's page size
    put(store, *(f"many/{n:02}" for n in range(25)), "many2/x")

    assert len(list(store.list_folder(S3Uri(BUCKET, "many/")))) == 25


def test_more_objects_than_one_call_takes_are_deleted_and_no_others(store):
    put(store, *(f"many/{n:04}" for n in range(3)), "many2/x")

    store.delete_all(S3Uri(BUCKET, f"many/{n:04}") for n in range(1001))

    assert [o.key for o in store.list_folder(S3Uri(BUCKET, ""))] == ["many2/x"]


def test_keys_with_blanks_plus_percent_and_unicode_survive(store):
    keys = ["odd/a b+c%20.ply", "odd/q?x=1&y.ply", "odd/上顎é.ply"]
    put(store, *keys)

    assert sorted(o.key for o in store.list_folder(S3Uri(BUCKET, "odd/"))) == sorted(keys)
    assert store.get_bytes(S3Uri(BUCKET, keys[0])) == b"x"


def test_a_written_object_carries_its_sha256(monkeypatch, server, clients):
    with faulty(server) as proxy:
        store = ObjectStore(clients_for(monkeypatch, proxy.url).s3)

        store.put_bytes(S3Uri(BUCKET, "a"), b"hello", content_type="text/plain")

        sent = proxy.seen[0].headers
    assert sent["x-amz-checksum-sha256"] == "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="
    assert sent["content-type"] == "text/plain"


def test_objects_are_copied_whole_or_in_parts(clients):
    part = 5 * 1024**2
    store = ObjectStore(clients.s3, max_single_copy_bytes=part, copy_part_bytes=part)
    data = bytes(range(256)) * (2 * part // 256) + b"end"
    put(store, "small", data=b"x")
    put(store, "large +ä", data=data)

    store.copy_all(
        [
            Copy(S3Uri(BUCKET, "small"), S3Uri(BUCKET, "copy/small"), 1),
            Copy(S3Uri(BUCKET, "large +ä"), S3Uri(BUCKET, "copy/large"), len(data)),
        ]
    )

    assert store.get_bytes(S3Uri(BUCKET, "copy/small")) == b"x"
    assert store.get_bytes(S3Uri(BUCKET, "copy/large")) == data


def test_a_copy_in_parts_that_fails_leaves_no_parts_behind(clients):
    store = ObjectStore(clients.s3, max_single_copy_bytes=1, copy_part_bytes=5 * 1024**2)

    with pytest.raises(NotFound, match="no such object"):
        store.copy(S3Uri(BUCKET, "missing"), S3Uri(BUCKET, "copy"), 6 * 1024**2)

    assert "Uploads" not in clients.s3.list_multipart_uploads(Bucket=BUCKET)


def test_a_presigned_pair_of_urls_uploads_and_downloads_without_credentials(store):
    uri = S3Uri(BUCKET, "uploads/scan 1.ply")
    up = store.presign(uri, upload=True, expires=timedelta(minutes=5), size_bytes=5, content_type="model/ply")

    assert up.method == "PUT"
    assert up.headers == {"Content-Length": "5", "Content-Type": "model/ply"}
    assert "content-length" in up.url  # signed, so that another length is refused
    assert httpx.put(up.url, content=b"hello", headers=up.headers).status_code == 200
    down = store.presign(uri, upload=False, expires=timedelta(minutes=5))
    assert httpx.get(down.url).content == b"hello"


def test_what_is_missing_is_not_found_and_named(store):
    with pytest.raises(NotFound, match="s3://nowhere-bucket/x/: there is no such bucket"):
        list(store.list_folder(S3Uri("nowhere-bucket", "x/")))
    with pytest.raises(NotFound, match="s3://scans/gone: there is no such object"):
        store.get_bytes(S3Uri(BUCKET, "gone"))
    assert store.bucket_exists(BUCKET)
    assert not store.bucket_exists("nowhere-bucket")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", ConfigurationError),
        (400, "ExpiredToken", Unavailable),
        (412, "PreconditionFailed", Conflict),
    ],
)
def test_an_answer_of_s3_becomes_what_the_caller_does_about_it(
    monkeypatch, server, clients, status, code, error
):
    with faulty(server) as proxy:
        store = ObjectStore(clients_for(monkeypatch, proxy.url).s3)

        def refuse(passing):
            passing.status = status
            passing.body = f"<Error><Code>{code}</Code><Message>because</Message></Error>".encode()

        proxy.before = refuse
        with pytest.raises(error, match="s3://scans/a"):
            store.get_bytes(S3Uri(BUCKET, "a"))


def test_a_server_that_is_gone_is_unavailable(monkeypatch):
    import boto3
    from botocore.config import Config

    session = boto3.Session("test", "test", region_name="us-east-1")
    client = session.client(
        "s3", endpoint_url="http://127.0.0.1:1", config=Config(retries={"total_max_attempts": 1})
    )

    with pytest.raises(Unavailable, match="s3://scans/a: S3 did not answer"):
        ObjectStore(client).get_bytes(S3Uri(BUCKET, "a"))


def test_clients_put_the_bucket_into_the_path_only_where_the_endpoint_is_not_amazons(monkeypatch):
    emulated = clients_for(monkeypatch, "http://localhost:4566").s3
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    real = build_clients().s3

    def address(client):
        return client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "a"}).split("?")[
            0
        ]

    assert address(emulated) == "http://localhost:4566/scans/a"
    assert address(real) == "https://scans.s3.amazonaws.com/a"


def test_the_long_poll_of_a_queue_is_no_time_out(monkeypatch):
    clients = clients_for(monkeypatch, "http://127.0.0.1:1")

    assert clients.sqs.meta.config.read_timeout > 20
    assert clients.s3.meta.config.retries["mode"] == "standard"


def test_without_credentials_no_clients_are_built():
    with pytest.raises(ConfigurationError, match="no AWS credentials"):
        build_clients()
