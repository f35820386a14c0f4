"""Releases: published once, activated when whole, fetched and verified; against moto's S3 and SSM."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from scanfleet.cli import app
from scanfleet.contract import NO_RELEASE, RELEASES_PREFIX, Parameter, parameter_name
from scanfleet.errors import Conflict, InvalidRequest, NotFound
from scanfleet.releases import Release, ReleaseStore, describe
from scanfleet.releases_active import ActiveRelease
from scanfleet.releases_fetch import fetch_active, main
from scanfleet.releases_local import LocalReleases

BUCKET = "medit-releases"
STAGE = "dev"
PARAMETER = parameter_name(STAGE, Parameter.MEDIT_RELEASE)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An account with the release bucket and the parameters that the image stack writes."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        session = boto3.session.Session()
        session.client("s3").create_bucket(Bucket=BUCKET)
        ssm = session.client("ssm")
        ssm.put_parameter(Name=PARAMETER, Value=NO_RELEASE, Type="String")
        ssm.put_parameter(Name=parameter_name(STAGE, Parameter.RELEASE_BUCKET), Value=BUCKET, Type="String")
        yield session


@pytest.fixture
def store(aws: Any) -> ReleaseStore:
    return ReleaseStore(aws.client("s3"), BUCKET)


@pytest.fixture
def active(aws: Any) -> ActiveRelease:
    return ActiveRelease(aws.client("ssm"), STAGE)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A release's folder: two files of equal content, one that is empty."""
    folder = tmp_path / "program"
    (folder / "lib").mkdir(parents=True)
    (folder / "Medit_AutoTest.exe").write_bytes(b"MZ program 1")
    (folder / "lib" / "model.bin").write_bytes(b"weights" * 1000)
    (folder / "lib" / "copy of model.bin").write_bytes(b"weights" * 1000)
    (folder / "lib" / "empty").write_bytes(b"")
    return folder


def objects(aws: Any) -> set[str]:
    listed = aws.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {entry["Key"] for entry in listed}


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def replace_object(aws: Any, release: Release, path: str, body: bytes) -> None:
    (file,) = [file for file in release.files if file.path == path]
    aws.client("s3").put_object(Bucket=BUCKET, Key=file.key, Body=body)


# --- Publishing --------------------------------------------------------------------------------------------


def test_files_of_equal_content_are_stored_once(aws, store, program):
    published = store.publish(program, "1.0.0")

    assert len(published.release.files) == 4
    assert published.uploaded == 3
    assert len(objects(aws)) == 3 + 1


def test_only_objects_that_the_bucket_has_not_travel(aws, store, program):
    store.publish(program, "1.0.0")
    (program / "Medit_AutoTest.exe").write_bytes(b"MZ program 2")

    published = store.publish(program, "1.0.1")

    assert published.uploaded == 1
    assert published.uploaded_bytes == len(b"MZ program 2")
    assert store.versions() == ["1.0.0", "1.0.1"]


def test_a_published_version_never_changes(store, program):
    before = store.publish(program, "1.0.0").release
    (program / "Medit_AutoTest.exe").write_bytes(b"MZ program 2")

    with pytest.raises(Conflict, match="never change"):
        store.publish(program, "1.0.0")

    assert store.read("1.0.0") == before


def test_a_second_publisher_of_the_same_version_is_refused_though_both_looked_before(aws, store, program):
    store.publish(program, "1.0.0")
    late = ReleaseStore(aws.client("s3"), BUCKET)

    with pytest.raises(Conflict, match="somebody else"):
        late._write_manifest(describe(program, "1.0.0"))


def test_publishing_the_same_again_repairs_a_missing_object(aws, store, program):
    release = store.publish(program, "1.0.0").release
    aws.client("s3").delete_object(Bucket=BUCKET, Key=release.files[0].key)

    published = store.publish(program, "1.0.0")

    assert published.uploaded == 1
    store.verify(release)


@pytest.mark.parametrize("version", ["", "none", "..", "a/b", "-1", "1.", "x" * 65, "con", "1 2"])
def test_a_version_that_no_folder_can_be_named_for_is_refused(store, program, version):
    with pytest.raises(InvalidRequest, match="version"):
        store.publish(program, version)


def test_a_folder_without_files_is_refused(store, tmp_path):
    (tmp_path / "empty" / "sub").mkdir(parents=True)

    with pytest.raises(InvalidRequest, match="no files"):
        store.publish(tmp_path / "empty", "1")


