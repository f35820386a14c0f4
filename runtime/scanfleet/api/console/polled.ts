// A part of the page that asks the API again and again: while somebody looks, one question at a time.

import { signal, type Signal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { ApiError, sentence } from "./api.ts";
import { heard, openings } from "./live.ts";

const SLOWEST_MS = 30_000;

export interface Polled<T> {
  data: Signal<T | null>;
  error: Signal<ApiError | null>;
  /** Ask now instead of at the next turn. */
  refresh: () => void;
}

export interface PollOptions {
  /** How long to wait after an answer; null: the answer will not change any more. */
  pauseMs: () => number | null;
}

/** Asks with `load` whenever `key` changes, and then again after each pause. */
export function usePolled<T>(key: string, load: (signal: AbortSignal) => Promise<T>, options: PollOptions): Polled<T> {
  const data = useMemo(() => signal<T | null>(null), [key]);
  const error = useMemo(() => signal<ApiError | null>(null), [key]);
  const wake = useRef<() => void>(() => undefined);
  useEffect(() => {
    const stop = new AbortController();
    void ask(load, data, error, options, stop.signal, wake);
    return () => stop.abort();
  }, [key]);
  useEffect(() => {
    const seen = openings.peek();
    return openings.subscribe((times) => {
      if (times > Math.max(1, seen)) wake.current();
    });
  }, [key]);
  return { data, error, refresh: () => wake.current() };
}

async function ask<T>(
  load: (signal: AbortSignal) => Promise<T>,
  data: Signal<T | null>,
  error: Signal<ApiError | null>,
  options: PollOptions,
  stop: AbortSignal,
  wake: { current: () => void },
): Promise<void> {
  let failures = 0;
  while (!stop.aborted) {
    let isWoken = false;
    wake.current = () => {
      isWoken = true;
    };
    try {
      const answer = await load(stop);
      if (stop.aborted) return;
      data.value = answer;
      error.value = null;
      failures = 0;
      heard(true);
    } catch (problem) {
      if (stop.aborted) return;
      failures += 1;
      error.value = problem instanceof ApiError ? problem : new ApiError(sentence(problem), -1);
      if (error.value.isOffline) heard(false);
    }
    if (!isWoken) await pause(failures, options, stop, wake);
    await visible(stop);
  }
}

async function pause(
  failures: number,
  options: PollOptions,
  stop: AbortSignal,
  wake: { current: () => void },
): Promise<void> {
  const chosen = options.pauseMs();
  const milliseconds =
    failures && chosen !== null ? Math.min(SLOWEST_MS, Math.max(chosen, 1000) * 2 ** Math.min(failures, 5)) : chosen;
  await new Promise<void>((resolve) => {
    const timer = milliseconds === null ? undefined : setTimeout(resolve, milliseconds);
    wake.current = () => {
      clearTimeout(timer);
      resolve();
    };
    stop.addEventListener("abort", () => wake.current(), { once: true });
  });
}

/** A hidden tab asks for nothing; it goes on as soon as somebody looks. */
async function visible(stop: AbortSignal): Promise<void> {
  while (document.hidden && !stop.aborted) {
    await new Promise<void>((resolve) => {
      document.addEventListener("visibilitychange", () => resolve(), { once: true });
      stop.addEventListener("abort", () => resolve(), { once: true });
    });
  }
}
