// Where in the console the reader is: `#/jobs?status=failed`. After the #, so that no door in front of the API
// has to know the console's places, and a reload or a sent link leads to the same one.

import { signal } from "@preact/signals";

export interface Place {
  parts: string[];
  query: URLSearchParams;
}

const OLD_LINK = /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/;

export function parse(hash: string): Place {
  const text = hash.replace(/^#/, "");
  if (OLD_LINK.test(text)) return { parts: ["job", text], query: new URLSearchParams() };
  const [path = "", rest = ""] = text.split(/\?(.*)/s);
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(rest) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function href(parts: string[], query: Record<string, string> = {}): string {
  const kept = Object.entries(query).filter(([, value]) => value !== "");
  const text = new URLSearchParams(kept).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const place = signal<Place>(parse(location.hash));

export function go(to: string): void {
  location.hash = to;
}

/** Change the query of this place without a new entry in the history. */
export function replaceQuery(query: Record<string, string>): void {
  history.replaceState(null, "", href(place.value.parts, query));
  place.value = parse(location.hash);
}

addEventListener("hashchange", () => {
  place.value = parse(location.hash);
});
