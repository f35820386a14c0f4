// From a filled form to a job: upload what was chosen, then ask for the job, once.

import { signal } from "@preact/signals";
import { ApiError, call, sentence } from "../api.ts";
import type { Uploads } from "../types.ts";
import type { ChosenFile } from "./chosen_files.ts";
import { uploadAll, type Failed } from "./upload.ts";

export interface Order {
  /** Under the caller's own one. */
  folder: string;
  files: ChosenFile[];
  /** Where the inputs are already; null: `files` are uploaded. */
  source: string | null;
  target: string | null;
  job: Record<string, unknown>;
}

export interface Sending {
  sentBytes: number;
  totalBytes: number;
  done: number;
  isAsking: boolean;
}

export class Sender {
  readonly state = signal<Sending | null>(null);
  readonly error = signal<ApiError | null>(null);
  readonly failed = signal<Failed[]>([]);
  #stop = new AbortController();
  /** Kept while the same order is sent again, so that it becomes one job. */
  #key = { order: "", value: "" };
  #uploaded = new Set<File>();
  #folder = "";

  stop(): void {
    this.#stop.abort();
  }

  /** Return the new job's id, or null when it was stopped or failed: then `error` or `failed` say why. */
  async send(order: Order, own: Uploads): Promise<string | null> {
    this.#stop = new AbortController();
    this.error.value = null;
    this.failed.value = [];
    try {
      return await this.#sent(order, own);
    } catch (error) {
      if (!this.#stop.signal.aborted) {
        this.error.value = error instanceof ApiError ? error : new ApiError(sentence(error), -1);
      }
      return null;
    } finally {
      this.state.value = null;
    }
  }

  async #sent(order: Order, own: Uploads): Promise<string | null> {
    const source = order.source ?? `${own.uri}${order.folder}/source/`;
    if (order.source === null && !(await this.#upload(order))) return null;
    this.state.value = { sentBytes: 0, totalBytes: 0, done: 0, isAsking: true };
    const body = { ...order.job, source, target: order.target ?? `${own.uri}${order.folder}/result/` };
    const answer = await call<{ job_id: string }>("/jobs", {
      method: "POST",
      body,
      headers: { "Idempotency-Key": this.#keyOf(JSON.stringify(body)) },
      signal: this.#stop.signal,
    });
    return answer.job_id;
  }

  /** What an earlier try has sent is not sent again. */
  async #upload({ folder, files }: Order): Promise<boolean> {
    if (this.#folder !== folder) this.#uploaded.clear();
    this.#folder = folder;
    const missing = files.filter(({ file }) => !this.#uploaded.has(file));
    const totalBytes = missing.reduce((sum, { file }) => sum + file.size, 0);
    this.state.value = { sentBytes: 0, totalBytes, done: 0, isAsking: false };
    const failed = await uploadAll(`${folder}/source/`, missing, this.#stop.signal, (sentBytes, done) => {
      this.state.value = { sentBytes, totalBytes, done, isAsking: false };
    });
    const bad = new Set(failed.map(({ path }) => path));
    for (const { path, file } of missing) if (!bad.has(path)) this.#uploaded.add(file);
    this.failed.value = failed;
    return failed.length === 0;
  }

  #keyOf(order: string): string {
    if (this.#key.order !== order) this.#key = { order, value: randomName() };
    return this.#key.value;
  }
}

function randomName(): string {
  // randomUUID() is kept from pages that came over plain HTTP.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
