import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { duration, hasEnded } from "../format.ts";
import { Card } from "../parts/card.tsx";
import type { JobDetail, State } from "../types.ts";

const STATES: State[] = ["queued", "downloading", "processing", "uploading"];
const NAMES: Partial<Record<State, string>> = {
  queued: "Waiting",
  downloading: "Downloading",
  processing: "Program",
  uploading: "Publishing",
};

export interface Span {
  name: string;
  kind: string;
  isStage: boolean;
  isNow: boolean;
  start: number;
  seconds: number;
}

/** Where the job's time went: a row for each state, and under the program's one for each of its stages. */
export function Timeline({ job }: { job: JobDetail }) {
  const now = useNow(!hasEnded(job.status), job);
  const spans = spansOf(job, now);
  const total = Math.max(...spans.map((span) => span.start + span.seconds), 0.001);
  return (
    <Card title="Timeline" aside={<span class="quiet">{duration(total)} in all</span>}>
      <table class="timeline">
        <colgroup>
          <col class="names" />
          <col />
          <col class="numbers" />
        </colgroup>
        <thead class="out-of-sight">
          <tr>
            <th scope="col">State or stage</th>
            <th scope="col">When</th>
            <th scope="col">How long</th>
          </tr>
        </thead>
        <tbody>
          {spans.map((span) => (
            <tr key={`${span.kind}/${span.name}`} class={span.isStage ? "stage" : ""}>
              <th scope="row">
                {span.name}
                {span.isNow && <span class="now">now</span>}
              </th>
              <td class="track">
                <span
                  class={`span ${span.kind} ${span.isNow ? "moving" : ""}`}
                  style={{ left: `${(100 * span.start) / total}%`, width: `${(100 * span.seconds) / total}%` }}
                />
              </td>
              <td class="number">{duration(span.seconds)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Card>
  );
}

/** Return the rows, one after the other. `extra`: seconds since the job was asked for. */
export function spansOf(job: JobDetail, extra: number): Span[] {
  const spans: Span[] = [];
  let start = 0;
  for (const state of STATES) {
    const isNow = job.status === state;
    const seconds = (job.durations_seconds[state] ?? 0) + (isNow ? extra : 0);
    if (!isNow && seconds === 0) continue;
    spans.push({ name: NAMES[state] ?? state, kind: state, isStage: false, isNow, start, seconds });
    if (state === "processing") spans.push(...stagesOf(job, start, seconds, extra));
    start += seconds;
  }
  return spans;
}

/** The program's stages; earlier attempts' time in the program comes before them. */
function stagesOf(job: JobDetail, start: number, programSeconds: number, extra: number): Span[] {
  const times = Object.entries(job.stage_seconds);
  const isRunning = job.status === "processing" && job.stage !== null;
  const known = times.reduce((sum, [, seconds]) => sum + seconds, 0);
  const since = job.stage_since ? Date.parse(job.stage_since) / 1000 : null;
  const here = isRunning ? Math.max(0, since === null ? programSeconds - known : Date.now() / 1000 - since) : 0;
  let at = start + Math.max(0, programSeconds - known - here);
  const spans: Span[] = [];
  for (const [name, before] of times) {
    const isNow = isRunning && name === job.stage;
    const seconds = before + (isNow ? here : 0);
    spans.push({ name, kind: "stage", isStage: true, isNow, start: at, seconds });
    at += seconds;
  }
  if (isRunning && job.stage && !(job.stage in job.stage_seconds)) {
    const seconds = Math.min(here, Math.max(extra, start + programSeconds - at));
    spans.push({ name: job.stage, kind: "stage", isStage: true, isNow: true, start: at, seconds });
  }
  return spans;
}

/** Seconds since the job was asked for last, so that bars grow between two answers. */
function useNow(isMoving: boolean, job: JobDetail): number {
  const extra = useSignal(0);
  useEffect(() => {
    extra.value = 0;
    if (!isMoving) return undefined;
    const asked = performance.now();
    const timer = setInterval(() => {
      if (!document.hidden) extra.value = (performance.now() - asked) / 1000;
    }, 1000);
    return () => clearInterval(timer);
  }, [job.durations_seconds, isMoving]);
  return isMoving ? extra.value : 0;
}
