"""Properties of S3 places and object keys, for any text."""

import ntpath
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from scanfleet.agent.safe_paths import check_keys, key_problem, local_path
from scanfleet.errors import ConfigurationError, InvalidRequest, JobFailure
from scanfleet.s3_uri import MAX_KEY_BYTES, AllowedPrefixes, S3Uri
from tests.support.outcomes import outcome

NASTY = st.sampled_from(
    ["", ".", "..", " ", "a", "b", "src", "src2", "con", "NUL", "a.", "é", "e\u0301", "\\"]
)
SEGMENTS = st.one_of(NASTY, st.text(max_size=8))
ANY_TEXT = st.text(st.characters(), max_size=60)
"""Lone surrogates included: JSON can carry them."""
URIS = st.one_of(
    ANY_TEXT,
    st.builds(lambda parts: "s3://" + "/".join(parts), st.lists(SEGMENTS, max_size=5)),
    st.builds(lambda parts: "s3://bucket/" + "/".join(parts), st.lists(SEGMENTS, max_size=5)),
)
NAMES = st.text("abAB01._-", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
FOLDERS = st.builds(
    lambda bucket, parts: f"s3://{bucket}/" + "".join(f"{part}/" for part in parts),
    st.sampled_from(["bucket", "bucket2"]),
    st.lists(NAMES, min_size=1, max_size=4),
)


@given(URIS)
def test_any_text_is_a_folder_or_is_refused_by_its_field(text):
    uri, refused = outcome(InvalidRequest, lambda: S3Uri.parse_folder(text, field="source"))
    if refused:
        assert [error.field for error in refused.errors] == ["source"]
        return
    assert S3Uri.parse_folder(str(uri), field="source") == uri
    assert uri.key.endswith("/")
    assert len(uri.key.encode()) <= MAX_KEY_BYTES
    assert not {"", ".", ".."} & set(uri.key.removesuffix("/").split("/"))


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text())
    )
)
def test_what_is_no_text_is_refused_by_its_field(value):
    with pytest.raises(InvalidRequest) as refused:
        S3Uri.parse_folder(value, field="source")

    assert [error.field for error in refused.value.errors] == ["source"]


@given(FOLDERS, FOLDERS)
def test_inside_means_the_same_folders_from_the_left(first, second):
    """Compared name by name, so that test/src2 can never count as inside of test/src."""
    one, other = (S3Uri.parse_folder(text, field="f") for text in (first, second))
    names, others = one.key.split("/")[:-1], other.key.split("/")[:-1]

    assert one.is_inside(other) == (one.bucket == other.bucket and names[: len(others)] == others)


@given(FOLDERS, NAMES)
def test_a_longer_name_is_another_folder(folder, more):
    one = S3Uri.parse_folder(folder, field="f")
    longer = S3Uri(one.bucket, one.key.removesuffix("/") + more + "/")

    assert not longer.is_inside(one)
    assert one.child(more + "/").is_inside(one)
    assert not AllowedPrefixes([folder]).allows(longer)
    assert AllowedPrefixes([folder]).allows(one.child(more))


@given(URIS)
@example("s3://bucket\n/")
@example("s3://")
def test_a_prefix_is_one_or_is_refused_as_a_setting(text):
    prefixes, refused = outcome(ConfigurationError, lambda: AllowedPrefixes([text]))
    if refused:
        assert "allowed prefix" in str(refused)
        return
    (folder,) = prefixes.folders
    assert str(folder) == text
    assert folder.bucket.isprintable()


# --- Keys that become files --------------------------------------------------------------------------------

KEYS = st.one_of(ANY_TEXT, st.builds("/".join, st.lists(SEGMENTS, min_size=1, max_size=5)))


@given(KEYS)
def test_a_key_is_a_file_inside_of_the_folder_on_both_systems_or_is_refused(key):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, refused = outcome(JobFailure, lambda: local_path(folder, key))
        if refused:
            assert refused.failure_class == "bad_input"
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        assert path.resolve().is_relative_to(folder.resolve())
    on_windows = ntpath.normpath(ntpath.join("C:\\work", *key.split("/")))
    assert on_windows == "C:\\work\\" + key.replace("/", "\\")


@given(st.lists(KEYS, min_size=2, max_size=6))
def test_keys_that_pass_together_are_as_many_files_wherever_case_and_form_are_ignored(keys):
    try:
        check_keys(keys)
    except JobFailure:
        return
    names = {unicodedata.normalize("NFC", key).lower() for key in keys}
    assert len(names) == len(keys)
    assert not any(other.startswith(name + "/") for name in names for other in names)


@given(st.text("abcdefgh", min_size=1, max_size=20))
def test_a_key_that_differs_in_case_only_is_refused(key):
    assume(key.upper() != key)
    assert key_problem(key) is None

    with pytest.raises(JobFailure, match="only in case"):
        check_keys([key, key.upper()])
