import { useComputed, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { call, query } from "../api.ts";
import { count, duration, hasEnded, isRunning, jobName, percent, range } from "../format.ts";
import { pollMs, watch } from "../live.ts";
import { Bar } from "../parts/bar.tsx";
import { Heading } from "../parts/page.tsx";
import { Loading, Trouble } from "../parts/notice.tsx";
import { State } from "../parts/state.tsx";
import { Time } from "../parts/time.tsx";
import { usePolled } from "../polled.ts";
import { href, place } from "../router.ts";
import type { JobPage, JobSummary, Load } from "../types.ts";
import { Filters, filtersOf, type Chosen } from "./job_filters.tsx";
import { WhyWaiting } from "./why_waiting.tsx";

const PAGE = 50;
const MOST_ANSWERS = 10;
const LOAD_EVERY_MS = 5000;
/** Each costs a call of its own. */
const REASONS_SHOWN = 5;
const NEW_JOBS_WAIT_MS = 700;

export function JobsView() {
  const chosen = filtersOf(place.value.query);
  const path = JSON.stringify(chosen);
  const page = usePolled(path, (stop) => fullPage(chosen, stop), { pauseMs: pollMs });
  const changed = useChanges(path, chosen, page.data.value, page.refresh);
  const jobs = page.data.value?.jobs.map((job) => changed.get(job.job_id) ?? job);
  return (
    <>
      <div class="title-row">
        <Heading title="Jobs" />
        <a class="button main" href={href(["submit"])}>
          Submit a job
        </a>
      </div>
      <LoadLine />
      <Filters chosen={chosen} />
      <Trouble error={page.error.value} />
      {jobs === undefined ? page.error.value ? null : <Loading what="jobs" /> : <List jobs={jobs} chosen={chosen} goesOn={page.data.value?.next_cursor !== null} />}
      <Paging chosen={chosen} next={page.data.value?.next_cursor ?? null} />
    </>
  );
}

/** Ask until the page is full: one answer looks at a bounded number of jobs, so it may be short and go on. */
async function fullPage(chosen: Chosen, stop: AbortSignal): Promise<JobPage> {
  const found: JobPage = { jobs: [], next_cursor: chosen.cursor || null };
  for (let asked = 0; asked < MOST_ANSWERS; asked += 1) {
    const rest = { cursor: found.next_cursor, limit: PAGE - found.jobs.length };
    const page = await call<JobPage>(`/jobs${query({ ...chosen, ...rest })}`, { signal: stop });
    found.jobs.push(...page.jobs);
    found.next_cursor = page.next_cursor;
    if (page.next_cursor === null || found.jobs.length >= PAGE) break;
  }
  return found;
}

/** Jobs as events have changed them since the page was asked for. A new job makes the page be asked again. */
function useChanges(path: string, chosen: Chosen, shown: JobPage | null, refresh: () => void): Map<string, JobSummary> {
  const changed = useSignal(new Map<string, JobSummary>());
  const known = useRef<Set<string>>(new Set());
  const page = useRef(shown);
  page.current = shown;
  known.current = new Set(shown?.jobs.map((job) => job.job_id));
  useEffect(() => {
    changed.value = new Map();
  }, [path, shown]);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const end = watch("", (job) => {
      if (known.current.has(job.job_id)) changed.value = new Map(changed.value).set(job.job_id, job);
      else if (!chosen.cursor && fits(job, chosen) && isNewer(job, page.current)) {
        timer ??= setTimeout(() => {
          timer = undefined;
          refresh();
        }, NEW_JOBS_WAIT_MS);
      }
    });
    return () => {
      end();
      clearTimeout(timer);
    };
  }, [path]);
  return changed.value;
}

/** Whether the job belongs on this page; ids sort by creation. Of a full page, older jobs are on the next one. */
function isNewer(job: JobSummary, page: JobPage | null): boolean {
  const last = page?.jobs.at(-1);
  return !page?.next_cursor || last === undefined || job.job_id > last.job_id;
}

function fits(job: JobSummary, { status, owner, tag }: Chosen): boolean {
  if (owner && job.owner !== owner) return false;
  if (tag && !Object.entries(job.tags).some(([key, value]) => `${key}:${value}` === tag)) return false;
  return status === "all" || (status === "active" ? !hasEnded(job.status) : job.status === status);
}

