"""Everybody can use the console: keyboard alone, a phone's width, light and dark, readable by machines."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from scanfleet.jobs import JobState
from tests.support.browser import DESKTOP, PHONE, Visit

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

PLACES = {
    "jobs": "jobs",
    "jobs-all": "jobs?status=all",
    "job-completed": "job/{completed}",
    "job-failed": "job/{failed}",
    "job-cancelled": "job/{cancelled}",
    "job-unknown": "job/01JD5Z9W4T8Q2V6K3M7N1P5R9S",
    "points": "job/{completed}/points?file=merged.ply",
    "fleet": "fleet",
    "submit": "submit",
    "nowhere": "nowhere",
}
"""Every view, and what its pictures are called."""


@pytest.fixture(scope="module")
def places(client, finished, large_scans, facts) -> dict[str, str]:
    """Where the views are of jobs that exist."""
    cancelled = client.submit(large_scans, large_scans.parent / "access-cancelled")
    client.cancel(cancelled.job_id)
    cancelled.wait()
    ids = {
        "completed": finished.job_id,
        "failed": facts.hostile_failed,
        "cancelled": cancelled.job_id,
    }
    return {name: place.format(**ids) for name, place in PLACES.items()}


def settled(visit: Visit) -> Visit:
    """Return once the view has what it asked for, with all that it hides opened."""
    page = visit.page
    page.wait_for_load_state("networkidle")
    expect(page.locator(".loading")).to_have_count(0)
    for summary in page.locator("details:not([open]) > summary").all():
        summary.click()
    expect(page.locator(".loading")).to_have_count(0)
    return visit


@pytest.mark.parametrize("name", PLACES)
def test_no_view_has_a_serious_finding_and_each_is_pictured(
    open_console: Callable[..., Visit], places, axe, name
):
    found = {}
    for scheme, window in (("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)):
        visit = open_console(color_scheme=scheme, viewport=window)
        if name == "job-unknown":
            visit.forgiven.add("404")
        settled(visit.go(places[name]))
        size = "phone" if window is PHONE else "desktop"
        visit.picture(f"{name}-{size}-{scheme}")
        found[size, scheme] = visit.grave_findings(axe)
        if window is PHONE:
            assert visit.overflow() <= 0, "nothing is wider than a phone"

    assert {where: one for where, one in found.items() if one} == {}


def test_the_keyboard_alone_goes_everywhere(open_console, client, large_scans):
    handle = client.submit(large_scans, large_scans.parent / "keyboard")
    visit = open_console("jobs?status=all")
    page = visit.page
    page.get_by_role("list", name="Jobs").wait_for()

    page.keyboard.press("Tab")
    assert visit.has_focus()["text"] == "Skip to content"
    tab_to(visit, text="Fleet")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1, name="Fleet")).to_be_focused()
    page.go_back()
    page.get_by_role("list", name="Jobs").wait_for()
    tab_to(visit, href=f"#/job/{handle.job_id}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()

    tab_to(visit, text="Cancel")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert visit.has_focus()["text"] == "Cancel"
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    tab_to(visit, text="Cancel the job")
    page.keyboard.press("Enter")

    assert handle.wait().status is JobState.CANCELLED
    expect(page.locator(".status-line")).to_have_text(re.compile("cancelled", re.IGNORECASE))


def tab_to(visit: Visit, **wanted: str) -> None:
    """Press Tab until the focus is on what is wanted, and is seen to be there."""
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        focus = visit.has_focus()
        if all(focus[name] == value for name, value in wanted.items()):
            assert has_outline(visit), f"the focus on {wanted} is not to be seen"
            return
    raise AssertionError(f"80 tabs do not lead to {wanted}")


def has_outline(visit: Visit) -> bool:
    script = """() => { const style = getComputedStyle(document.activeElement);
        const isOutlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
        return isOutlined || style.boxShadow !== "none"; }"""
    return bool(visit.page.evaluate(script))


def test_a_chosen_theme_stays(open_console):
    visit = open_console("jobs", color_scheme="light")
    page = visit.page
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    button = page.locator("header").get_by_role("button").last
    for _ in range(3):
        button.click()
        if page.evaluate(background) != light:
            break
    dark = page.evaluate(background)
    page.reload()
    page.get_by_role("heading", level=1).wait_for()

    assert dark != light
    assert page.evaluate(background) == dark
