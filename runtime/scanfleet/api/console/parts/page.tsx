import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";

/** A place's heading: names the window, and takes the focus when the reader has come here from another place. */
export function Heading({ title, children }: { title: string; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Scanfleet`;
  }, [title]);
  useEffect(() => {
    if (hasMoved) heading.current?.focus({ preventScroll: true });
    hasMoved = true;
    scrollTo(0, 0);
  }, []);
  return (
    <h1 ref={heading} tabIndex={-1}>
      {children ?? title}
    </h1>
  );
}

/** The first page is where the browser's own focus starts. */
let hasMoved = false;
