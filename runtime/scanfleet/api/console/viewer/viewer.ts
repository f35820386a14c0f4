// Draws a cloud of points; everything of three.js is in this bundle, which loads when it is needed.

import { BufferAttribute, BufferGeometry, PerspectiveCamera, Points, Scene, ShaderMaterial, Vector3, WebGLRenderer } from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { PlyReader, type Cloud, type Shading } from "./ply.ts";

/** Enough for a picture on any screen; a phone draws it fluently. */
const MOST_POINTS = 1_500_000;
const MOST_POINTS_PHONE = 600_000;
const BACKGROUND = 0x12151a;
const TURN = Math.PI / 24;
const ZOOM = 1.15;
const MOVE = 0.08;

export function hasWebGl(): boolean {
  try {
    return document.createElement("canvas").getContext("webgl2") !== null;
  } catch {
    return false;
  }
}

/** Read a PLY file's points from a link. Throws an Error with a sentence. */
export async function readCloud(
  url: string,
  stop: AbortSignal,
  onProgress: (readBytes: number, totalBytes: number | null) => void,
): Promise<Cloud> {
  let response: Response;
  try {
    response = await fetch(url, { signal: stop });
  } catch (error) {
    if (stop.aborted) throw error;
    throw new Error("The storage did not answer, or does not allow this page to read from it (CORS).");
  }
  if (!response.ok || !response.body) throw new Error(`The storage answered ${response.status} for this file.`);
  const length = response.headers.get("content-length");
  const total = length ? Number(length) : null;
  const reader = new PlyReader(matchMedia("(max-width: 40rem)").matches ? MOST_POINTS_PHONE : MOST_POINTS);
  const pieces = response.body.getReader();
  let readBytes = 0;
  for (let told = 0; !reader.isDone; ) {
    const { done, value } = await pieces.read();
    if (done) break;
    reader.add(value);
    readBytes += value.length;
    if (performance.now() - told > 100) {
      told = performance.now();
      onProgress(readBytes, total);
      await new Promise((resolve) => setTimeout(resolve)); // lets the page draw
    }
  }
  await pieces.cancel();
  return reader.cloud();
}

const VERTEX = `
  attribute vec3 tint;
  uniform float size, radius;
  uniform int mode;
  varying vec3 shade;
  vec3 ramp(float t) {
    vec3 low = vec3(0.18, 0.28, 0.62), middle = vec3(0.16, 0.62, 0.55), high = vec3(0.98, 0.83, 0.30);
    return t < 0.5 ? mix(low, middle, t * 2.0) : mix(middle, high, t * 2.0 - 1.0);
  }
  void main() {
    vec4 place = modelViewMatrix * vec4(position, 1.0);
    gl_Position = projectionMatrix * place;
    gl_PointSize = size;
    if (mode == 0) shade = tint;
    else if (mode == 1) {
      float lit = abs(dot(normalize(normalMatrix * normal), normalize(-place.xyz)));
      shade = vec3(0.93, 0.90, 0.84) * (0.22 + 0.78 * lit);
    } else shade = ramp(clamp(position.y / radius * 0.75 + 0.5, 0.0, 1.0));
  }`;
const FRAGMENT = `
  varying vec3 shade;
  void main() {
    vec2 away = gl_PointCoord - 0.5;
    if (dot(away, away) > 0.25) discard;
    gl_FragColor = vec4(shade, 1.0);
  }`;
const MODES: Record<Shading, number> = { color: 0, light: 1, height: 2 };

export class Viewer {
  pointSize = 2;
  shading: Shading;
  readonly #renderer = new WebGLRenderer({ antialias: false });
  readonly #scene = new Scene();
  readonly #camera = new PerspectiveCamera(45, 1);
  readonly #controls: OrbitControls;
  readonly #material: ShaderMaterial;
  readonly #geometry = new BufferGeometry();
  readonly #watch: ResizeObserver;
  /** Until somebody turns it, everything stays in sight when the page changes its size. */
  #isUntouched = true;
  #isAsked = false;
  readonly #box: HTMLElement;
  readonly #radius: number;

