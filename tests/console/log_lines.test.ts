import assert from "node:assert/strict";
import test from "node:test";
import { append, BLOCK_LINES, LONGEST_LINE, MOST_LINES, NO_LINES } from "../../runtime/scanfleet/api/console/job/log_lines.ts";

const numbered = (from: number, count: number) => Array.from({ length: count }, (_, k) => `line ${from + k}`);

test("lines stay in order whatever pieces they come in", () => {
  let log = NO_LINES;
  for (let from = 0; from < 1000; from += 77) log = append(log, numbered(from, Math.min(77, 1000 - from)));
  assert.deepEqual(log.blocks.flatMap((block) => block.lines), numbered(0, 1000));
  assert.ok(log.blocks.every((block, k) => block.lines.length === BLOCK_LINES || k === log.blocks.length - 1));
});

test("blocks that are full are never touched again", () => {
  const before = append(NO_LINES, numbered(0, BLOCK_LINES + 5));
  const after = append(before, numbered(BLOCK_LINES + 5, 10));
  assert.equal(after.blocks[0], before.blocks[0]);
  assert.equal(after.blocks[1]?.id, before.blocks[1]?.id);
  assert.notEqual(after.blocks[1], before.blocks[1]);
});

test("the oldest lines go, and how many went is known", () => {
  let log = NO_LINES;
  for (let from = 0; from < MOST_LINES * 3; from += 5000) log = append(log, numbered(from, 5000));
  const kept = log.blocks.flatMap((block) => block.lines);
  assert.equal(kept.length, MOST_LINES);
  assert.equal(kept.at(-1), `line ${MOST_LINES * 3 - 1}`);
  assert.equal(log.dropped, MOST_LINES * 2);
  assert.equal(new Set(log.blocks.map((block) => block.id)).size, log.blocks.length);
});

test("a line of megabytes is cut and says how long it was", () => {
  const [line = ""] = append(NO_LINES, ["x".repeat(5_000_000)]).blocks[0]?.lines ?? [];
  assert.ok(line.length < LONGEST_LINE + 100);
  assert.match(line, /5000000 characters/);
});

test("nothing new leaves everything as it is", () => {
  const log = append(NO_LINES, numbered(0, 3));
  assert.equal(append(log, []), log);
});