def test_a_link_is_refused(store, program):
    (program / "link").symlink_to(program / "Medit_AutoTest.exe")

    with pytest.raises(InvalidRequest, match="link"):
        store.publish(program, "1")


def test_two_names_that_are_one_file_on_windows_are_refused(store, program):
    (program / "MEDIT_autotest.EXE").write_bytes(b"")

    with pytest.raises(InvalidRequest, match="only in case"):
        store.publish(program, "1")


# --- Activating --------------------------------------------------------------------------------------------


def test_a_whole_release_becomes_active(store, active, program):
    store.publish(program, "1.0.0")

    active.activate(store, "1.0.0")

    assert active.version() == "1.0.0"


@pytest.mark.parametrize("damage", ["gone", "another size"])
def test_a_release_with_a_bad_object_does_not_become_active(aws, store, active, program, damage):
    release = store.publish(program, "1.0.0").release
    if damage == "gone":
        aws.client("s3").delete_object(Bucket=BUCKET, Key=release.files[0].key)
    else:
        replace_object(aws, release, "Medit_AutoTest.exe", b"short")

    with pytest.raises(Conflict, match=r"1 of 4 files"):
        active.activate(store, "1.0.0")

    assert active.version() == NO_RELEASE


def test_a_release_that_is_not_there_does_not_become_active(store, active):
    with pytest.raises(NotFound, match="no release 9"):
        active.activate(store, "9")

    assert active.version() == NO_RELEASE


def test_activating_the_active_release_writes_nothing_and_so_builds_no_image(aws, store, active, program):
    store.publish(program, "1.0.0")
    active.activate(store, "1.0.0")
    before = aws.client("ssm").get_parameter(Name=PARAMETER)["Parameter"]["Version"]

    active.activate(store, "1.0.0")

    assert aws.client("ssm").get_parameter(Name=PARAMETER)["Parameter"]["Version"] == before


def test_a_rollback_goes_to_the_release_before_and_another_one_forward_again(store, active, program):
    for version in ("1", "2"):
        (program / "Medit_AutoTest.exe").write_text(version)
        store.publish(program, version)
        active.activate(store, version)

    active.activate(store, active.previous())
    assert active.version() == "1"

    active.activate(store, active.previous())
    assert active.version() == "2"


def test_the_first_release_has_nothing_to_roll_back_to(store, active, program):
    store.publish(program, "1")
    active.activate(store, "1")

    with pytest.raises(Conflict, match="no other release"):
        active.previous()


# --- Fetching ----------------------------------------------------------------------------------------------


def test_a_fetched_release_is_the_published_folder(aws, store, active, program, tmp_path):
    store.publish(program, "1.0.0")
    active.activate(store, "1.0.0")

    folder = fetch_active(bucket=BUCKET, parameter=PARAMETER, into=tmp_path / "medit", session=aws)

    assert folder == tmp_path / "medit" / "1.0.0"
    assert content(folder) == content(program)
    assert LocalReleases(tmp_path / "medit").active() == folder


def test_no_active_release_changes_nothing(aws, tmp_path):
    assert fetch_active(bucket=BUCKET, parameter=PARAMETER, into=tmp_path / "medit", session=aws) is None
    assert not (tmp_path / "medit").exists()


def test_wrong_content_of_the_right_size_is_refused_and_the_active_release_stays(
    aws, store, active, program, tmp_path
):
    local = LocalReleases(tmp_path / "medit")
    good = store.publish(program, "1").release
    local.fetch(store, good)
    local.activate("1")
    (program / "Medit_AutoTest.exe").write_bytes(b"MZ program 2")
    bad = store.publish(program, "2").release
    replace_object(aws, bad, "Medit_AutoTest.exe", b"MZ program X")

    with pytest.raises(Conflict, match=r"Medit_AutoTest\.exe.*not what the manifest says"):
        local.fetch(store, bad)

    assert local.active() == tmp_path / "medit" / "1"
    assert not (tmp_path / "medit" / "2").exists()


def test_an_object_that_is_too_long_is_refused_before_it_fills_the_disk(aws, store, program, tmp_path):
    release = store.publish(program, "1").release
    replace_object(aws, release, "lib/empty", b"x" * 5_000_000)

    with pytest.raises(Conflict, match="lib/empty"):
        LocalReleases(tmp_path / "medit").fetch(store, release)


