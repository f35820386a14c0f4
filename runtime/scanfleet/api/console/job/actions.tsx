import { useSignal } from "@preact/signals";
import { ApiError, call, jobPath, sentence } from "../api.ts";
import { hasEnded } from "../format.ts";
import { Confirm } from "../parts/confirm.tsx";
import { Trouble } from "../parts/notice.tsx";
import type { JobDetail } from "../types.ts";

type Verb = "cancel" | "retry";

const QUESTIONS: Record<Verb, { title: string; text: string; yes: string }> = {
  cancel: {
    title: "Cancel this job?",
    text: "Its program is stopped and its results are not kept. It can be retried later, from the start.",
    yes: "Cancel the job",
  },
  retry: {
    title: "Retry this job?",
    text: "It goes back into the queue with the same inputs and settings; its earlier failures no longer count.",
    yes: "Retry the job",
  },
};

/** Cancel and retry, each after a question. */
export function Actions({ job, refresh }: { job: JobDetail; refresh: () => void }) {
  const asked = useSignal<Verb | null>(null);
  const busy = useSignal<Verb | null>(null);
  const error = useSignal<ApiError | null>(null);
  const act = async (verb: Verb) => {
    busy.value = verb;
    error.value = null;
    try {
      await call(jobPath(job.job_id, `/${verb}`), { method: "POST" });
      refresh();
    } catch (problem) {
      error.value = problem instanceof ApiError ? problem : new ApiError(sentence(problem), -1);
    } finally {
      busy.value = null;
    }
  };
  const canCancel = !hasEnded(job.status) && !job.cancel_requested;
  const canRetry = job.status === "failed" || job.status === "cancelled";
  return (
    <div class="row">
      {!hasEnded(job.status) && (
        <button type="button" disabled={!canCancel || busy.value !== null} onClick={() => (asked.value = "cancel")}>
          {job.cancel_requested ? "Cancelling…" : "Cancel"}
        </button>
      )}
      {canRetry && (
        <button type="button" class="main" disabled={busy.value !== null} onClick={() => (asked.value = "retry")}>
          Retry
        </button>
      )}
      {asked.value && (
        <Confirm
          {...QUESTIONS[asked.value]}
          no="Keep it as it is"
          isDangerous={asked.value === "cancel"}
          onYes={() => asked.value && void act(asked.value)}
          onClose={() => (asked.value = null)}
        />
      )}
      <Trouble error={error.value} />
    </div>
  );
}
