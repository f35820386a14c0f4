import type { ComponentChildren } from "preact";
import { call, jobPath, query } from "../api.ts";
import { bytes, duration } from "../format.ts";
import { Facts } from "../parts/facts.tsx";
import { Loading, Trouble } from "../parts/notice.tsx";
import { Time } from "../parts/time.tsx";
import { usePolled } from "../polled.ts";
import type { Evidence, ProcessFacts } from "../types.ts";

const SAMPLES_SHOWN = 30;

/** An evidence bundle, read out of its JSON. */
export function EvidenceView({ jobId, attempt }: { jobId: string; attempt: number }) {
  const path = jobPath(jobId, `/evidence${query({ attempt })}`);
  const asked = usePolled(path, (stop) => call<Evidence>(path, { signal: stop }), { pauseMs: () => null });
  const found = asked.data.value;
  if (!found) return asked.error.value ? <Trouble error={asked.error.value} /> : <Loading what="the evidence" />;
  return (
    <div class="evidence">
      <p>{found.reason}</p>
      <p class="quiet">
        Seen <Time at={found.saved_at} />, first process {found.pid}. <a href={path}>The whole bundle as JSON</a>
      </p>
      {found.dialogs.map((one, index) => (
        <p key={index} class="notice bad">
          A window waits for a click: {one.title} {one.text}
        </p>
      ))}
      {found.last_lines.length > 0 && (
        <Part title="What it printed last">
          <pre class="lines" tabIndex={0} aria-label="What it printed last">
            {found.last_lines.join("\n")}
          </pre>
        </Part>
      )}
      {found.processes.length > 0 && <Part title="Its processes"><Processes processes={found.processes} /></Part>}
      {found.samples.length > 0 && <Part title="What they did between two looks"><Samples samples={found.samples} /></Part>}
      {found.machine && (
        <Part title="The machine">
          <Facts
            facts={[
              ["Memory free", `${bytes(found.machine.memory_available_bytes)} of ${bytes(found.machine.memory_bytes)}`],
              ["Disk free", `${bytes(found.machine.disk_free_bytes)} of ${bytes(found.machine.disk_bytes)}`],
              ["Swap used", bytes(found.machine.swap_used_bytes)],
            ]}
          />
        </Part>
      )}
      {found.gpu && <Part title="The GPU"><pre class="lines" tabIndex={0} aria-label="The GPU">{JSON.stringify(found.gpu, null, 2)}</pre></Part>}
      {Object.keys(found.missing).length > 0 && (
        <Part title="What could not be read">
          <Facts facts={Object.entries(found.missing)} />
        </Part>
      )}
    </div>
  );
}

function Part({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <>
      <h3>{title}</h3>
      {children}
    </>
  );
}

function Processes({ processes }: { processes: ProcessFacts[] }) {
  return (
    <Table name="Processes" heads={["Process", "State", "CPU time", "Memory", "Threads", "Waits in"]}>
      {processes.map((one) => (
        <tr key={one.pid}>
          <th scope="row">
            {one.pid} {one.name}
            {one.command && <span class="quiet mono block">{one.command}</span>}
          </th>
          <td>{one.state}</td>
          <td class="number">{one.cpu_seconds === null ? "–" : duration(one.cpu_seconds)}</td>
          <td class="number">{one.resident_bytes === null ? "–" : bytes(one.resident_bytes)}</td>
          <td class="number">{one.threads ?? "–"}</td>
          <td class="mono">{one.waits_in}</td>
        </tr>
      ))}
    </Table>
  );
}

const COLUMNS = ["at", "cpu_seconds", "io_bytes", "printed_bytes", "output_growth_bytes", "resident_bytes", "processes", "gpu_percent"];

function Samples({ samples }: { samples: Record<string, unknown>[] }) {
  const shown = samples.slice(-SAMPLES_SHOWN);
  const columns = COLUMNS.filter((name) => shown.some((sample) => typeof sample[name] === "number"));
  return (
    <Table name="Samples" heads={columns.map(headOf)}>
      {shown.map((sample, index) => (
        <tr key={index}>
          {columns.map((name) => (
            <td key={name} class="number">
              {cell(name, sample[name])}
            </td>
          ))}
        </tr>
      ))}
    </Table>
  );
}

function headOf(name: string): string {
  if (name === "at") return "After";
  if (name === "cpu_seconds") return "CPU time";
  return name.replace(/_bytes$|_percent$/, "").replaceAll("_", " ");
}

function cell(name: string, value: unknown): string {
  if (typeof value !== "number") return "–";
  if (name.endsWith("_bytes")) return bytes(value);
  return name === "at" || name.endsWith("_seconds") ? duration(value) : String(value);
}

function Table({ name, heads, children }: { name: string; heads: string[]; children: ComponentChildren }) {
  return (
    <div class="wide" tabIndex={0} role="region" aria-label={name}>
      <table>
        <thead>
          <tr>
            {heads.map((head) => (
              <th key={head} scope="col">
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>{children}</tbody>
      </table>
    </div>
  );
}
