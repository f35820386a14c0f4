import type { ComponentChildren } from "preact";
import { call } from "../api.ts";
import { count } from "../format.ts";
import { Bar } from "../parts/bar.tsx";
import { Card } from "../parts/card.tsx";
import { Facts } from "../parts/facts.tsx";
import { Loading, Trouble } from "../parts/notice.tsx";
import { Heading } from "../parts/page.tsx";
import { Time } from "../parts/time.tsx";
import { usePolled } from "../polled.ts";
import { href } from "../router.ts";
import type { InstanceLoad, Load, PoolLoad } from "../types.ts";

const ASK_EVERY_MS = 3000;

export function FleetView() {
  const load = usePolled("load", (stop) => call<Load>("/status/load", { signal: stop }), {
    pauseMs: () => ASK_EVERY_MS,
  });
  const found = load.data.value;
  return (
    <>
      <Heading title="Fleet" />
      <Trouble error={load.error.value} />
      {!found && !load.error.value && <Loading what="the fleet" />}
      {found && (
        <>
          <div class="tiles">
            {Object.entries(found.pools).map(([name, pool]) => (
              <Pool key={name} name={name} pool={pool} machines={found.instances.filter((one) => one.pool === name)} />
            ))}
          </div>
          <Card title="Machines" aside={<span class="quiet">{count(found.instances.length, "agent")} in service</span>}>
            {found.instances.length === 0 && <p class="empty">No agent has reported in the last 30 seconds.</p>}
            <ul class="machines" aria-label="Machines">
              {found.instances.map((one) => (
                <Machine key={one.agent_id} machine={one} />
              ))}
            </ul>
          </Card>
        </>
      )}
    </>
  );
}

function Pool({ name, pool, machines }: { name: string; pool: PoolLoad; machines: InstanceLoad[] }) {
  const out = machines.filter((one) => condition(one).isBad).length;
  const fleet = pool.fleet;
  return (
    <Card title={name} aside={<span class="quiet">pool</span>}>
      <p class="figure">
        {pool.busy} of {count(pool.slots, "slot")} busy
      </p>
      <Bar value={pool.busy} max={pool.slots} label={`Slots of ${name} that are busy`} />
      <Facts
        facts={[
          ["Waiting", count(pool.backlog, "job")],
          ["Held by agents", count(pool.in_flight, "message")],
          ["Agents", out ? `${pool.agents}, ${out} of them out of service` : String(pool.agents)],
          ["Machines wanted", fleet ? `${fleet.desired} (from ${fleet.minimum} to ${fleet.maximum})` : null],
          ["In service", fleet ? `${fleet.in_service}${fleet.booting ? `, ${fleet.booting} booting` : ""}` : null],
          ["Sampled", fleet ? <Time at={fleet.sampled} relative /> : null],
        ]}
      />
      {fleet && fleet.desired >= fleet.maximum && pool.backlog > 0 && (
        <p class="quiet">The fleet has reached its limit while jobs wait.</p>
      )}
    </Card>
  );
}

function condition(one: InstanceLoad): { word: string; kind: string; isBad: boolean } {
  if (one.is_suspended) return { word: "suspended", kind: "failed", isBad: true };
  if (one.is_stopping) return { word: "draining", kind: "cancelled", isBad: true };
  if (one.is_on_hold) return { word: "on hold", kind: "queued", isBad: true };
  if (one.busy >= one.slots) return { word: "busy", kind: "processing", isBad: false };
  return { word: one.busy ? "has free slots" : "idle", kind: "completed", isBad: false };
}

function Machine({ machine }: { machine: InstanceLoad }) {
  const { word, kind } = condition(machine);
  return (
    <li>
      <div class="title-row">
        <h3>{machine.agent_id}</h3>
        <span class={`state ${kind}`}>{word}</span>
      </div>
      {machine.why_suspended && <p class="notice bad">{machine.why_suspended}</p>}
      <Bar value={machine.busy} max={machine.slots} label={`Slots of ${machine.agent_id} that are busy`} />
      <Facts
        facts={[
          ["Slots", `${machine.busy} of ${machine.slots} busy`],
          ["Pool", machine.pool],
          ["Jobs", jobLinks(machine.job_ids)],
          ["Release", machine.release],
          ["Instance", [machine.instance_id, machine.instance_type].filter(Boolean).join(", ")],
          ["Image", machine.ami_id ?? ""],
          ["GPU driver", machine.driver ?? ""],
          ["Booted", machine.booted ? <Time at={machine.booted} relative /> : null],
          ["Agent started", <Time at={machine.started} relative />],
          ["Last seen", <Time at={machine.seen} relative />],
        ]}
      />
    </li>
  );
}

function jobLinks(ids: string[]): ComponentChildren {
  if (ids.length === 0) return null;
  return (
    <>
      {ids.map((id) => (
        <a key={id} class="mono block" href={href(["job", id])}>
          {id}
        </a>
      ))}
    </>
  );
}
