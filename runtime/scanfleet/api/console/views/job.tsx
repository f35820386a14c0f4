import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { call, jobPath } from "../api.ts";
import { count, duration, hasEnded, isRunning, jobName, percent, range, words } from "../format.ts";
import { pollMs, watch } from "../live.ts";
import { Actions } from "../job/actions.tsx";
import { JobFacts, Settings } from "../job/about.tsx";
import { Failures } from "../job/failures.tsx";
import { JobLog } from "../job/log.tsx";
import { ReceiptCard } from "../job/receipt.tsx";
import { ResultCard } from "../job/result.tsx";
import { Timeline } from "../job/timeline.tsx";
import { UsageCard } from "../job/usage.tsx";
import { Bar } from "../parts/bar.tsx";
import { Copy } from "../parts/copy.tsx";
import { Loading, Notice, Trouble } from "../parts/notice.tsx";
import { Heading } from "../parts/page.tsx";
import { State } from "../parts/state.tsx";
import { usePolled } from "../polled.ts";
import { href } from "../router.ts";
import type { JobDetail, JobSummary } from "../types.ts";

/** A program may report many times a second; the whole job is asked for this often at most. */
const DETAIL_EVERY_MS = 1500;
const ENDED_EVERY_MS = 30_000;

export function JobView({ jobId }: { jobId: string }) {
  const current = useRef<JobDetail | null>(null);
  const polled = usePolled(jobId, (stop) => call<JobDetail>(jobPath(jobId), { signal: stop }), {
    pauseMs: () => (current.current && hasEnded(current.current.status) ? ENDED_EVERY_MS : pollMs()),
  });
  const changed = useSignal<JobSummary | null>(null);
  useEffect(() => {
    changed.value = null;
  }, [polled.data.value]);
  useChanges(jobId, changed, polled.refresh);
  const detail = polled.data.value;
  const job = detail && changed.value ? { ...detail, ...changed.value } : detail;
  current.current = job;
  if (!job) {
    return (
      <>
        <Heading title="Job" />
        {polled.error.value ? <Trouble error={polled.error.value} /> : <Loading what="the job" />}
        <a href={href(["jobs"])}>All jobs</a>
      </>
    );
  }
  return (
    <>
      <Trouble error={polled.error.value} />
      <Head job={job} refresh={polled.refresh} />
      <div class="columns">
        <div>
          <Timeline job={job} />
          <Failures job={job} />
          {job.result && <ResultCard job={job} />}
          <JobLog job={job} />
        </div>
        <div>
          <UsageCard job={job} />
          <JobFacts job={job} />
          <Settings job={job} />
          <ReceiptCard key={`${job.status}${job.attempt}`} job={job} />
        </div>
      </div>
    </>
  );
}

function useChanges(jobId: string, changed: { value: JobSummary | null }, refresh: () => void): void {
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const end = watch(jobId, (job) => {
      changed.value = job;
      timer ??= setTimeout(
        () => {
          timer = undefined;
          refresh();
        },
        hasEnded(job.status) ? 0 : DETAIL_EVERY_MS,
      );
    });
    return () => {
      end();
      clearTimeout(timer);
    };
  }, [jobId]);
}

function Head({ job, refresh }: { job: JobDetail; refresh: () => void }) {
  const name = jobName(job);
  return (
    <div class="job-head">
      <p class="crumbs">
        <a href={href(["jobs"])}>Jobs</a> / {name !== job.job_id && <span class="mono">{job.job_id}</span>} <Copy text={job.job_id} what="id" />
      </p>
      <div class="title-row">
        <Heading title={name} />
        <Actions job={job} refresh={refresh} />
      </div>
      {/* Read out when the state changes, not at every percent. */}
      <p class="status-line" role="status">
        <State job={job} />
      </p>
      <Progress job={job} />
      {job.quarantined && (
        <Notice bad>Quarantined: it may hurt machines, so nobody runs it again until it is retried.</Notice>
      )}
      {job.superseded_by && (
        <Notice>
          Its results were replaced by <a href={href(["job", job.superseded_by])}>a later job</a>.
        </Notice>
      )}
    </div>
  );
}

function Progress({ job }: { job: JobDetail }) {
  if (job.status === "queued") {
    const why = job.why_waiting ?? "waits for a free slot"; // with its place in the queue
    return (
      <Notice>
        {why[0]?.toUpperCase()}
        {why.slice(1)}.{job.eta && ` Once it runs, it takes ${range(job.eta)}.`}
      </Notice>
    );
  }
  if (isRunning(job.status)) {
    return (
      <>
        <Bar value={job.progress_percent} label="Progress" />
        <p class="quiet">
          {percent(job.progress_percent, 1)}
          {job.stage ? ` · ${job.stage}` : ""}
          {job.eta && (
            <>
              {" · "}
              <strong>{range(job.eta)} left</strong>, as {percent(job.eta.share * 100)} of jobs like it, going by {count(job.eta.runs, "past run")}
            </>
          )}
        </p>
      </>
    );
  }
  if (job.status === "failed" && job.failure) {
    return (
      <Notice bad>
        <strong>{words(job.failure.failure_class)}</strong>: {job.failure.reason}
      </Notice>
    );
  }
  const total = Object.entries(job.durations_seconds).reduce((sum, [, seconds]) => sum + seconds, 0);
  return (
    <p class="quiet">
      {job.status === "completed" ? "Took" : "Ended after"} {duration(total)}, waiting included.
    </p>
  );
}
