import assert from "node:assert/strict";
import test from "node:test";

Object.assign(globalThis, { location: { hash: "" }, addEventListener: () => undefined });
const { href, parse } = await import("../../runtime/scanfleet/api/console/router.ts");
const { merged, slug } = await import("../../runtime/scanfleet/api/console/submit/chosen_files.ts");
const { tagsOf } = await import("../../runtime/scanfleet/api/console/submit/more_fields.tsx");

test("a place survives its address, whatever is in it", () => {
  const parts = ["job", "a/b ?#%&é"];
  const there = parse(href(parts, { file: "x/y z?.ply", empty: "" }));
  assert.deepEqual(there.parts, parts);
  assert.deepEqual([...there.query], [["file", "x/y z?.ply"]]);
});

test("addresses that nobody wrote on purpose lead somewhere", () => {
  assert.deepEqual(parse("").parts, []);
  assert.deepEqual(parse("#/jobs/%E0%A4%A").parts, ["jobs", "%E0%A4%A"]);
});

test("links of the console before lead to the same job", () => {
  assert.deepEqual(parse("#01JD5Z9W4T8Q2V6K3M7N1P5R9S").parts, ["job", "01JD5Z9W4T8Q2V6K3M7N1P5R9S"]);
});

test("any name becomes a folder that S3 and every disk takes", () => {
  assert.deepEqual(["Tooth 7 (new)", "../../etc", "Zähne", "…", "a".repeat(99)].map(slug), ["tooth-7-new", "etc", "zahne", "job", "a".repeat(60)]);
});

test("a file that is chosen again replaces the one before", () => {
  const [first, second] = [new File(["1"], "a"), new File(["22"], "a")];
  assert.deepEqual(merged([{ path: "a", file: first }], [{ path: "a", file: second }]), [{ path: "a", file: second }]);
});

test("tags are pairs, separated by commas", () => {
  assert.deepEqual(tagsOf("case: 7, site: north: 2,, new"), { case: "7", site: "north: 2", new: "" });
  assert.deepEqual(tagsOf(" "), {});
});
