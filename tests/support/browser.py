"""A real browser before the console: what it shows, and what must never happen on its pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
REBOUND_NAME = "rebound.test"
"""A foreign name that leads to this machine, as one whose owner rebinds it does."""
ARGUMENTS = (
    "--no-sandbox",
    "--enable-unsafe-swiftshader",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    f"--host-resolver-rules=MAP {REBOUND_NAME} 127.0.0.1",
)
"""Containers have no user namespaces for the sandbox; the three-dimensional view is drawn without a GPU."""
PATIENCE_MS = 120_000
"""A guard against hanging, no measure: the machine may be busy."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
GRAVE = ("serious", "critical")
"""axe-core's impacts that nothing may have."""
WATCH_POLICY = """
document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.effectiveDirective} refused ${event.blockedURI}`);
});
"""


def chromium() -> str:
    """Return the browser's program; without one the test is skipped, or fails where CI is to have it."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    why = "no Chromium on the PATH: apt install chromium (docs of tests: CONTRIBUTING.md)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start the browser without a window; end it afterwards."""
    program = chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = _launched(playwright, program)
        try:
            yield browser
        finally:
            browser.close()


def _launched(playwright: Playwright, program: str) -> Browser:
    return playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))


class Visit:
    """One page of a fresh browser profile.

    `problems` collects what must not happen: dialogs, errors, refusals of the content policy, requests to
    other hosts.
    """

    def __init__(self, page: Page, url: str, *, hosts: set[str], pictures: Path) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        self.forgiven: set[str] = set()
        """Logged errors with one of these texts are what the test wants to see."""
        self._hosts = hosts | {urlsplit(url).netloc}
        self._pictures = pictures
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(WATCH_POLICY)
        page.on("dialog", self._on_dialog)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("console", self._on_console)
        page.on("request", self._on_request)

    def _on_dialog(self, dialog: Any) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(one in message.text for one in self.forgiven):
            self.problems.append(f"console: {message.text} {message.location.get('url', '')}")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc not in self._hosts:
            self.problems.append(f"request to another host: {request.url}")

    def go(self, place: str = "") -> "Visit":
        """Open a place of the console, such as "jobs?status=all", and wait for its heading."""
        self.page.goto(f"{self.url}/#/{place}")
        self.page.get_by_role("heading", level=1).wait_for()
        return self

    def text(self) -> str:
        """Return all that is to be read on the page."""
        return str(self.page.locator("body").inner_text())

    def picture(self, name: str) -> None:
        """Keep a picture of the whole page in build/screenshots."""
        self._pictures.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._pictures / f"{name}.png", full_page=True, animations="disabled")

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    def grave_findings(self, axe: str) -> list[str]:
        """Return what axe-core finds serious or critical. axe: its source text."""
        self.page.evaluate(axe)
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{one['id']} ({one['impact']}): {node['html'][:200]} {node.get('failureSummary', '')}"
            for one in found["violations"]
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]

    def has_focus(self) -> dict[str, str]:
        """Return what the keyboard is on: tag, role, name, address."""
        script = """() => { const e = document.activeElement; return {
            tag: e.tagName.toLowerCase(), text: (e.getAttribute("aria-label") || e.innerText || "").trim(),
            href: e.getAttribute("href") || "", name: e.getAttribute("name") || "" }; }"""
        return dict(self.page.evaluate(script))


@contextmanager
def visit(browser: Browser, url: str, *, hosts: set[str], pictures: Path, **profile: Any) -> Iterator[Visit]:
    """Open a page of a fresh profile. profile: of the browser's context, such as `color_scheme`."""
    context = browser.new_context(**({"viewport": DESKTOP, "reduced_motion": "reduce"} | profile))
    try:
        yield Visit(context.new_page(), url, hosts=hosts, pictures=pictures)
    finally:
        context.close()


def axe_source(repo_root: Path) -> str:
    """Return axe-core's program text, from node_modules."""
    return (repo_root / "node_modules" / "axe-core" / "axe.min.js").read_text("utf-8")
