// Numbers, times and names as people read them. Pure functions.

import type { Eta, JobSummary, State } from "./types.ts";

export const RUNNING: readonly State[] = ["downloading", "processing", "uploading"];
export const ENDED: readonly State[] = ["completed", "failed", "cancelled"];

export const isRunning = (state: State): boolean => RUNNING.includes(state);
export const hasEnded = (state: State): boolean => ENDED.includes(state);

/** 42 -> "42 B", 1234567 -> "1.2 MB". */
export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let index = 0;
  let left = value;
  while (left >= 999.95 && index < units.length - 1) {
    left /= 1000;
    index += 1;
  }
  return `${index ? left.toFixed(1) : Math.round(left)} ${units[index]}`;
}

/** 4.21 -> "4.2 s", 75 -> "1 min 15 s", 7300 -> "2 h 1 min". */
export function duration(seconds: number): string {
  if (seconds < 59.95) return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  if (hours >= 48) return `${Math.round(hours / 24)} days`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

/** One number that need not be exact: 75 -> "1 min", 5 -> "5 s". */
export function about(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** "2 min to 4 min"; a narrow range is one number. */
export function range(eta: Eta): string {
  const [low, high] = [about(eta.low_seconds), about(eta.high_seconds)];
  return low === high ? `about ${low}` : `${low} to ${high}`;
}

export function percent(value: number, digits = 0): string {
  return `${value.toFixed(digits)} %`;
}

export function dollars(value: number): string {
  return `$${value.toFixed(value !== 0 && Math.abs(value) < 0.1 ? 4 : 2)}`;
}

export function count(value: number, one: string, many = `${one}s`): string {
  return `${value.toLocaleString("en")} ${value === 1 ? one : many}`;
}

/** "3 min ago" for what is recent; else null. */
export function ago(iso: string, now: number): string | null {
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < -5 || seconds > 86_400) return null;
  return seconds < 10 ? "just now" : `${about(seconds)} ago`;
}

export function localTime(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function utcTime(iso: string): string {
  return `${new Date(iso).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** bad_input -> "bad input". */
export const words = (name: string): string => name.replaceAll("_", " ");

const EVERY_UPLOAD = new Set(["source", "scans", "input"]);
const ULID = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

/** A job's name: its source folder's, or the folder above where every upload's is called the same. */
export function jobName(job: Pick<JobSummary, "job_id" | "source">): string {
  const folders = job.source.replace(/^s3:\/\//, "").split("/").filter(Boolean).slice(1);
  let name = folders.pop() ?? "";
  if (EVERY_UPLOAD.has(name)) name = folders.pop() ?? "";
  return !name || ULID.test(name) ? job.job_id : name;
}

export function stateWords(job: Pick<JobSummary, "status" | "cancel_requested">): string {
  return job.cancel_requested && !hasEnded(job.status) ? "cancelling" : job.status;
}
