import { useId } from "preact/hooks";
import type { Uploads } from "../types.ts";

export interface More {
  source: string;
  target: string;
  priority: string;
  minutes: string;
  tags: string;
  replaces: boolean;
}

/** What most jobs leave as it is. */
export function MoreFields({ more, uploads, onChange }: { more: More; uploads: Uploads; onChange: (more: More) => void }) {
  const id = useId();
  const change = (part: Partial<More>) => onChange({ ...more, ...part });
  return (
    <details>
      <summary>More: files in S3, target folder, priority, time limit, tags</summary>
      <div class="fields">
        <div>
          <label for={`${id}-source`}>Source folder in S3, instead of files from here</label>
          <input
            id={`${id}-source`}
            value={more.source}
            placeholder={`${uploads.uri}folder/`}
            onInput={(event) => change({ source: event.currentTarget.value })}
          />
        </div>
        <div>
          <label for={`${id}-target`}>Target folder in S3</label>
          <input
            id={`${id}-target`}
            value={more.target}
            placeholder="beside the files"
            onInput={(event) => change({ target: event.currentTarget.value })}
          />
        </div>
        <div>
          <label for={`${id}-priority`}>Priority</label>
          <select id={`${id}-priority`} onChange={(event) => change({ priority: event.currentTarget.value })}>
            <option selected={more.priority === "normal"}>normal</option>
            <option selected={more.priority === "high"}>high</option>
          </select>
        </div>
        <div>
          <label for={`${id}-minutes`}>Time limit in minutes</label>
          <input
            id={`${id}-minutes`}
            type="number"
            min={1}
            max={660}
            value={more.minutes}
            placeholder="the agent's own"
            onInput={(event) => change({ minutes: event.currentTarget.value })}
          />
        </div>
        <div>
          <label for={`${id}-tags`}>Tags, separated by commas</label>
          <input
            id={`${id}-tags`}
            value={more.tags}
            placeholder="case: 7, site: north"
            onInput={(event) => change({ tags: event.currentTarget.value })}
          />
        </div>
        <div class="setting switch">
          <label for={`${id}-replaces`}>Replace the results of a completed job in the target folder</label>
          <input
            id={`${id}-replaces`}
            type="checkbox"
            checked={more.replaces}
            onChange={(event) => change({ replaces: event.currentTarget.checked })}
          />
        </div>
      </div>
    </details>
  );
}

/** "case: 7, new" -> {case: "7", new: ""}. */
export function tagsOf(text: string): Record<string, string> {
  const pairs = text.split(",").map((part) => part.split(/:(.*)/s));
  return Object.fromEntries(pairs.map(([key = "", value = ""]) => [key.trim(), value.trim()]).filter(([key]) => key));
}
