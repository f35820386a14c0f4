import { call, jobPath } from "../api.ts";
import { usePolled } from "../polled.ts";
import type { JobDetail } from "../types.ts";

const ASK_EVERY_MS = 20_000;

/** Why a queued job waits: only a job's own page has that, so the list asks for few of them, seldom. */
export function WhyWaiting({ jobId }: { jobId: string }) {
  const job = usePolled(jobId, (stop) => call<JobDetail>(jobPath(jobId), { signal: stop }), {
    pauseMs: () => ASK_EVERY_MS,
  });
  return <span class="quiet clip">{job.data.value?.why_waiting}</span>;
}