function LoadLine() {
  const load = usePolled("load", (stop) => call<Load>("/status/load", { signal: stop }), {
    pauseMs: () => LOAD_EVERY_MS,
  });
  const text = useComputed(() =>
    Object.entries(load.data.value?.pools ?? {})
      .filter(([, pool]) => pool.agents || pool.backlog)
      .map(([name, pool]) => `${name}: ${pool.busy} of ${count(pool.slots, "slot")} busy, ${pool.backlog} waiting`)
      .join(" · "),
  );
  return (
    <p class="quiet">
      {text} {text.value && <a href={href(["fleet"])}>See the fleet</a>}
    </p>
  );
}

function List({ jobs, chosen, goesOn }: { jobs: JobSummary[]; chosen: Chosen; goesOn: boolean }) {
  if (jobs.length === 0) return <Nothing chosen={chosen} goesOn={goesOn} />;
  const waiting = jobs.filter((job) => job.status === "queued").slice(-REASONS_SHOWN);
  return (
    <ul class="jobs" aria-label="Jobs">
      {jobs.map((job) => (
        <Row key={job.job_id} job={job} showsReason={waiting.includes(job)} />
      ))}
    </ul>
  );
}

function Nothing({ chosen, goesOn }: { chosen: Chosen; goesOn: boolean }) {
  const isFiltered = chosen.owner || chosen.tag || !["active", "all"].includes(chosen.status);
  return (
    <div class="empty">
      <p>
        {goesOn
          ? "No job of those looked at fits these filters; older ones may."
          : isFiltered
            ? "No job fits these filters."
            : chosen.status === "all"
              ? "There are no jobs yet."
              : "No job waits or runs."}
      </p>
      <p class="row center">
        {chosen.status !== "all" && <a href={href(["jobs"], { status: "all" })}>Show all jobs</a>}
        <a href={href(["submit"])}>Submit a job</a>
      </p>
    </div>
  );
}

function Row({ job, showsReason }: { job: JobSummary; showsReason: boolean }) {
  return (
    <li class="job">
      <a class="name" href={href(["job", job.job_id])}>
        {jobName(job)}
      </a>
      <State job={job} />
      <span class="what">
        <Doing job={job} showsReason={showsReason} />
      </span>
      <span class="quiet who">
        {job.processor} · {job.owner} · <Time at={job.timestamps.created} relative />
        {Object.entries(job.tags).map(([key, value]) => (
          <a key={key} class="tag" href={href(["jobs"], { status: "all", tag: `${key}:${value}` })}>
            {key}: {value}
          </a>
        ))}
      </span>
    </li>
  );
}

/** What a job does now, or why it does not. */
function Doing({ job, showsReason }: { job: JobSummary; showsReason: boolean }) {
  if (isRunning(job.status)) {
    const name = jobName(job);
    return (
      <>
        <Bar value={job.progress_percent} label={`Progress of ${name}`} />
        <span class="quiet">
          {percent(job.progress_percent)}
          {job.stage ? ` · ${job.stage}` : ""}
          {job.eta ? ` · ${range(job.eta)} left` : ""}
        </span>
      </>
    );
  }
  if (job.status === "queued" && showsReason) return <WhyWaiting jobId={job.job_id} />;
  if (job.status === "failed") return <span class="quiet clip">{job.failure?.reason}</span>;
  if (job.status === "completed" && job.timestamps.finished) {
    return (
      <span class="quiet">
        ran {ran(job.timestamps)}, finished <Time at={job.timestamps.finished} relative />
      </span>
    );
  }
  return null;
}

/** How long the last attempt ran. */
function ran({ started, finished }: JobSummary["timestamps"]): string {
  return started && finished ? duration((Date.parse(finished) - Date.parse(started)) / 1000) : "";
}

function Paging({ chosen, next }: { chosen: Chosen; next: string | null }) {
  const { cursor, ...filters } = chosen;
  if (!cursor && next === null) return null;
  return (
    <nav class="row center paging" aria-label="Pages">
      {cursor && <a href={href(["jobs"], filters)}>Newest jobs</a>}
      {next !== null && <a href={href(["jobs"], { ...filters, cursor: next })}>Older jobs</a>}
    </nav>
  );
}
