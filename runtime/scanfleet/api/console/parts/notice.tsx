import type { ComponentChildren } from "preact";
import type { ApiError } from "../api.ts";

/** Something to know; `bad` is read out at once. */
export function Notice({ bad = false, children }: { bad?: boolean; children: ComponentChildren }) {
  return (
    <div class={`notice ${bad ? "bad" : ""}`} role={bad ? "alert" : "note"}>
      {children}
    </div>
  );
}

/** What went wrong, with each field that the API names. */
export function Trouble({ error }: { error: ApiError | null }) {
  if (error === null) return null;
  // While the API is silent, the sign in the header and old values say so; an alert each time would not help.
  return (
    <Notice bad>
      {error.message}
      {error.errors.length > 1 && (
        <ul>
          {error.errors.map((one, index) => (
            <li key={index}>
              <strong>{one.field}</strong>: {one.message}
              {one.allowed ? ` (allowed: ${one.allowed})` : ""}
            </li>
          ))}
        </ul>
      )}
    </Notice>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="quiet loading" role="status">
      Loading {what}…
    </p>
  );
}