  constructor(box: HTMLElement, cloud: Cloud) {
    this.#box = box;
    this.#renderer.setClearColor(BACKGROUND);
    this.#radius = cloud.radius;
    this.shading = cloud.shadings[0] ?? "height";
    this.#material = new ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms: { size: { value: 2 }, radius: { value: cloud.radius }, mode: { value: MODES[this.shading] } },
    });
    this.#geometry.setAttribute("position", new BufferAttribute(cloud.positions, 3));
    if (cloud.normals) this.#geometry.setAttribute("normal", new BufferAttribute(cloud.normals, 3, true));
    if (cloud.colors) this.#geometry.setAttribute("tint", new BufferAttribute(cloud.colors, 3, true));
    this.#scene.add(new Points(this.#geometry, this.#material));
    box.append(this.#renderer.domElement);
    this.#controls = new OrbitControls(this.#camera, this.#renderer.domElement);
    this.#controls.addEventListener("change", () => this.#draw());
    this.#controls.addEventListener("start", () => {
      this.#isUntouched = false;
    });
    this.#watch = new ResizeObserver(() => this.#resize());
    this.#watch.observe(box);
    this.fit();
    this.#resize();
    this.setPointSize(this.pointSize);
  }

  fit(): void {
    this.#isUntouched = true;
    const half = Math.tan((this.#camera.fov * Math.PI) / 360) * Math.min(1, this.#camera.aspect);
    const distance = this.#radius / Math.sin(Math.atan(half));
    this.#camera.near = distance / 1000;
    this.#camera.far = distance * 20;
    this.#camera.position.copy(new Vector3(0.55, 0.45, 1).setLength(distance));
    this.#controls.target.set(0, 0, 0);
    this.#camera.updateProjectionMatrix();
    this.#controls.update();
    this.#draw();
  }

  setPointSize(size: number): void {
    this.pointSize = size;
    this.#uniform("size", size * this.#renderer.getPixelRatio());
  }

  setShading(shading: Shading): void {
    this.shading = shading;
    this.#uniform("mode", MODES[shading]);
  }

  /** Return whether the key means something here. */
  press(key: string, isShifted: boolean): boolean {
    const arrows: Record<string, [number, number]> = {
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    };
    const arrow = arrows[key];
    if (arrow) {
      if (isShifted) this.#move(...arrow);
      else this.#turn(...arrow);
    } else if (key === "+" || key === "=") this.#zoom(1 / ZOOM);
    else if (key === "-" || key === "−") this.#zoom(ZOOM);
    else if (key.toLowerCase() === "f") this.fit();
    else return false;
    this.#isUntouched = key.toLowerCase() === "f";
    return true;
  }

  close(): void {
    this.#watch.disconnect();
    this.#controls.dispose();
    this.#geometry.dispose();
    this.#material.dispose();
    this.#renderer.dispose();
    this.#renderer.forceContextLoss();
    this.#renderer.domElement.remove();
  }

  #turn(right: number, up: number): void {
    const arm = this.#camera.position.clone().sub(this.#controls.target);
    const length = arm.length();
    const height = Math.min(Math.PI - 0.05, Math.max(0.05, Math.acos(arm.y / length) - up * TURN));
    const round = Math.atan2(arm.x, arm.z) + right * TURN;
    arm.setFromSphericalCoords(length, height, round);
    this.#camera.position.copy(this.#controls.target).add(arm);
    this.#controls.update();
  }

  #move(right: number, up: number): void {
    const step = this.#camera.position.distanceTo(this.#controls.target) * MOVE;
    const way = new Vector3(right * step, up * step, 0).applyQuaternion(this.#camera.quaternion);
    this.#camera.position.add(way);
    this.#controls.target.add(way);
    this.#controls.update();
  }

  #zoom(factor: number): void {
    const arm = this.#camera.position.clone().sub(this.#controls.target).multiplyScalar(factor);
    this.#camera.position.copy(this.#controls.target).add(arm);
    this.#controls.update();
  }

  #uniform(name: string, value: number): void {
    const uniform = this.#material.uniforms[name];
    if (uniform) uniform.value = value;
    this.#draw();
  }

  #resize(): void {
    const { clientWidth: width, clientHeight: height } = this.#box;
    if (!width || !height) return;
    this.#renderer.setPixelRatio(Math.min(2, devicePixelRatio));
    this.#renderer.setSize(width, height, false);
    this.#camera.aspect = width / height;
    this.#camera.updateProjectionMatrix();
    this.#uniform("size", this.pointSize * this.#renderer.getPixelRatio());
    if (this.#isUntouched) this.fit();
    this.#draw();
  }

  /** Only when something has changed: an idle viewer costs nothing. */
  #draw(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    requestAnimationFrame(() => {
      this.#isAsked = false;
      this.#renderer.render(this.#scene, this.#camera);
    });
  }
}
