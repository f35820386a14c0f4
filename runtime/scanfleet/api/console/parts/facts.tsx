import type { ComponentChildren } from "preact";

export type Fact = [name: string, value: ComponentChildren];

/** Names and values; those without a value are left out. */
export function Facts({ facts, hasLongNames = false }: { facts: Fact[]; hasLongNames?: boolean }) {
  return (
    <dl class={hasLongNames ? "facts long" : "facts"}>
      {facts
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
