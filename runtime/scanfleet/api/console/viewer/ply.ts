// Reads the points of a PLY file while it arrives, and keeps only as many as can be drawn.
// Format: "The PLY Polygon File Format", Greg Turk, 1994. ASCII and both binary orders; faces are not read.

export type Shading = "color" | "light" | "height";

export interface Cloud {
  /** x, y, z of each point that is drawn, relative to `center`. */
  positions: Float32Array;
  normals: Int8Array | null;
  colors: Uint8Array | null;
  shown: number;
  total: number;
  center: [number, number, number];
  /** Half of the box's diagonal. */
  radius: number;
  shadings: Shading[];
}

type Kind = "i1" | "u1" | "i2" | "u2" | "i4" | "u4" | "f4" | "f8";
type Encoding = "ascii" | "little" | "big";

const KINDS: Record<string, Kind> = {
  char: "i1", int8: "i1", uchar: "u1", uint8: "u1", short: "i2", int16: "i2", ushort: "u2", uint16: "u2",
  int: "i4", int32: "i4", uint: "u4", uint32: "u4", float: "f4", float32: "f4", double: "f8", float64: "f8",
};
const ENCODINGS: Record<string, Encoding> = {
  ascii: "ascii", binary_little_endian: "little", binary_big_endian: "big",
};
const MOST_HEADER_BYTES = 64 * 1024;

export interface Property {
  name: string;
  kind: Kind;
  offset: number;
}

export interface Header {
  encoding: Encoding;
  count: number;
  properties: Property[];
  rowBytes: number;
  /** Where the points begin. */
  bodyOffset: number;
}

/** Return the header, or null when more bytes are needed. Throws for what is not a PLY file with points first. */
export function readHeader(bytes: Uint8Array): Header | null {
  const text = new TextDecoder("latin1").decode(bytes.subarray(0, MOST_HEADER_BYTES));
  if (!"ply".startsWith(text.slice(0, 3))) throw new Error("This is not a PLY file.");
  const end = /(^|\n)end_header\r?\n/.exec(text);
  if (!end) {
    if (bytes.length >= MOST_HEADER_BYTES) throw new Error("This PLY file's header does not end.");
    return null;
  }
  const lines = text.slice(0, end.index).split(/\r?\n/).map((line) => line.trim().split(/\s+/));
  const encoding = ENCODINGS[lines.find(([word]) => word === "format")?.[1] ?? ""];
  if (!encoding) throw new Error("This PLY file's format is not known.");
  const first = lines.findIndex(([word]) => word === "element");
  const [, element, count] = lines[first] ?? [];
  if (element !== "vertex") throw new Error("This PLY file does not begin with points.");
  const properties: Property[] = [];
  let rowBytes = 0;
  for (const [word, type = "", name = ""] of lines.slice(first + 1)) {
    if (word === "element") break;
    if (word !== "property") continue;
    const kind = KINDS[type];
    if (!kind) throw new Error(`This PLY file's points have a property that cannot be read: ${type} ${name}`);
    properties.push({ name, kind, offset: rowBytes });
    rowBytes += Number(kind[1]);
  }
  return { encoding, count: Number(count), properties, rowBytes, bodyOffset: end.index + end[0].length };
}

/** Takes a file's bytes piece by piece. */
export class PlyReader {
  header: Header | null = null;
  #rest: Uint8Array = new Uint8Array(0);
  #row = 0;
  #kept = 0;
  #xyz = new Float64Array(0);
  #normals: Int8Array | null = null;
  #colors: Uint8Array | null = null;
  #columns: (Property | undefined)[] = [];
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** True once all points were read: what follows is faces. */
  get isDone(): boolean {
    return this.header !== null && this.#row >= this.header.count;
  }

  add(piece: Uint8Array): void {
    if (this.isDone) return;
    let bytes = this.#rest.length ? joined(this.#rest, piece) : piece;
    if (!this.header) {
      this.header = readHeader(bytes);
      if (!this.header) {
        this.#rest = bytes.slice();
        return;
      }
      this.#begin(this.header);
      bytes = bytes.subarray(this.header.bodyOffset);
    }
    const used = this.header.encoding === "ascii" ? this.#addLines(bytes, this.header) : this.#addRows(bytes, this.header);
    this.#rest = bytes.slice(used);
  }

  #begin({ count, properties }: Header): void {
    const find = (...names: string[]) => properties.find(({ name }) => names.includes(name));
    const [x, y, z] = [find("x"), find("y"), find("z")];
    if (!x || !y || !z) throw new Error("This PLY file's points have no x, y and z.");
    const colors = [find("red", "r", "diffuse_red"), find("green", "g", "diffuse_green"), find("blue", "b", "diffuse_blue")];
    const normals = [find("nx"), find("ny"), find("nz")];
    this.#columns = [x, y, z, ...normals, ...colors];
    const kept = Math.min(count, this.#limit);
    this.#xyz = new Float64Array(kept * 3);
    if (normals.every(Boolean)) this.#normals = new Int8Array(kept * 3);
    if (colors.every(Boolean)) this.#colors = new Uint8Array(kept * 3);
  }

