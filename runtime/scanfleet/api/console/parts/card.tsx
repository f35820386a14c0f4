import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

/** A part of a page with a name. */
export function Card({
  title,
  aside,
  children,
  class: kind = "",
}: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
  class?: string;
}) {
  const id = useId();
  return (
    <section class={`card ${kind}`} aria-labelledby={id}>
      <div class="card-head">
        <h2 id={id}>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}
