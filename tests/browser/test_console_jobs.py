"""The console does what the command line does: submit, watch, see the result, cancel, find out why."""

import io
import re
import time
from datetime import timedelta

import boto3
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from scanfleet.jobs import FailureClass, JobState
from tests.support.many_jobs import RARE_TAG, past_jobs, write_jobs

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

RECORD = """() => {
  window.seen = [];
  const look = () => {
    const bar = document.querySelector('main [role=progressbar][aria-label=Progress]');
    const state = document.querySelector('.status-line');
    if (!state) return;
    const share = bar ? Number(bar.getAttribute('aria-valuenow')) : null;
    const now = [state.innerText.trim().toLowerCase(), share];
    if (JSON.stringify(now) !== JSON.stringify(window.seen.at(-1))) window.seen.push(now);
  };
  look();
  const all = {subtree: true, childList: true, attributes: true, characterData: true};
  new MutationObserver(look).observe(document.body, all);
}"""


def test_a_job_is_submitted_by_upload_and_watched_until_its_result_is_there(open_console, scans):
    visit = open_console("submit")
    page = visit.page
    page.get_by_label("Files", exact=True).set_input_files([str(path) for path in sorted(scans.iterdir())])
    expect(page.get_by_text(re.compile(r"^6 files"))).to_be_visible()
    visit.picture("submit-with-files")

    page.get_by_role("button", name="Upload and submit").click()
    page.wait_for_url(re.compile(r"#/job/"))
    page.locator(".status-line").wait_for()
    page.evaluate(RECORD)
    expect(page.locator(".status-line")).to_have_text(re.compile("processing", re.IGNORECASE))
    visit.picture("job-running")
    expect(page.locator(".status-line")).to_have_text(re.compile("completed", re.IGNORECASE))

    seen = page.evaluate("window.seen")
    states = [state for state, _ in seen]
    assert any("processing" in state for state in states)
    shares = [share for _, share in seen if share is not None]
    assert len({share for share in shares if 0 < share < 100}) >= 2, (
        "progress moves while nothing is asked for"
    )
    expect(page.get_by_role("list", name="Files").get_by_text("merged.ply")).to_be_visible()
    expect(page.get_by_role("region", name=re.compile("^Log of attempt"))).to_contain_text("scanfleet_stage")


def test_a_results_pictures_are_shown_and_its_files_downloaded(open_console, finished):
    visit = open_console(f"job/{finished.job_id}")
    page = visit.page

    pictures = page.get_by_role("img", name=re.compile("^Preview"))
    pictures.first.wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('figure img')].some((one) => one.naturalWidth > 100)"
    )
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report.json").click()

    report = download.value.path()
    assert b'"verdict"' in report.read_bytes()
    visit.picture("job-completed")


def test_the_merged_points_are_drawn_and_turned_by_keys(open_console, finished):
    visit = open_console(f"job/{finished.job_id}")
    page = visit.page
    page.get_by_role("link", name=re.compile("points", re.IGNORECASE)).first.click()
    canvas = page.get_by_role("application").locator("canvas")
    canvas.wait_for()
    stage = page.get_by_role("application")

    before = drawn(stage)
    stage.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    after = drawn(stage)

    assert before.any(axis=None)
    assert coverage(before) > 0.01, "a cloud of points covers some of the stage"
    assert (before != after).mean() > 0.001, "it has been turned"
    visit.picture("points")


def drawn(stage) -> np.ndarray:
    """Return which pixels of the stage are not its background."""
    picture = np.asarray(Image.open(io.BytesIO(stage.screenshot())).convert("RGB")).astype(int)
    inner = picture[10:-10, 10:-10]
    return np.abs(inner - inner[0, 0]).sum(axis=2) > 40


def coverage(mask: np.ndarray) -> float:
    return float(mask.mean())


def test_a_job_is_cancelled_after_a_question(open_console, client, large_scans):
    handle = client.submit(large_scans, large_scans.parent / "cancelled")
    page = open_console(f"job/{handle.job_id}").page

    page.get_by_role("button", name="Cancel", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel this job?")
    dialog.get_by_role("button", name="Cancel the job").click()

    expect(page.locator(".status-line")).to_have_text(re.compile("cancelled", re.IGNORECASE))
    assert handle.wait().status is JobState.CANCELLED
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_a_failed_jobs_evidence_is_read(open_console, client, large_scans):
    handle = client.submit(large_scans, large_scans.parent / "late", time_limit=timedelta(seconds=1))
    job = handle.wait()
    assert job.failure is not None
    assert (job.status, job.failure.failure_class) == (JobState.FAILED, FailureClass.HANG)

    visit = open_console(f"job/{handle.job_id}")
    page = visit.page
    page.get_by_text(re.compile("^Evidence of attempt 1")).click()

    expect(page.get_by_role("heading", name="Its processes")).to_be_visible()
    expect(page.get_by_role("region", name="Processes")).to_contain_text("python")
    assert job.failures[0].reason in visit.text()
    visit.picture("job-failed-evidence")


def test_the_list_shows_progress_and_new_jobs_without_being_asked(open_console, client, scans):
    visit = open_console("jobs")
    handle = client.submit(scans, scans.parent / "listed", tags={"suite": "browser"})

    row = visit.page.get_by_role("listitem").filter(has=visit.page.locator(f'a[href$="{handle.job_id}"]'))
    expect(row).to_be_visible()
    expect(row.get_by_role("progressbar")).to_be_visible()
    visit.picture("jobs-active")
    assert handle.wait().status is JobState.COMPLETED


def test_the_list_is_filtered_by_state_and_tag(open_console, finished, facts):
    visit = open_console("jobs")
    page = visit.page
    page.get_by_label("Status").select_option("failed")

    expect(page.locator(f'a[href$="{facts.hostile_failed}"]')).to_be_visible()
    expect(page.locator(f'a[href$="{finished.job_id}"]')).to_have_count(0)
    assert "status=failed" in page.url
    page.get_by_role("link", name="Clear filters").click()
    expect(page.locator(f'a[href$="{facts.hostile_failed}"]')).to_have_count(0)


def test_a_long_history_is_paged_and_searched(open_console, system, finished):
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    dynamodb = session.client("dynamodb", endpoint_url=system.deployed.endpoint_url)
    past = list(past_jobs(1_500, now=time.time(), active=0, rare_every=300))
    write_jobs(dynamodb, system.deployed.job_table, past, now=time.time())
    page = open_console("jobs?status=completed").page
    rows = page.get_by_role("list", name="Jobs").locator("> li")
    expect(rows).to_have_count(50)
    first = rows.first.inner_text()

    page.get_by_role("link", name="Older jobs").click()
    expect(page.get_by_role("link", name="Newest jobs")).to_be_visible()
    expect(rows).to_have_count(50)
    assert rows.first.inner_text() != first
    page.get_by_label("Status").select_option("all")
    page.get_by_label("Tag").fill(":".join(RARE_TAG))
    page.get_by_role("button", name="Filter").click()

    expect(rows).to_have_count(5)
    expect(page.get_by_role("link", name="Older jobs")).to_have_count(0)
