import { signal } from "@preact/signals";
import { ago, localTime, utcTime } from "../format.ts";

/** Moves every few seconds, so that "2 min ago" stays true. */
const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 10_000);

/** A moment: local time, the same in UTC on hover. `relative`: "3 min ago" while that is recent. */
export function Time({ at, relative = false }: { at: string | null | undefined; relative?: boolean }) {
  if (!at) return <>–</>;
  const recent = relative ? ago(at, now.value) : null;
  const title = recent ? `${localTime(at)} · ${utcTime(at)}` : utcTime(at);
  return (
    <time dateTime={at} title={title}>
      {recent ?? localTime(at)}
    </time>
  );
}
