"""The console's pages: how they are built, how large they are, how they are served."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdk.lambda_package import source_files
from scanfleet.api.page_files import BUILT
from tests.support.api import running_api, served_with

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import build_console  # noqa: E402

PAGES = Path(str(BUILT))
LARGEST = 300_000
"""Compressed bytes of everything that loads before somebody looks at points in three dimensions."""
LOAD_BALANCERS_BYTES = 1_000_000
"""Of a whole answer, whose body is base64."""
ADDRESS = re.compile(r"""["'`](?:https?:)?//([^"'`/$]+)""")


def built(pattern: str) -> list[Path]:
    found = sorted(PAGES.glob(pattern))
    assert found, "make setup builds them"
    return found


@pytest.fixture(scope="module")
def api():
    with running_api() as started:
        yield started


# --- The build ---------------------------------------------------------------------------------------------


def test_the_types_fit():
    build_console.check()


def test_wrong_types_are_named(tmp_path, monkeypatch):
    (tmp_path / "wrong.ts").write_text("export const answer: number = 'text';\n")
    options = (ROOT / "runtime/scanfleet/api/console/tsconfig.json").read_text()
    (tmp_path / "tsconfig.json").write_text(options)
    monkeypatch.setattr(build_console, "SOURCE", tmp_path)

    with pytest.raises(build_console.BuildError, match=r"wrong\.ts"):
        build_console.check()


def test_equal_sources_make_equal_bytes_and_leave_nothing_else(tmp_path):
    (tmp_path / "main-OLD.js.gz").write_bytes(b"of an older build")

    build_console.build(tmp_path)

    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in PAGES.iterdir()}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tests/console").glob("*.test.ts")), ids=lambda path: path.stem
)
def test_the_consoles_own_tests_pass(path, tmp_path):
    program = tmp_path / "test.mjs"
    options = ["--bundle", "--platform=node", "--format=esm", "--jsx=automatic", "--jsx-import-source=preact"]
    build_console._run([build_console.ESBUILD, path, *options, f"--outfile={program}"])

    done = subprocess.run(
        [build_console.NODE, "--test", program], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stdout[-5000:]


# --- What is in the pages ----------------------------------------------------------------------------------


def test_the_pages_without_the_viewer_are_small():
    parts = [path for path in built("*") if not path.name.startswith("viewer-")]

    assert sum(path.stat().st_size for path in parts) < LARGEST


def test_every_file_passes_the_load_balancer():
    for path in built("*"):
        assert path.stat().st_size * 4 / 3 < LOAD_BALANCERS_BYTES, path.name


def test_the_page_runs_and_styles_nothing_of_its_own():
    page = (PAGES / "index.html").read_text()

    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page)


def test_the_pages_name_no_other_host():
    found = set()
    for path in built("main-*.gz"):
        found |= set(ADDRESS.findall(gzip.decompress(path.read_bytes()).decode()))

    assert found <= {"www.w3.org"}  # the names of markup languages, which nobody loads


def test_every_library_in_the_pages_comes_with_its_licence():
    (path,) = built("licences.txt.gz")
    text = gzip.decompress(path.read_bytes()).decode()

    for name in ("preact", "@preact/signals", "@preact/signals-core", "three"):
        assert re.search(rf"^{re.escape(name)} \d+\.\d+\.\d+ \(MIT\)$", text, re.MULTILINE), name
    assert text.count("Permission is hereby granted") == 4


def test_functions_get_the_pages_and_not_their_sources():
    names = {path.relative_to(ROOT / "runtime/scanfleet").as_posix() for path in source_files()}

    assert {f"api/pages/built/{path.name}" for path in built("*")} <= names
    assert not [name for name in names if name.startswith("api/console/")]


# --- How they are served -----------------------------------------------------------------------------------


def linked(api) -> list[str]:
    found: list[str] = re.findall(r'(?:src|href)="(/pages/[^"]+-[A-Z0-9]{8}\.\w+)"', api.http.get("/").text)
    assert len(found) == 3
    return found


def test_files_named_by_their_content_are_kept_for_ever_and_the_page_is_asked_for_each_time(api):
    assert api.http.get("/").headers["cache-control"] == "no-cache"
    for path in linked(api):
        assert "immutable" in api.http.get(path).headers["cache-control"]
    assert api.http.get("/pages/licences.txt").headers["cache-control"] == "no-cache"


def test_files_come_compressed_unless_the_caller_refuses(api):
    for path in linked(api):
        packed = api.http.get(path, headers={"Accept-Encoding": "br, gzip;q=0.5"})
        plain = api.http.get(path, headers={"Accept-Encoding": "gzip;q=0, identity"})

        assert packed.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert packed.content == plain.content  # the client has unpacked it
        assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", ["main.js", "index.html.gz", "..%2Fapp.py", "main-AAAAAAAA.js", "", "x.gz"])
def test_nothing_else_is_served(api, name):
    assert api.http.get(f"/pages/{name}").status_code == 404


def test_the_page_may_run_only_our_scripts_and_speak_only_to_us_and_the_storage(api):
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in api.http.get("/").headers["content-security-policy"].split(";")
    )

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "'none'"
    for kind in ("img-src", "connect-src"):
        own, storage = policy[kind].split()
        assert own == "'self'"
        assert re.fullmatch(r"https?://[\w.:-]+", storage)


def test_the_page_may_speak_to_the_websocket_of_another_host_where_events_come_from_there(api):
    url = "wss://abc.execute-api.eu-central-1.amazonaws.com/live"
    with served_with(api, events_url=url) as elsewhere:
        policy = elsewhere.http.get("/").headers["content-security-policy"]

    assert " wss://abc.execute-api.eu-central-1.amazonaws.com;" in policy
    assert "wss:" not in api.http.get("/").headers["content-security-policy"]
