import { useId, useLayoutEffect, useRef } from "preact/hooks";
import { go, href } from "../router.ts";

/** What the address says of the list. */
export type Chosen = { status: string; owner: string; tag: string; cursor: string };

const STATUSES = ["active", "all", "queued", "downloading", "processing", "uploading", "completed", "failed", "cancelled"];

export function filtersOf(query: URLSearchParams): Chosen {
  const get = (name: string) => query.get(name) ?? "";
  return { status: get("status") || "active", owner: get("owner"), tag: get("tag"), cursor: get("cursor") };
}

export function Filters({ chosen }: { chosen: Chosen }) {
  const id = useId();
  const apply = (event: Event) => {
    event.preventDefault();
    const form = (event.target as Element).closest("form");
    if (!form) return;
    const said = new FormData(form);
    const get = (name: string) => String(said.get(name) ?? "").trim();
    const status = get("status");
    go(href(["jobs"], { status: status === "active" ? "" : status, owner: get("owner"), tag: get("tag") }));
  };
  const isFiltered = chosen.owner || chosen.tag || chosen.status !== "active";
  return (
    <form class="filters" role="search" aria-label="Jobs" onSubmit={apply}>
      <div>
        <label for={`${id}-status`}>Status</label>
        <select id={`${id}-status`} name="status" value={chosen.status} onChange={apply}>
          {STATUSES.map((status) => (
            <option key={status} value={status} selected={status === chosen.status}>
              {status === "active" ? "active (waiting or running)" : status}
            </option>
          ))}
        </select>
      </div>
      <Typed label="Owner" name="owner" chosen={chosen.owner} maxLength={128} onChange={apply} placeholder="anybody" />
      <Typed label="Tag" name="tag" chosen={chosen.tag} onChange={apply} placeholder="key:value" />
      <div class="row">
        <button type="submit">Filter</button>
        {isFiltered ? <a href={href(["jobs"])}>Clear filters</a> : null}
      </div>
    </form>
  );
}

interface Field {
  label: string;
  name: string;
  chosen: string;
  placeholder: string;
  maxLength?: number;
  onChange: (event: Event) => void;
}

/** A text filter. It shows what the address says whenever that changes; what is being typed stays until then. */
function Typed({ label, chosen, ...rest }: Field) {
  const id = useId();
  const input = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => {
    if (input.current) input.current.value = chosen;
  }, [chosen]);
  return (
    <div>
      <label for={id}>{label}</label>
      <input id={id} ref={input} {...rest} />
    </div>
  );
}
