// Changes of jobs as they happen: over a WebSocket, else server-sent events, else not at all; then the page's
// own polling is what keeps it up to date. Which ways there are, the API says (POST /events/ticket).

import { effect, signal } from "@preact/signals";
import { ApiError, call, jobPath } from "./api.ts";
import type { JobSummary, Ticket } from "./types.ts";

export type Connection = "live" | "polling" | "offline";
export type Listener = (job: JobSummary) => void;
/** A job's id, or "" for all jobs that the caller may see. */
export type Topic = string;

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30_000;
const NO_EVENTS_WAIT_MS = 120_000;
const TRIES_PER_WAY = 2;
const DEFAULT_POLL_SECONDS = 2;
/** While changes arrive by themselves, the page still asks now and then: for what events do not tell. */
const RESYNC_MS = 15_000;
/** Keeps doors from closing an idle connection, and tells one that is open on our side only. */
const PING_EVERY_MS = 30_000;
const PONG_WITHIN_MS = 10_000;

const isOpen = signal(false);
const isAnswered = signal(true);
const pollSeconds = signal(DEFAULT_POLL_SECONDS);
/** How often a way was opened: what ended in between is not told, so pages ask once more. */
export const openings = signal(0);
export const connection = signal<Connection>("polling");

effect(() => {
  connection.value = !isAnswered.value ? "offline" : isOpen.value ? "live" : "polling";
});

/** Every answer or silence of the API tells whether it is there. */
export function heard(answered: boolean): void {
  isAnswered.value = answered;
}

export function pollMs(): number {
  return isOpen.value ? RESYNC_MS : pollSeconds.value * 1000;
}

const listeners = new Map<Topic, Set<Listener>>();
let link: Link | null = null;

interface Link {
  add(topic: Topic): void;
  remove(topic: Topic): void;
  close(): void;
}

/** Call `listener` with each change of the topic's jobs; returns what ends that. */
export function watch(topic: Topic, listener: Listener): () => void {
  const known = listeners.get(topic);
  if (known) known.add(listener);
  else {
    listeners.set(topic, new Set([listener]));
    link?.add(topic);
  }
  return () => {
    const left = listeners.get(topic);
    left?.delete(listener);
    if (left?.size !== 0) return;
    listeners.delete(topic);
    link?.remove(topic);
  };
}

function tell(job: JobSummary): void {
  for (const topic of [job.job_id, ""]) listeners.get(topic)?.forEach((listener) => listener(job));
}

/** Open a way, and again whenever it closes, for as long as the page is there. */
export async function keepOpen(): Promise<never> {
  let failures = 0;
  for (;;) {
    let hasBeenOpen = false;
    let waitMs = 0;
    try {
      const ticket = await call<Ticket>("/events/ticket", { method: "POST" });
      heard(true);
      pollSeconds.value = Math.max(1, ticket.poll_seconds || DEFAULT_POLL_SECONDS);
      const way = chosenWay(ticket, failures);
      if (way === null) waitMs = NO_EVENTS_WAIT_MS;
      else
        await way(() => {
          hasBeenOpen = true;
          failures = 0;
        });
    } catch (error) {
      // A server without events answers 404 or 405: ask again much later.
      if (error instanceof ApiError && error.status >= 400 && error.status < 500) waitMs = NO_EVENTS_WAIT_MS;
    }
    isOpen.value = false;
    link = null;
    if (!hasBeenOpen) failures += 1;
    const backOff = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(failures, 5));
    await sleep(waitMs || backOff * (0.75 + Math.random() / 2));
  }
}

type Way = (opened: () => void) => Promise<void>;

function chosenWay(ticket: Ticket, failures: number): Way | null {
  const ways: Way[] = [];
  const address = ticket.websocket;
  if (address !== null) ways.push((opened) => overWebSocket(address, opened));
  if (ticket.server_sent_events) ways.push(overServerSentEvents);
  return ways[Math.floor(failures / TRIES_PER_WAY) % Math.max(1, ways.length)] ?? null;
}

function open(made: Link, opened: () => void): void {
  link = made;
  if (!isOpen.value) openings.value += 1;
  isOpen.value = true;
  heard(true);
  opened();
}

function overWebSocket(address: string, opened: () => void): Promise<void> {
  const url = new URL(address, location.href);
  if (url.protocol.startsWith("http")) url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    const send = (verb: "subscribe" | "unsubscribe", topic: Topic) => {
      if (socket.readyState === WebSocket.OPEN) {
        socket.send(JSON.stringify({ [verb]: topic ? { job: topic } : { jobs: true } }));
      }
    };
    socket.onopen = () => {
      for (const topic of listeners.keys()) send("subscribe", topic);
      const made: Link = {
        add: (topic) => send("subscribe", topic),
        remove: (topic) => send("unsubscribe", topic),
        close: () => socket.close(),
      };
      open(made, opened);
    };
    const endPings = pinging(socket);
    socket.onmessage = (event) => {
      const said = parsed(event.data);
      if (said?.type === "job" && said.job) tell(said.job);
    };
    socket.onclose = () => {
      endPings();
      resolve();
    };
  });
}

/** Ask now and then whether the other side is still there; close when it is not. */
function pinging(socket: WebSocket): () => void {
  let silence: ReturnType<typeof setTimeout> | undefined;
  const timer = setInterval(() => {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ ping: true }));
    silence ??= setTimeout(() => socket.close(), PONG_WITHIN_MS);
  }, PING_EVERY_MS);
  const heardFrom = () => {
    clearTimeout(silence);
    silence = undefined;
  };
  socket.addEventListener("message", heardFrom);
  return () => {
    clearInterval(timer);
    heardFrom();
  };
}

function overServerSentEvents(opened: () => void): Promise<void> {
  return new Promise((resolve) => {
    const sources = new Map<Topic, EventSource>();
    const end = () => {
      sources.forEach((source) => source.close());
      resolve();
    };
    const add = (topic: Topic) => {
      const source = new EventSource(topic ? jobPath(topic, "/events") : "/events");
      sources.set(topic, source);
      source.onopen = () => open(made, opened);
      source.onerror = end;
      source.addEventListener("job", (event) => {
        const job = parsed(event.data) as JobSummary | null;
        if (job) tell(job);
      });
      source.addEventListener("end", () => made.remove(topic));
    };
    const made: Link = {
      add,
      remove: (topic) => {
        sources.get(topic)?.close();
        sources.delete(topic);
      },
      close: end,
    };
    // Topics may come and go before the first one is open.
    link = made;
    if (listeners.size === 0) open(made, opened);
    for (const topic of listeners.keys()) add(topic);
  });
}

function parsed(text: unknown): (JobSummary & { type?: string; job?: JobSummary }) | null {
  try {
    return typeof text === "string" ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    addEventListener("online", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
