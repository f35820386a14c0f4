// Uploads straight to S3 by presigned links: several at a time, each tried again, all of them stoppable.

import { ApiError, call, query } from "../api.ts";
import type { Presigned } from "../types.ts";
import type { ChosenFile } from "./chosen_files.ts";

const AT_ONCE = 4;
const TRIES = 3;
const CONTENT_TYPE = "application/octet-stream";

export interface Failed {
  path: string;
  reason: string;
}

/** Calls `onProgress` with the bytes sent so far, of all files. Returns the files that could not be sent. */
export async function uploadAll(
  folder: string,
  files: readonly ChosenFile[],
  stop: AbortSignal,
  onProgress: (sentBytes: number, done: number) => void,
): Promise<Failed[]> {
  const sent = new Map<string, number>();
  const failed: Failed[] = [];
  let total = 0;
  let done = 0;
  const left = [...files];
  const report = (path: string, bytes: number) => {
    total += bytes - (sent.get(path) ?? 0);
    sent.set(path, bytes);
    onProgress(total, done);
  };
  const worker = async () => {
    for (let one = left.shift(); one && !stop.aborted; one = left.shift()) {
      const { path, file } = one;
      try {
        await uploadOne(folder + path, file, stop, (bytes) => report(path, bytes));
        done += 1;
        report(path, file.size);
      } catch (error) {
        if (stop.aborted) return;
        report(path, 0);
        failed.push({ path, reason: error instanceof Error ? error.message : String(error) });
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  stop.throwIfAborted();
  return failed;
}

async function uploadOne(key: string, file: File, stop: AbortSignal, onProgress: (bytes: number) => void): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const wanted = { file: key, mode: "upload", size_bytes: file.size, content_type: CONTENT_TYPE };
      const link = await call<Presigned>(`/presign${query(wanted)}`, { signal: stop });
      await put(link, file, stop, onProgress);
      return;
    } catch (error) {
      const isRefused = error instanceof ApiError && error.status >= 400 && error.status < 500;
      if (stop.aborted || isRefused || attempt === TRIES) throw error;
      onProgress(0);
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** attempt));
    }
  }
}

/** fetch() does not tell how far an upload is, XMLHttpRequest does. */
function put(link: Presigned, file: File, stop: AbortSignal, onProgress: (bytes: number) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open(link.method, link.url);
    for (const [name, value] of Object.entries(link.headers)) {
      // The browser sends the length itself, and lets nobody else name it.
      if (name.toLowerCase() !== "content-length") request.setRequestHeader(name, value);
    }
    request.upload.onprogress = (event) => onProgress(event.loaded);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(new Error(`the storage answered ${request.status} ${reasonOf(request)}`));
    request.onerror = () => reject(new Error("the storage did not answer, or does not allow uploads from this page (CORS)"));
    request.onabort = () => reject(stop.reason ?? new Error("stopped"));
    request.onloadend = () => stop.removeEventListener("abort", abort);
    stop.addEventListener("abort", abort);
    if (stop.aborted) abort();
    else request.send(file);
  });
}

/** S3 answers errors as XML with a message. */
function reasonOf(request: XMLHttpRequest): string {
  return /<Message>([^<]*)<\/Message>/.exec(request.responseText)?.[1] ?? "";
}
