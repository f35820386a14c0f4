import assert from "node:assert/strict";
import test from "node:test";
import { about, ago, bytes, dollars, duration, jobName, range, stateWords } from "../../runtime/scanfleet/api/console/format.ts";

test("sizes have a unit that keeps them short", () => {
  assert.deepEqual([0, 999, 1000, 999_960, 1_234_567, 5e15].map(bytes), ["0 B", "999 B", "1.0 kB", "1.0 MB", "1.2 MB", "5.0 PB"]);
});

test("durations are exact while they are short", () => {
  assert.deepEqual([0.04, 4.21, 59.4, 59.97, 75, 7300, 200_000].map(duration), ["0.0 s", "4.2 s", "59 s", "1 min 0 s", "1 min 15 s", "2 h 1 min", "2 days"]);
});

test("a narrow range is one number", () => {
  const eta = { low_seconds: 118, likely_seconds: 120, high_seconds: 121, share: 0.8, runs: 9 };
  assert.equal(range(eta), "about 2 min");
  assert.equal(range({ ...eta, high_seconds: 400 }), "2 min to 7 min");
  assert.equal(about(0), "1 s");
});

test("small amounts of money keep four digits", () => {
  assert.deepEqual([0, 0.00213, 0.73, 12].map(dollars), ["$0.00", "$0.0021", "$0.73", "$12.00"]);
});

test("only what is recent is told as ago", () => {
  const now = Date.parse("2026-01-01T12:00:00Z");
  assert.equal(ago("2026-01-01T11:59:55Z", now), "just now");
  assert.equal(ago("2026-01-01T11:57:00Z", now), "3 min ago");
  assert.equal(ago("2025-12-30T12:00:00Z", now), null);
});

test("a job has its folder's name, or its id where that says nothing", () => {
  const id = "01JD5Z9W4T8Q2V6K3M7N1P5R9S";
  const named = (source: string) => jobName({ job_id: id, source });
  assert.equal(named("s3://scans/case-7/"), "case-7");
  assert.equal(named("s3://scans/uploads/local/case-7/source/"), "case-7");
  assert.equal(named("s3://scans/uploads/local/01M7ZR6WMY9CN5JEQHWENPGFG3/source/"), id);
  assert.equal(named("s3://scans/"), id);
});

test("a job that is being cancelled says so until it has ended", () => {
  assert.equal(stateWords({ status: "processing", cancel_requested: true }), "cancelling");
  assert.equal(stateWords({ status: "completed", cancel_requested: true }), "completed");
});
