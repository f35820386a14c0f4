import { stateWords } from "../format.ts";
import type { JobSummary } from "../types.ts";

/** A job's state: a word, and a mark whose shape differs as well as its colour. */
export function State({ job }: { job: Pick<JobSummary, "status" | "cancel_requested"> }) {
  return <span class={`state ${job.status}`}>{stateWords(job)}</span>;
}
