import { useSignal } from "@preact/signals";
import { words } from "../format.ts";
import { Card } from "../parts/card.tsx";
import { Time } from "../parts/time.tsx";
import type { Failure, JobDetail } from "../types.ts";
import { EvidenceView } from "./evidence.tsx";

/** Each attempt that failed, and what was seen of its program before it was ended. */
export function Failures({ job }: { job: JobDetail }) {
  if (job.failures.length === 0) return null;
  return (
    <Card title="Failed attempts">
      <ol class="failures">
        {job.failures.map((failure, index) => (
          <FailedAttempt key={index} jobId={job.job_id} failure={failure} />
        ))}
      </ol>
    </Card>
  );
}

function FailedAttempt({ jobId, failure }: { jobId: string; failure: Failure }) {
  const isOpen = useSignal(false);
  return (
    <li>
      <p>
        <strong>
          Attempt {failure.attempt}: {words(failure.failure_class)}
        </strong>{" "}
        {failure.reason}
      </p>
      <p class="quiet">
        <Time at={failure.at} />
        {failure.agent_id ? ` on ${failure.agent_id}` : ""}
        {failure.exit_code !== null ? `, exit code ${failure.exit_code}` : ""}
      </p>
      {failure.has_evidence && (
        <details onToggle={(event) => (isOpen.value = event.currentTarget.open)}>
          <summary>Evidence of attempt {failure.attempt}</summary>
          {isOpen.value && <EvidenceView jobId={jobId} attempt={failure.attempt} />}
        </details>
      )}
    </li>
  );
}