  #addRows(bytes: Uint8Array, header: Header): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const rows = Math.min(Math.floor(bytes.length / header.rowBytes), header.count - this.#row);
    const little = header.encoding === "little";
    for (let i = 0; i < rows; i += 1) {
      if (this.#wants()) this.#keep((property) => number(view, i * header.rowBytes + property.offset, property.kind, little));
      this.#row += 1;
    }
    return rows * header.rowBytes;
  }

  #addLines(bytes: Uint8Array, header: Header): number {
    const end = bytes.lastIndexOf(10) + 1;
    const index = new Map(header.properties.map((property, i) => [property, i]));
    for (const line of new TextDecoder("latin1").decode(bytes.subarray(0, end)).split("\n")) {
      if (!line.trim() || this.isDone) continue;
      if (this.#wants()) {
        const words = line.trim().split(/\s+/);
        this.#keep((property) => Number(words[index.get(property) ?? -1]));
      }
      this.#row += 1;
    }
    return end;
  }

  /** Spreads the points that are kept evenly over the file. */
  #wants(): boolean {
    const { count = 0 } = this.header ?? {};
    if (count <= this.#limit) return true;
    return Math.floor(((this.#row + 1) * this.#limit) / count) > this.#kept;
  }

  #keep(get: (property: Property) => number): void {
    const at = this.#kept * 3;
    const [x, y, z, nx, ny, nz, red, green, blue] = this.#columns;
    if (!x || !y || !z) return;
    const [px, py, pz] = [get(x), get(y), get(z)];
    if (!(Number.isFinite(px) && Number.isFinite(py) && Number.isFinite(pz))) return;
    this.#xyz[at] = px;
    this.#xyz[at + 1] = py;
    this.#xyz[at + 2] = pz;
    if (this.#normals && nx && ny && nz) [nx, ny, nz].forEach((one, k) => this.#normals!.set([Math.round(127 * get(one))], at + k));
    if (this.#colors && red && green && blue) [red, green, blue].forEach((one, k) => this.#colors!.set([level(get(one), one.kind)], at + k));
    this.#kept += 1;
  }

  /** Throws when the file ended too early. */
  cloud(): Cloud {
    if (!this.header) throw new Error("This PLY file's header does not end.");
    if (!this.isDone) {
      throw new Error(`This PLY file ends after ${this.#row} of ${this.header.count} points.`);
    }
    const shown = this.#kept;
    const { center, radius } = box(this.#xyz, shown);
    const positions = new Float32Array(shown * 3);
    for (let i = 0; i < positions.length; i += 1) positions[i] = (this.#xyz[i] ?? 0) - (center[i % 3] ?? 0);
    const normals = this.#normals?.subarray(0, shown * 3) ?? null;
    const colors = this.#colors?.subarray(0, shown * 3) ?? null;
    const shadings: Shading[] = [...(colors ? ["color" as const] : []), ...(normals ? ["light" as const] : []), "height"];
    return { positions, normals, colors, shown, total: this.header.count, center, radius, shadings };
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const all = new Uint8Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

function level(value: number, kind: Kind): number {
  return kind.startsWith("f") ? Math.round(255 * value) : value;
}

function number(view: DataView, at: number, kind: Kind, little: boolean): number {
  switch (kind) {
    case "f4": return view.getFloat32(at, little);
    case "f8": return view.getFloat64(at, little);
    case "u1": return view.getUint8(at);
    case "i1": return view.getInt8(at);
    case "u2": return view.getUint16(at, little);
    case "i2": return view.getInt16(at, little);
    case "u4": return view.getUint32(at, little);
    case "i4": return view.getInt32(at, little);
  }
}

function box(xyz: Float64Array, points: number): { center: [number, number, number]; radius: number } {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points * 3; i += 1) {
    const value = xyz[i] ?? 0;
    const axis = i % 3;
    if (value < (low[axis] ?? 0)) low[axis] = value;
    if (value > (high[axis] ?? 0)) high[axis] = value;
  }
  if (points === 0) return { center: [0, 0, 0], radius: 1 };
  const middle = (axis: number) => ((low[axis] ?? 0) + (high[axis] ?? 0)) / 2;
  const half = [0, 1, 2].map((axis) => ((high[axis] ?? 0) - (low[axis] ?? 0)) / 2);
  return { center: [middle(0), middle(1), middle(2)], radius: Math.hypot(...half) || 1 };
}