def test_an_interrupted_fetch_goes_on_and_leaves_nothing_foreign(aws, store, program, tmp_path):
    release = store.publish(program, "1").release
    partial = tmp_path / "medit" / ".partial-1"
    (partial / "old").mkdir(parents=True)
    (partial / "old" / "foreign.dll").write_bytes(b"left over")
    (partial / "Medit_AutoTest.exe").write_bytes(b"MZ program 1")
    (kept,) = [file for file in release.files if file.path == "Medit_AutoTest.exe"]
    aws.client("s3").delete_object(Bucket=BUCKET, Key=kept.key)  # so it can only be the one that is here

    folder = LocalReleases(tmp_path / "medit").fetch(store, release)

    assert content(folder) == content(program)
    assert not partial.exists()


def test_a_copy_that_was_changed_on_the_machine_is_replaced(store, program, tmp_path):
    local = LocalReleases(tmp_path / "medit")
    release = store.publish(program, "1").release
    folder = local.fetch(store, release)
    (folder / "Medit_AutoTest.exe").write_bytes(b"MZ program 7")

    assert content(local.fetch(store, release)) == content(program)


@pytest.mark.parametrize("path", ["../escape.exe", "/abs.exe", "C:/win.exe", "a/../../b", "nul", "a\\b"])
def test_a_manifest_with_an_unsafe_path_is_refused(aws, store, path):
    manifest = {
        "version": "1",
        "created": "2026-01-01T00:00:00Z",
        "files": [{"path": path, "size_bytes": 0, "sha256": "0" * 64}],
    }
    key = f"{RELEASES_PREFIX}1/manifest.json"
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=json.dumps(manifest))

    with pytest.raises(Conflict, match=r"manifest\.json"):
        store.read("1")


@pytest.mark.parametrize(
    "manifest",
    [
        "no json",
        "{}",
        '{"version": "2", "created": "2026-01-01T00:00:00Z", "files": [%s]}',
        '{"version": "1", "created": "2026-01-01T00:00:00Z", "files": []}',
        '{"version": "1", "created": "2026-01-01T00:00:00Z", "files": [%s, %s]}',
        '{"version": "1", "created": "today", "files": [%s]}',
    ],
)
def test_a_manifest_that_is_none_is_refused(aws, store, manifest):
    file = json.dumps({"path": "a", "size_bytes": 0, "sha256": "0" * 64})
    key = f"{RELEASES_PREFIX}1/manifest.json"
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=manifest.replace("%s", file))

    with pytest.raises(Conflict):
        store.read("1")


def test_a_pointer_to_a_release_that_is_not_here_is_an_error(tmp_path):
    (tmp_path / ".active").write_text("7\n")

    with pytest.raises(Conflict, match="names 7"):
        LocalReleases(tmp_path).active()


def test_the_image_build_gets_an_exit_code_and_one_line(aws, store, active, program, tmp_path, capsys):
    store.publish(program, "1")
    active.activate(store, "1")
    words = ["--bucket", BUCKET, "--parameter", PARAMETER, "--into", str(tmp_path / "medit")]

    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'medit' / '1'}\n"

    aws.client("s3").delete_object(Bucket=BUCKET, Key=f"{RELEASES_PREFIX}1/manifest.json")
    assert main(words) == 1
    assert capsys.readouterr().err.startswith("scanfleet: there is no release 1")


# --- The command line --------------------------------------------------------------------------------------


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["release", *words])


def test_the_command_line_publishes_activates_lists_and_rolls_back(aws, program):
    for version in ("1", "2"):
        (program / "Medit_AutoTest.exe").write_text(version)
        assert run("publish", str(program), "--version", version, "--bucket", BUCKET).stdout == f"{version}\n"
        assert run("activate", version, "--stage", STAGE).exit_code == 0

    assert run("rollback", "--stage", STAGE).stdout == "1\n"
    listed = json.loads(run("list", "--stage", STAGE, "--json").stdout)["releases"]
    assert {row["version"]: row["active"] for row in listed} == {"1": True, "2": False}


def test_the_exit_code_says_what_is_wrong(aws, program):
    assert run("activate", "9", "--stage", STAGE).exit_code == 3
    assert run("activate", "1", "--stage", "prod").exit_code == 3
    assert run("publish", str(program), "--version", "1").exit_code == 2
    assert run("list", "--bucket", "no-such-bucket").exit_code == 5


def test_without_credentials_the_message_says_what_to_set(program, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    result = run("list", "--bucket", BUCKET)

    assert result.exit_code == 2
    assert "AWS_PROFILE" in result.stderr
