import { duration } from "../format.ts";
import { bytes } from "../format.ts";
import { Card } from "../parts/card.tsx";
import { Copy } from "../parts/copy.tsx";
import { Facts } from "../parts/facts.tsx";
import { Time } from "../parts/time.tsx";
import { href } from "../router.ts";
import type { JobDetail } from "../types.ts";

export function JobFacts({ job }: { job: JobDetail }) {
  const last = job.attempts?.at(-1);
  return (
    <Card title="About">
      <Facts
        facts={[
          ["Processor", `${job.processor} (${job.pool}, ${job.priority} priority)`],
          ["Owner", job.owner],
          ["Source", <span class="mono">{job.source}</span>],
          ["Target", <span class="mono">{job.target}</span>],
          ["Inputs", job.input_bytes ? bytes(job.input_bytes) : null],
          ["Attempt", job.attempt || "none yet"],
          ["Runs on", last?.agent_id],
          ["Machine", machineWords(last?.machine)],
          ["Release", job.release],
          ["Time limit", job.time_limit_seconds ? duration(job.time_limit_seconds) : null],
          ["Created", <Time at={job.timestamps.created} />],
          ["Started", job.timestamps.started ? <Time at={job.timestamps.started} /> : null],
          ["Finished", job.timestamps.finished ? <Time at={job.timestamps.finished} /> : null],
          ["Replaces", job.replaces ? <a href={href(["job", job.replaces])}>{job.replaces}</a> : null],
          ["Trace", job.trace_id ? <><span class="mono">{job.trace_id}</span> <Copy text={job.trace_id} what="trace id" /></> : null],
          ...Object.entries(job.tags).map(([key, value]): [string, string] => [`Tag ${key}`, value]),
        ]}
      />
    </Card>
  );
}

function machineWords(machine: NonNullable<JobDetail["attempts"]>[number]["machine"] | undefined): string {
  return [machine?.instance_type, machine?.instance_id, machine?.ami_id].filter(Boolean).join(", ");
}

export function Settings({ job }: { job: JobDetail }) {
  const settings = Object.entries(job.settings);
  return (
    <Card title="Settings">
      {settings.length === 0 && <p class="quiet">The program's defaults.</p>}
      <Facts hasLongNames facts={settings.map(([key, value]) => [key, shown(value)])} />
    </Card>
  );
}

function shown(value: unknown): string {
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" || typeof value === "number" ? String(value) : JSON.stringify(value);
}
