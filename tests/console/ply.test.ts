import assert from "node:assert/strict";
import test from "node:test";
import { PlyReader, readHeader } from "../../runtime/scanfleet/api/console/viewer/ply.ts";

const text = (lines: string[]) => new TextEncoder().encode(`${lines.join("\n")}\n`);

/** Points on a line, x = 0, 1, 2 ..., with normals and colours, as our reference processor writes them. */
function binary(count: number, { little = true, double = false } = {}): Uint8Array {
  const size = double ? 8 : 4;
  const header = text([
    "ply", `format binary_${little ? "little" : "big"}_endian 1.0`, "comment made here", `element vertex ${count}`,
    ...["x", "y", "z"].map((name) => `property ${double ? "double" : "float"} ${name}`),
    ...["nx", "ny", "nz"].map((name) => `property float ${name}`),
    ...["red", "green", "blue"].map((name) => `property uchar ${name}`),
    "element face 1", "property list uchar int vertex_indices", "end_header",
  ]);
  const row = 3 * size + 12 + 3;
  const body = new DataView(new ArrayBuffer(count * row + 13));
  for (let i = 0; i < count; i += 1) {
    [i + 1_000_000, 5, -2].forEach((value, k) =>
      double ? body.setFloat64(i * row + k * 8, value, little) : body.setFloat32(i * row + k * 4, value, little));
    [0, -1, 0.5].forEach((value, k) => body.setFloat32(i * row + 3 * size + k * 4, value, little));
    [10, 20, 255].forEach((value, k) => body.setUint8(i * row + 3 * size + 12 + k, value));
  }
  return new Uint8Array([...header, ...new Uint8Array(body.buffer)]);
}

function read(file: Uint8Array, { limit = 1_000_000, pieces = file.length } = {}) {
  const reader = new PlyReader(limit);
  for (let at = 0; at < file.length; at += pieces) reader.add(file.subarray(at, at + pieces));
  return reader.cloud();
}

for (const little of [true, false]) {
  for (const double of [true, false]) {
    test(`points are read in ${little ? "little" : "big"} order, ${double ? "double" : "float"}`, () => {
      const cloud = read(binary(3, { little, double }));
      assert.deepEqual([...cloud.positions], [-1, 0, 0, 0, 0, 0, 1, 0, 0]);
      assert.deepEqual(cloud.center, [1_000_001, 5, -2]);
      assert.deepEqual([...(cloud.normals ?? [])].slice(0, 3), [0, -127, 64]);
      assert.deepEqual([...(cloud.colors ?? [])].slice(0, 3), [10, 20, 255]);
      assert.deepEqual(cloud.shadings, ["color", "light", "height"]);
      assert.equal(cloud.radius, 1);
    });
  }
}

test("a file may arrive in pieces of any size", () => {
  const file = binary(50);
  const whole = read(file);
  for (const pieces of [1, 7, 64, 333]) assert.deepEqual(read(file, { pieces }).positions, whole.positions);
});

test("beyond the limit points are left out evenly", () => {
  const cloud = read(binary(1000), { limit: 100, pieces: 999 });
  assert.deepEqual([cloud.shown, cloud.total], [100, 1000]);
  const xs = [...cloud.positions].filter((_, k) => k % 3 === 0);
  const steps = xs.slice(1).map((x, k) => x - (xs[k] ?? 0));
  assert.deepEqual(new Set(steps), new Set([10]));
});

test("ASCII is read, also with one byte at a time and no colours", () => {
  const file = text(["ply", "format ascii 1.0", "element vertex 2", "property float x", "property float y", "property float z", "end_header", "0 0 0", "2 4 6"]);
  for (const pieces of [1, 1000]) {
    const cloud = read(file, { pieces });
    assert.deepEqual([...cloud.positions], [-1, -2, -3, 1, 2, 3]);
    assert.deepEqual([cloud.normals, cloud.colors, cloud.shadings], [null, null, ["height"]]);
  }
});

test("points that are no numbers are left out", () => {
  const file = text(["ply", "format ascii 1.0", "element vertex 3", "property float x", "property float y", "property float z", "end_header", "0 0 0", "nan 1 1", "2 2 2"]);
  assert.equal(read(file).shown, 2);
});

test("a file that ends too early says after how many points", () => {
  assert.throws(() => read(binary(10).subarray(0, -200)), /ends after \d of 10 points/);
});

test("what is no cloud of points is refused with a reason", () => {
  const starts = (...lines: string[]) => () => read(text(["ply", "format ascii 1.0", ...lines, "end_header"]));
  assert.throws(() => read(text(["<html>", "no"])), /not a PLY file/);
  assert.throws(starts("element face 2", "property list uchar int vertex_indices"), /does not begin with points/);
  assert.throws(starts("element vertex 1", "property list uchar int odd"), /cannot be read: list/);
  assert.throws(starts("element vertex 1", "property float x"), /no x, y and z/);
  assert.throws(() => readHeader(new TextEncoder().encode(`ply\n${"comment long\n".repeat(10_000)}`)), /header does not end/);
});
