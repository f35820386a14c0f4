import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { place } from "../router.ts";

/** A place's heading: names the window, and takes the focus when the reader has come here from another place. */
export function Heading({ title, children }: { title: string; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Scanfleet`;
  }, [title]);
  // At once: a reader who is already on the way to a button must not be called back.
  useLayoutEffect(() => {
    const here = place.peek().parts.join("/");
    const isNew = here !== focusedAt;
    if (isNew) scrollTo(0, 0);
    const element = heading.current;
    if (focusedAt !== null && (isNew || heldFocus)) element?.focus({ preventScroll: true });
    focusedAt = here;
    // A place that has loaded draws another heading than the one that may have the focus.
    return () => {
      heldFocus = document.activeElement === element;
    };
  }, []);
  return (
    <h1 ref={heading} tabIndex={-1}>
      {children ?? title}
    </h1>
  );
}

/** The place whose heading was drawn last; null before the first, where the browser's own focus starts. */
let focusedAt: string | null = null;
let heldFocus = false;
