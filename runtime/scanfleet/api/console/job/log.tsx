import { useSignal } from "@preact/signals";
import { useEffect, useId, useLayoutEffect, useRef } from "preact/hooks";
import { memo } from "../parts/memo.ts";
import { call, jobPath, query } from "../api.ts";
import { hasEnded } from "../format.ts";
import { Card } from "../parts/card.tsx";
import { Trouble } from "../parts/notice.tsx";
import { usePolled } from "../polled.ts";
import type { JobDetail, LogPage } from "../types.ts";
import { append, MOST_LINES, NO_LINES, type Block, type LogLines } from "./log_lines.ts";

const ASK_EVERY_MS = 1500;
const FIRST_LINES = 2000;

export function JobLog({ job }: { job: JobDetail }) {
  const chosen = useSignal<number | null>(null);
  const attempt = chosen.value ?? job.attempt;
  const id = useId();
  return (
    <Card
      title="Log"
      class="log-card"
      aside={
        job.attempt > 1 && (
          <div class="row">
            <label for={id}>Attempt</label>
            <select id={id} onChange={(event) => (chosen.value = Number(event.currentTarget.value))}>
              {Array.from({ length: job.attempt }, (_, index) => job.attempt - index).map((one) => (
                <option key={one} value={one} selected={one === attempt}>
                  {one}
                  {one === job.attempt ? " (last)" : ""}
                </option>
              ))}
            </select>
          </div>
        )
      }
    >
      {attempt === 0 ? (
        <p class="quiet">No attempt has started yet.</p>
      ) : (
        <Tail key={attempt} job={job} attempt={attempt} isOver={hasEnded(job.status) || attempt < job.attempt} />
      )}
    </Card>
  );
}

/** The end of one attempt's log, growing while the attempt runs. */
function Tail({ job, attempt, isOver }: { job: JobDetail; attempt: number; isOver: boolean }) {
  const follows = useSignal(true);
  const lines = useSignal<LogLines>(NO_LINES);
  const next = useRef<string | null>(null);
  const isAllThere = useRef(false);
  const over = useRef(isOver);
  over.current = isOver;
  const asked = usePolled(`${job.job_id}/${attempt}`, load, { pauseMs });
  async function load(stop: AbortSignal): Promise<boolean> {
    const wasOver = over.current;
    const after = next.current ? { after: next.current } : { tail_lines: FIRST_LINES };
    const page = await call<LogPage>(jobPath(job.job_id, `/log${query({ attempt, ...after })}`), { signal: stop });
    next.current = page.next;
    lines.value = append(lines.value, page.lines);
    isAllThere.current = wasOver && page.lines.length === 0;
    return true;
  }
  function pauseMs(): number | null {
    if (isAllThere.current) return null;
    return over.current ? 0 : follows.value ? ASK_EVERY_MS : ASK_EVERY_MS * 4;
  }
  useEffect(() => asked.refresh(), [isOver]);
  const box = useStayAtEnd(follows, lines.value);
  const shown = lines.value;
  const text = jobPath(job.job_id, `/log${query({ attempt, tail_lines: MOST_LINES })}`);
  return (
    <>
      <Trouble error={asked.error.value} />
      <div class="row">
        {!isOver && <button type="button" class="small" aria-pressed={follows.value} onClick={() => (follows.value = !follows.value)}>
          {follows.value ? "Pause following" : "Follow the end"}
        </button>}
        <a href={text} target="_blank" rel="noreferrer">
          Open as text
        </a>
        {shown.dropped > 0 && <span class="quiet">The last {MOST_LINES.toLocaleString("en")} lines are kept here.</span>}
      </div>
      <div ref={box} class="log" tabIndex={0} role="region" aria-label={`Log of attempt ${attempt}`}>
        {shown.blocks.map((block) => (
          <LogBlock key={block.id} block={block} />
        ))}
        {shown.blocks.length === 0 && (asked.data.value ? "Nothing printed yet." : "Loading…")}
      </div>
    </>
  );
}

const LogBlock = memo(({ block }: { block: Block }) => <pre>{block.lines.join("\n")}</pre>);

/** Keep the end in sight while following; scrolling up pauses, scrolling to the end follows again. */
function useStayAtEnd(follows: { value: boolean }, lines: LogLines) {
  const box = useRef<HTMLDivElement>(null);
  const isOurs = useRef(false);
  useLayoutEffect(() => {
    const element = box.current;
    if (!element || !follows.value) return;
    isOurs.current = true;
    element.scrollTop = element.scrollHeight;
  }, [lines, follows.value]);
  useEffect(() => {
    const element = box.current;
    if (!element) return undefined;
    const moved = () => {
      const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 30;
      if (isOurs.current) {
        // Blocks are laid out as they come into sight, which moves the end.
        if (!isAtEnd) element.scrollTop = element.scrollHeight;
        isOurs.current = false;
      } else if (follows.value !== isAtEnd) follows.value = isAtEnd;
    };
    element.addEventListener("scroll", moved, { passive: true });
    return () => element.removeEventListener("scroll", moved);
  }, []);
  return box;
}
