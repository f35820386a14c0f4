"""Which object keys may become files."""

import string
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanfleet.agent.safe_paths import MAX_RELATIVE_UNITS, check_keys, key_problem, local_path
from scanfleet.errors import JobFailure
from scanfleet.jobs import FailureClass

BAD_KEYS = {
    "leaves the folder": "../scan.ply",
    "leaves the folder inside": "a/../../scan.ply",
    "this folder": "./scan.ply",
    "dots in the middle": "a/./scan.ply",
    "only dots": "..",
    "absolute": "/etc/passwd",
    "drive letter": "C:/scan.ply",
    "drive letter, relative": "c:scan.ply",
    "share": "\\\\server\\share\\scan.ply",
    "share with slashes": "//server/share/scan.ply",
    "backslash": "a\\scan.ply",
    "backslash dots": "..\\scan.ply",
    "stream": "scan.ply:hidden",
    "empty": "",
    "empty folder name": "a//scan.ply",
    "folder": "a/",
    "trailing dot": "scan.",
    "folder with trailing dot": "a./scan.ply",
    "trailing blank": "scan.ply ",
    "folder with trailing blank": "a /scan.ply",
    "leading blank": " scan.ply",
    "only a blank": " ",
    "control character": "scan\x01.ply",
    "newline": "scan\n.ply",
    "null": "scan\x00.ply",
    "delete": "scan\x7f.ply",
    "line separator": "scan\u2028.ply",
    "lone surrogate": "scan\ud800.ply",
    "less": "a<b",
    "greater": "a>b",
    "quote": 'a"b',
    "pipe": "a|b",
    "question": "a?b",
    "star": "a*b",
    "CON": "CON",
    "con in a folder": "a/con/scan.ply",
    "PRN": "prn.txt",
    "AUX": "Aux.tar.gz",
    "NUL": "nul.ply",
    "COM1": "COM1",
    "COM9": "com9.log",
    "COM superscript": "com\u00b9.log",
    "LPT1": "LPT1.ply",
    "CONIN$": "CONIN$",
    "CONOUT$": "conout$.txt",
    "device with blank": "CON .txt",
    "300 characters": "n" * 300,
    "256 characters": "n" * 256,
    "130 two-byte characters": "\u00e9" * 130,
    "deep path": "/".join(["folder"] * 40),
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_key_that_no_workspace_can_hold_is_bad_input_and_named(key):
    for check in (lambda: local_path(Path("input"), key), lambda: check_keys(["good.ply", key])):
        with pytest.raises(JobFailure) as caught:
            check()

        assert caught.value.failure_class is FailureClass.BAD_INPUT
        assert repr(key[:20])[1:-1] in caught.value.reason


@pytest.mark.parametrize(
    "key",
    [
        "scan.ply",
        "a/b/c.ply",
        "scan 01.ply",
        "Zähne/上顎.ply",
        "com10.txt",
        "console.log",
        ".hidden",
        "a..b",
        "co.n",
    ],
)
def test_an_ordinary_key_becomes_a_path_below_the_folder(key):
    path = local_path(Path("/scratch/input"), key)

    assert path.relative_to("/scratch/input").as_posix() == key


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        ("Scan.ply", "scan.PLY", "only in case"),
        ("straße.ply", "STRASSE.ply", "only in case"),
        ("caf\u00e9.ply", "cafe\u0301.ply", "Unicode form"),
        ("a/x.ply", "A/y.ply", "only in case"),
        ("a", "a/b.ply", "also a file"),
        ("a/b.ply", "a", "also a folder"),
        ("A/b/c", "a/B", "also a folder"),
    ],
)
def test_two_keys_that_some_file_system_takes_for_one_are_refused(first, second, why):
    with pytest.raises(JobFailure, match=why) as caught:
        check_keys([first, second])

    assert repr(second) in caught.value.reason


def test_the_longest_path_that_is_allowed_leaves_room_for_the_workspace_on_windows():
    workspace = PureWindowsPath(r"C:\ProgramData\Scanfleet\scratch\01J9Z3Q4Y8W8X8V8T8S8R8Q8P8\1000\input")

    assert len(str(workspace)) + 1 + MAX_RELATIVE_UNITS <= 259


@given(st.text(alphabet=string.printable + "äß\u0301\u2028\ud800", max_size=40))
def test_whatever_key_is_accepted_stays_below_the_folder_on_both_systems(key):
    if key_problem(key) is not None:
        return

    inside = PureWindowsPath("C:\\input").joinpath(*key.split("/"))

    assert inside.is_relative_to("C:\\input")
    assert not inside.is_reserved()
    assert ".." not in inside.parts
    assert local_path(Path("/input"), key).is_relative_to("/input")
