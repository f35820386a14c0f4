"""Presigned URLs: files in and out without credentials, and nowhere else."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.support.api import DATA, OPERATOR, as_owner, running_api, served_with


@pytest.fixture(scope="module")
def api():
    with running_api() as running:
        yield running


def presign(api, headers=None, **params):
    return api.http.get("/presign", params=params, headers=headers)


def error(answer):
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["errors"][0]


def test_a_file_goes_up_and_comes_back_through_presigned_urls(api):
    data = b"ply\nformat ascii 1.0\n"

    up = presign(api, file="case 7/ü.ply", mode="upload", size_bytes=len(data)).json()
    put = httpx.request(up["method"], up["url"], content=data, headers=up["headers"])
    down = presign(api, file=up["uri"], mode="download").json()
    got = httpx.request(down["method"], down["url"], headers=down["headers"])

    assert put.status_code == 200
    assert up["uri"] == f"s3://{DATA}/uploads/ann/case 7/ü.ply"
    assert got.content == data
    assert (up["method"], down["method"], down["headers"]) == ("PUT", "GET", {})


def test_an_upload_url_signs_the_size_and_the_type_and_ends_after_the_configured_time(api):
    with served_with(api, presign_seconds=77) as other:
        signed = presign(
            other, file="a.ply", mode="upload", size_bytes=5, content_type="application/octet-stream"
        ).json()

    query = parse_qs(urlsplit(signed["url"]).query)
    assert {"content-length", "content-type"} <= set(query["X-Amz-SignedHeaders"][0].split(";"))
    assert query["X-Amz-Expires"] == ["77"]
    assert signed["expires_in_seconds"] == 77
    assert signed["headers"] == {"Content-Length": "5", "Content-Type": "application/octet-stream"}


def test_the_caller_is_told_its_uploads_folder(api):
    answer = api.http.get("/uploads")

    assert answer.json() == {
        "uri": f"s3://{DATA}/uploads/ann/",
        "max_file_bytes": api.settings.max_upload_bytes,
        "expires_in_seconds": api.settings.presign_seconds,
    }


def test_an_owner_whose_name_has_a_slash_stays_in_its_own_folder(api):
    answer = api.http.get("/uploads", headers=as_owner("ann/x"))

    assert answer.json()["uri"] == f"s3://{DATA}/uploads/ann%2Fx/"


@pytest.mark.parametrize(
    "file",
    [
        "",
        "a/",
        "../bob/a",
        "a/../../bob/a",
        "./a",
        "/a",
        "a//b",
        "a\\..\\b",
        "a\nb",
        "x" * 1100,
        "ftp://a/b",
        "s3://",
    ],
)
@pytest.mark.parametrize("mode", ["upload", "download"])
def test_a_path_that_could_lead_elsewhere_is_refused(api, mode, file):
    assert error(presign(api, file=file, mode=mode, size_bytes=1))["field"] == "file"


def test_uploads_go_to_the_callers_own_folder_only(api):
    for uri in (f"s3://{DATA}/elsewhere/a", f"s3://{DATA}/uploads/bob/a", f"s3://{DATA}/uploads/ann2/a"):
        assert "own folder" in error(presign(api, file=uri, mode="upload", size_bytes=1))["message"]

    own = presign(api, file=f"s3://{DATA}/uploads/ann/a", mode="upload", size_bytes=1)

    assert own.status_code == 200


def test_a_browser_saves_a_download_that_is_asked_for_as_an_attachment(api):
    api.put("results/page.html")
    page = f"s3://{DATA}/results/page.html"

    saved = httpx.get(presign(api, file=page, mode="download", attachment="true").json()["url"])
    shown = httpx.get(presign(api, file=page, mode="download").json()["url"])

    assert saved.headers["content-disposition"] == "attachment"
    assert "content-disposition" not in shown.headers


def test_downloads_stay_inside_the_allowed_prefixes(api):
    assert presign(api, file=f"s3://{DATA}/results/a", mode="download").status_code == 200
    assert "allowed place" in error(presign(api, file="s3://foreign-data/a", mode="download"))["message"]


def test_another_callers_uploads_are_out_of_reach_but_not_for_operators(api):
    api.put("uploads/bob/in/scan.ply")
    theirs = f"s3://{DATA}/uploads/bob/in/"

    assert "another caller" in error(presign(api, file=theirs + "scan.ply", mode="download"))["message"]
    for source in (theirs, f"s3://{DATA}/uploads/"):
        refused = api.http.post("/jobs", json={"source": source, "target": f"s3://{DATA}/o/"})
        assert "another caller" in error(refused)["message"]
    assert presign(api, OPERATOR, file=theirs + "scan.ply", mode="download").status_code == 200
    own = api.http.post(
        "/jobs", json={"source": theirs, "target": f"s3://{DATA}/uploads/bob/out/"}, headers=as_owner("bob")
    )
    assert own.status_code == 202


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"mode": "upload"}, "size_bytes"),
        ({"mode": "upload", "size_bytes": -1}, "size_bytes"),
        ({"mode": "upload", "size_bytes": 5 * 1024**3 + 1}, "size_bytes"),
        ({"mode": "upload", "size_bytes": 1, "content_type": "a\nb"}, "content_type"),
        ({"mode": "delete"}, "mode"),
        ({}, "mode"),
    ],
)
def test_a_wrong_query_names_its_parameter(api, params, field):
    assert error(presign(api, file="a.ply", **params))["field"] == field


def test_a_missing_file_parameter_is_named(api):
    assert error(api.http.get("/presign?mode=download"))["field"] == "file"
