// Calls of the API. Every failure is an ApiError with a sentence that can be shown.

import type { Presigned } from "./types.ts";

const TIMEOUT_MS = 30_000;

export interface FieldProblem {
  field: string;
  message: string;
  value?: string | null;
  allowed?: string | null;
}

export class ApiError extends Error {
  constructor(
    message: string,
    /** 0: nothing answered. */
    readonly status: number,
    readonly errors: FieldProblem[] = [],
  ) {
    super(message);
  }

  get isOffline(): boolean {
    return this.status === 0;
  }
}

export interface CallOptions {
  method?: "GET" | "POST";
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** Return the JSON that the API answers. Throws ApiError, or the signal's reason once it is aborted. */
export async function call<T>(path: string, options: CallOptions = {}): Promise<T> {
  const { method = "GET", body, signal } = options;
  const headers: Record<string, string> = { Accept: "application/json", ...options.headers };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? null : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError("The API does not answer; trying again.", 0);
  }
  if (response.ok) return (await response.json()) as T;
  throw await problem(response);
}

async function problem(response: Response): Promise<ApiError> {
  const said = await response.json().catch(() => null);
  const detail = typeof said?.detail === "string" ? said.detail : `the API answered ${response.status}`;
  return new ApiError(detail, response.status, Array.isArray(said?.errors) ? said.errors : []);
}

export function query(parts: Record<string, string | number | null | undefined>): string {
  const kept = Object.entries(parts).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return text ? `?${text}` : "";
}

export function jobPath(jobId: string, rest = ""): string {
  return `/job/${encodeURIComponent(jobId)}${rest}`;
}

/** Return a link that reads one file, for a while. */
export function readLink(uri: string, signal?: AbortSignal): Promise<Presigned> {
  return call<Presigned>(`/presign${query({ file: uri, mode: "download" })}`, { signal });
}

/** Return a link that makes browsers save one file, whatever it is: a result may be a page of a stranger. */
export function saveLink(uri: string): Promise<Presigned> {
  return call<Presigned>(`/presign${query({ file: uri, mode: "download", attachment: "true" })}`);
}

/** Return what an error says, whatever was thrown. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
