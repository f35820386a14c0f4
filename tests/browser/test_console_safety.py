"""Foreign texts stay texts, and pages of other origins drive nothing."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from scanfleet.local.system import LocalSystem
from tests.support.browser import REBOUND_NAME
from tests.support.console_facts import HOSTILE, HOSTILE_NAME

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

MADE_ELEMENTS = (
    "document.querySelectorAll('main img[src=\"x\"], main script, main svg[onload], [onerror]').length"
)
SCRIPT_LINKS = "[...document.querySelectorAll('a')].filter((a) => a.protocol === 'javascript:').length"


@pytest.mark.parametrize("which", ["hostile_failed", "hostile_completed"])
def test_markup_in_names_settings_tags_logs_and_evidence_stays_text(open_console, facts, which):
    visit = open_console(f"job/{getattr(facts, which)}")
    page = visit.page
    expect(page.get_by_role("region", name="Log of attempt 1")).to_contain_text(HOSTILE)
    for summary in page.locator("details > summary").all():
        summary.click()
    page.wait_for_load_state("networkidle")

    text = visit.text()
    assert text.count(HOSTILE) >= 5
    if which == "hostile_failed":
        expect(page.get_by_role("heading", name="Its processes")).to_be_visible()
        assert f"no sign of life: {HOSTILE}" in text
    else:
        assert HOSTILE_NAME in text
    assert page.evaluate(MADE_ELEMENTS) == 0
    assert page.evaluate(SCRIPT_LINKS) == 0


def test_markup_in_a_list_stays_text(open_console, facts):
    visit = open_console("jobs?status=all")
    page = visit.page
    expect(page.locator(f'a[href$="{facts.hostile_completed}"]')).to_be_visible()

    assert HOSTILE in visit.text()
    assert page.evaluate(MADE_ELEMENTS) == 0


def test_markup_in_the_address_and_in_chosen_files_stays_text(open_console, tmp_path):
    visit = open_console(f"jobs?tag={HOSTILE}&owner={HOSTILE}&status={HOSTILE}")
    page = visit.page
    page.wait_for_load_state("networkidle")
    assert page.evaluate(MADE_ELEMENTS) == 0
    visit.problems[:] = [one for one in visit.problems if "422" not in one]  # no such status

    visit.go("submit")
    name = HOSTILE_NAME.replace("/", "")
    (tmp_path / name).write_bytes(b"x")
    page.get_by_label("Files", exact=True).set_input_files(str(tmp_path / name))
    expect(page.get_by_role("list", name="Chosen files")).to_contain_text(name)
    assert page.evaluate(MADE_ELEMENTS) == 0


# --- Pages of other origins --------------------------------------------------------------------------------

ATTACK = """async (api) => {
  const said = {};
  const attempt = async (name, act) => {
    try { said[name] = await act(); } catch (error) { said[name] = `refused: ${error.name}`; }
  };
  const body = JSON.stringify({source: "s3://x/a/", target: "s3://x/b/"});
  await attempt("read", async () => (await fetch(`${api}/jobs`)).status);
  await attempt("post", async () => (await fetch(`${api}/jobs`, {method: "POST", body,
    headers: {"Content-Type": "application/json"}})).status);
  await attempt("blind post", async () => {
    await fetch(`${api}/jobs`, {method: "POST", mode: "no-cors", body,
      headers: {"Content-Type": "text/plain"}});
    return "sent";
  });
  await attempt("frame", () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.src = api; frame.onload = () => { try { resolve(frame.contentDocument ? "read" : "opaque"); }
      catch { resolve("opaque"); } };
    document.body.append(frame);
  }));
  await attempt("websocket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(api.replace("http", "ws") + "/ws");
    socket.onopen = () => resolve("open"); socket.onerror = () => reject(new Error("no"));
  }));
  await attempt("events", () => new Promise((resolve, reject) => {
    const events = new EventSource(`${api}/events`);
    events.onopen = () => resolve("open");
    events.onerror = () => { events.close(); reject(new Error("no")); };
  }));
  return said;
}"""


class Blank(BaseHTTPRequestHandler):
    """Serves an empty page: somebody else's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def foreign_url() -> Iterator[str]:
    """Address of a page of another origin."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_of_another_origin_can_neither_read_nor_change_nor_listen(
    browser: Browser, system: LocalSystem, foreign_url, client
):
    before = [job.job_id for job in client.jobs(status="all")]
    context = browser.new_context()
    page = context.new_page()
    page.goto(foreign_url)

    said = page.evaluate(ATTACK, system.url)

    context.close()
    assert said == {
        "read": "refused: TypeError",
        "post": "refused: TypeError",
        "blind post": "sent",  # the browser sends it; the API refuses by its Origin
        "frame": "opaque",
        "websocket": "refused: Error",
        "events": "refused: Error",
    }
    assert [job.job_id for job in client.jobs(status="all")] == before


def test_a_name_that_is_rebound_to_this_machine_is_not_answered(browser: Browser, system: LocalSystem):
    port = urlsplit(system.url).port
    context = browser.new_context(bypass_csp=True)  # the attacker's own page has no policy
    page = context.new_page()

    answer = page.goto(f"http://{REBOUND_NAME}:{port}/")
    said = page.evaluate(ATTACK, f"http://{REBOUND_NAME}:{port}")

    context.close()
    assert answer is not None
    assert answer.status == 421
    assert (said["read"], said["post"]) == (421, 421)
    assert (said["websocket"], said["events"]) == ("refused: Error", "refused: Error")


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.test"}, {"Origin": "null"}, {"Host": "evil.test"}]
)
@pytest.mark.parametrize("path", ["/jobs", "/events/ticket", "/job/01JD5Z9W4T8Q2V6K3M7N1P5R9S/cancel"])
def test_calls_in_the_name_of_another_page_are_refused(system: LocalSystem, headers, path):
    answer = httpx.post(system.url + path, json={}, headers=headers)

    assert answer.status_code == (421 if "Host" in headers else 403)


def test_the_pages_policy_allows_no_inline_code_and_no_other_host(system: LocalSystem):
    policy = httpx.get(system.url).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";") if " " in rule.strip())

    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    own = urlsplit(system.deployed.endpoint_url).netloc
    for name, sources in rules.items():
        assert "unsafe" not in sources, name
        for source in sources.split():
            is_word = source.startswith("'") or source in ("data:", "blob:")
            assert is_word or urlsplit(source).netloc == own, f"{name} allows {source}"
