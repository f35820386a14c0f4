import { call, jobPath } from "../api.ts";
import { bytes, dollars, duration, hasEnded, words } from "../format.ts";
import { Card } from "../parts/card.tsx";
import { Facts } from "../parts/facts.tsx";
import { usePolled } from "../polled.ts";
import type { Attempt, JobDetail, Receipt } from "../types.ts";

/** What the job took, and about what it cost. Shown once it has ended. */
export function ReceiptCard({ job }: { job: JobDetail }) {
  return hasEnded(job.status) ? <Shown jobId={job.job_id} /> : null;
}

function Shown({ jobId }: { jobId: string }) {
  const path = jobPath(jobId, "/receipt");
  const asked = usePolled(path, (stop) => call<Receipt>(path, { signal: stop }), { pauseMs: () => null });
  const receipt = asked.data.value;
  if (!receipt) return null;
  const { cost } = receipt;
  return (
    <Card title="Receipt" aside={<a href={path}>JSON</a>}>
      {cost && (
        <p class="figure">
          {dollars(cost.usd)} <span class="quiet">estimated</span>
        </p>
      )}
      <Facts
        facts={[
          ["Working", cost ? dollars(cost.busy_usd) : null],
          ["Share of booting", share(cost?.boot_usd, receipt.boot_share_seconds)],
          ["Share of idling", share(cost?.idle_usd, receipt.idle_share_seconds)],
          [cost ? "Price" : "Cost", priceOf(receipt)],
          ["Waited", receipt.queue_seconds === null ? null : duration(receipt.queue_seconds)],
          ["Ran", receipt.run_seconds === null ? null : duration(receipt.run_seconds)],
          ["Downloaded", receipt.bytes_downloaded ? bytes(receipt.bytes_downloaded) : null],
          ["Published", receipt.bytes_published ? bytes(receipt.bytes_published) : null],
        ]}
      />
      {receipt.attempts.length > 1 && (
        <ol class="attempts" aria-label="Attempts">
          {receipt.attempts.map((one) => (
            <AttemptRow key={one.attempt} attempt={one} />
          ))}
        </ol>
      )}
    </Card>
  );
}

function priceOf({ cost, attempts }: Receipt): string {
  if (!cost) return `not known: ${attempts.at(-1)?.why_no_cost ?? "no price of this machine"}`;
  return `${dollars(cost.hourly_usd)} an hour, ${cost.price_as_of ? `as of ${cost.price_as_of}` : "the operator's own"}`;
}

function share(usd: number | undefined, seconds: number | null): string | null {
  if (usd === undefined) return null;
  return seconds === null ? dollars(usd) : `${dollars(usd)} (${duration(seconds)})`;
}

function AttemptRow({ attempt }: { attempt: Attempt }) {
  const cost = typeof attempt.cost_usd === "number" ? `, ${dollars(attempt.cost_usd)}` : "";
  return (
    <li>
      {words(attempt.outcome ?? "running")} on {attempt.agent_id}
      {cost}
      {attempt.why && <span class="quiet block">{attempt.why}</span>}
    </li>
  );
}
