import { bytes, duration, isRunning, percent } from "../format.ts";
import { Card } from "../parts/card.tsx";
import type { JobDetail, Usage } from "../types.ts";

/** What the program uses, or used. */
export function UsageCard({ job }: { job: JobDetail }) {
  const usage = job.usage;
  if (!usage) return null;
  return (
    <Card
      title="Usage"
      aside={<span class="quiet">{isRunning(job.status) ? "so far" : "last attempt"}, {duration(usage.seconds)}</span>}
    >
      <dl class="usage">
        {rows(usage).map(([name, main, more]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>
              <strong>{main}</strong>
              {more && <span class="quiet"> {more}</span>}
            </dd>
          </div>
        ))}
      </dl>
    </Card>
  );
}

function rows(usage: Usage): [string, string, string?][] {
  const found: [string, string, string?][] = [];
  if (usage.cpu_percent_mean !== null) found.push(["CPU", cores(usage.cpu_percent_mean), peak(usage.cpu_percent_peak, cores)]);
  if (usage.memory_bytes_mean !== null) {
    found.push(["Memory", bytes(usage.memory_bytes_mean), peak(usage.memory_bytes_peak, bytes)]);
  }
  if (usage.gpu_percent_mean !== null) {
    found.push(["GPU", percent(usage.gpu_percent_mean), peak(usage.gpu_percent_peak, percent)]);
  }
  if (usage.gpu_memory_bytes_peak !== null) found.push(["GPU memory", bytes(usage.gpu_memory_bytes_peak), "peak"]);
  if (usage.io_bytes !== null) found.push(["Read and written", bytes(usage.io_bytes)]);
  if (usage.disk_bytes_peak !== null) found.push(["Disk", bytes(usage.disk_bytes_peak), "peak"]);
  return found;
}

/** Percent of one core -> "3.8 cores". */
const cores = (value: number): string => `${(value / 100).toFixed(1)} cores`;

function peak(value: number | null, shown: (value: number) => string): string {
  return value === null ? "mean" : `mean, ${shown(value)} peak`;
}
