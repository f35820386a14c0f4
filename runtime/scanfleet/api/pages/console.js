// The console: shows what the API says, once a second. Every text from the API goes through textContent.

const POLL_MS = 1000;
const LOG_LINES_KEPT = 2000;
const PREVIEWS_SHOWN = 12;
const RUNNING = new Set(["downloading", "processing", "uploading"]);
const RETRIABLE = new Set(["failed", "cancelled"]);

const byId = (id) => document.getElementById(id);

/** What is on screen: the open job (or null), its log position, and how many list pages were asked for. */
const view = { jobId: null, generation: 0, limit: 50, log: null, attempt: null, lines: [], filesOf: null };

function element(tag, { text, className, title } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

async function call(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? `${path} answered ${answer.status}`);
  return body;
}

const show = (id, isShown) => { byId(id).hidden = !isShown; };

function tell(message, from = "action") {
  byId("trouble").textContent = message ?? "";
  byId("trouble").dataset.from = from;
  show("trouble", Boolean(message));
}


function jobName(job) {
  const folder = job.source.split("/").filter(Boolean).slice(-1)[0];
  return folder === "source" ? job.job_id : folder; // every upload by a client is called source
}

const time = (text) => (text ? new Date(text).toLocaleString() : "–");

function seconds(value) {
  if (value < 60) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours} h ` : ""}${minutes} min ${whole % 60} s`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (bytes >= 1000 && index < units.length - 1) {
    bytes /= 1000;
    index += 1;
  }
  return `${index ? bytes.toFixed(1) : bytes} ${units[index]}`;
}

function progressOf(job) {
  const bar = element("progress");
  bar.max = 100;
  bar.value = job.progress_percent;
  bar.setAttribute("aria-label", "Progress");
  return bar;
}

function stateText(job) {
  const asked = job.cancel_requested && RUNNING.has(job.status) ? " (cancelling)" : "";
  return `${job.status}${asked}`;
}

// --- The list ----------------------------------------------------------------------------------------------

function listedJob(job) {
  const link = element(
    "a",
    { className: "job" },
    element("span", { text: jobName(job), className: "name", title: job.source }),
    element("span", { text: stateText(job), className: `state ${job.status}` }),
    element("span", { text: `${job.processor} · ${time(job.timestamps.created)} · ${job.owner}`, className: "quiet" }),
  );
  link.href = `#${job.job_id}`;
  if (RUNNING.has(job.status)) {
    const stage = job.stage ? `${job.stage}, ` : "";
    link.append(element("span", { text: `${stage}${job.progress_percent.toFixed(0)} %`, className: "quiet" }));
    link.append(progressOf(job));
  }
  if (job.failure && job.status === "failed") {
    link.append(element("span", { text: job.failure.reason, className: "quiet" }));
  }
  return element("li", {}, link);
}

async function drawList(generation) {
  const query = new URLSearchParams({ status: byId("status").value, limit: view.limit });
  const [page, load] = await Promise.all([call(`/jobs?${query}`), call("/status/load")]);
  if (generation !== view.generation) return;
  // Redrawing moves the keyboard's focus away, so give it back.
  const focused = document.activeElement?.closest?.(".job")?.hash;
  byId("jobs").replaceChildren(...page.jobs.map(listedJob));
  if (focused) byId("jobs").querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  show("no-jobs", page.jobs.length === 0);
  show("more", page.next_cursor !== null && view.limit < 200);
  const pools = Object.entries(load.pools).filter(([, pool]) => pool.agents || pool.backlog);
  const suspended = (name) => load.instances.filter((agent) => agent.pool === name && agent.is_suspended).length;
  byId("load").textContent = pools
    .map(([name, pool]) => {
      const out = suspended(name) ? `, ${suspended(name)} of ${pool.agents} machines suspended` : "";
      return `${name}: ${pool.busy} of ${pool.slots} slots busy, ${pool.backlog} waiting${out}`;
    })
    .join(" · ");
}

// --- One job -----------------------------------------------------------------------------------------------

async function presigned(uri) {
  return call(`/presign?${new URLSearchParams({ file: uri, mode: "download" })}`);
}

async function download(uri) {
  try {
    const signed = await presigned(uri);
    const link = element("a");
    link.href = signed.url;
    link.rel = "noreferrer";
    link.target = "_blank";
    link.click();
  } catch (error) {
    tell(error.message);
  }
}

function fileRow(job, file) {
  const button = element("button", { text: file.key });
  button.type = "button";
  button.addEventListener("click", () => download(job.target + file.key));
  return element("li", {}, button, element("span", { text: size(file.size_bytes), className: "quiet" }));
}

async function preview(job, file) {
  const image = element("img");
  image.alt = file.key;
  image.src = (await presigned(job.target + file.key)).url;
  return element("figure", {}, image, element("figcaption", { text: file.key, className: "quiet" }));
}

/** Drawn once a result, since every preview costs a signed URL. */
async function drawFiles(job, generation) {
  const files = job.result?.manifest?.files ?? [];
  show("files-section", job.result !== null);
  const shown = job.result ? `${job.job_id}/${job.result.attempt}` : null;
  if (shown === view.filesOf) return;
  view.filesOf = shown;
  show("previews-section", false);
  if (!job.result) return;
  const more = job.result.manifest?.is_truncated ? `; the first ${files.length} are listed` : "";
  byId("result-summary").textContent =
    `${job.result.files} files, ${size(job.result.size_bytes)}, in ${job.target}${more}`;
  byId("files").replaceChildren(...files.map((file) => fileRow(job, file)));
  const pictures = files.filter((file) => file.key.toLowerCase().endsWith(".png")).slice(0, PREVIEWS_SHOWN);
  const figures = await Promise.all(pictures.map((file) => preview(job, file)));
  if (generation !== view.generation) return;
  byId("previews").replaceChildren(...figures);
  show("previews-section", figures.length > 0);
}

function drawFacts(job) {
  const spent = (times) => Object.entries(times).map(([name, value]) => `${name} ${seconds(value)}`).join(", ");
  const pairs = {
    Job: job.job_id,
    Processor: `${job.processor} (${job.pool}, ${job.priority} priority)`,
    Owner: job.owner,
    Source: job.source,
    Target: job.target,
    Attempt: job.attempt || "none yet",
    Release: job.release ?? "",
    Replaces: job.replaces ?? "",
    "Superseded by": job.superseded_by ?? "",
    Created: time(job.timestamps.created),
    Finished: time(job.timestamps.finished),
    "Seconds by state": spent(job.durations_seconds),
    "Seconds by stage": spent(job.stage_seconds),
    Tags: Object.entries(job.tags).map(([key, value]) => `${key}: ${value}`).join(", "),
    Settings: Object.entries(job.settings).map(([key, value]) => `${key}: ${value}`).join(", "),
  };
  byId("facts").replaceChildren(
    ...Object.entries(pairs)
      .filter(([, value]) => value !== "")
      .flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: String(value) })]),
  );
}

/** An attempt's failure, with what was seen of its program before it was ended. */
function failedAttempt(job, one) {
  const where = one.agent_id ? ` on ${one.agent_id}` : "";
  const row = element("li", { text: `Attempt ${one.attempt}${where}, ${time(one.at)}: ${one.failure_class}: ${one.reason} ` });
  if (one.has_evidence) {
    const link = element("a", { text: "Evidence" });
    link.href = `/job/${encodeURIComponent(job.job_id)}/evidence?attempt=${one.attempt}`;
    row.append(link);
  }
  return row;
}

function drawFailures(job) {
  const hasEvidence = job.failures.some((one) => one.has_evidence);
  byId("failure").textContent = job.failure ? `${job.failure.failure_class.replaceAll("_", " ")}: ${job.failure.reason}` : "";
  show("failure", job.status === "failed");
  byId("failures").replaceChildren(...job.failures.map((one) => failedAttempt(job, one)));
  show("failures-section", hasEvidence || job.failures.length > (job.status === "failed" ? 1 : 0));
  byId("quarantine").textContent =
    `Quarantined since ${time(job.quarantined)}: it may hurt machines, so nobody runs it again until you retry it.`;
  show("quarantine", job.quarantined !== null);
}

async function drawJob(generation) {
  const job = await call(`/job/${encodeURIComponent(view.jobId)}`);
  if (generation !== view.generation) return;
  byId("job-title").replaceChildren(
    document.createTextNode(`${jobName(job)} `),
    element("span", { text: stateText(job), className: `state ${job.status}` }),
  );
  const stage = job.stage ? `${job.stage}, ` : "";
  byId("job-progress").replaceChildren(
    progressOf(job),
    element("p", { text: `${stage}${job.progress_percent.toFixed(1)} %`, className: "quiet" }),
  );
  byId("why").textContent = job.why_waiting ?? "";
  show("why", job.why_waiting !== null);
  byId("cancel").disabled = !(job.status === "queued" || (RUNNING.has(job.status) && !job.cancel_requested));
  byId("retry").disabled = !RETRIABLE.has(job.status);
  drawFacts(job);
  drawFailures(job);
  show("job-view", true);
  await Promise.all([drawFiles(job, generation), drawLog(job, generation)]);
}

async function drawLog(job, generation) {
  if (job.attempt !== view.attempt) Object.assign(view, { attempt: job.attempt, log: null, lines: [] });
  const query = new URLSearchParams(view.log ? { after: view.log } : { tail_lines: LOG_LINES_KEPT });
  if (job.attempt) query.set("attempt", job.attempt);
  const page = await call(`/job/${encodeURIComponent(job.job_id)}/log?${query}`);
  if (generation !== view.generation) return;
  view.log = page.next;
  view.lines = [...view.lines, ...page.lines].slice(-LOG_LINES_KEPT);
  const box = byId("log");
  if (page.lines.length === 0 && box.textContent) return;
  const wasAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.textContent = view.lines.join("\n") || "Nothing yet.";
  if (wasAtEnd) box.scrollTop = box.scrollHeight;
}

async function act(verb) {
  const button = byId(verb);
  button.disabled = true;
  try {
    await call(`/job/${encodeURIComponent(view.jobId)}/${verb}`, { method: "POST" });
    tell(null);
  } catch (error) {
    tell(error.message);
  }
}

// --- Going on ----------------------------------------------------------------------------------------------

function open() {
  view.jobId = location.hash.slice(1) || null;
  view.generation += 1;
  Object.assign(view, { attempt: null, log: null, lines: [], filesOf: null });
  byId("log").textContent = "";
  byId("files").replaceChildren();
  show("list-view", view.jobId === null);
  show("job-view", false); // until its first answer: what it shows is the job before
  tell(null);
  poll(view.generation);
}

async function poll(generation) {
  while (generation === view.generation) {
    // A hidden tab asks for nothing; it is drawn again as soon as somebody looks.
    if (!document.hidden) {
      try {
        await (view.jobId === null ? drawList(generation) : drawJob(generation));
        if (generation === view.generation && byId("trouble").dataset.from === "poll") tell(null);
      } catch (error) {
        if (generation === view.generation) {
          tell(error instanceof TypeError ? "The API does not answer; trying again." : error.message, "poll");
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

byId("status").addEventListener("change", open);
byId("more").addEventListener("click", () => {
  view.limit = 200;
  open();
});
byId("cancel").addEventListener("click", () => act("cancel"));
byId("retry").addEventListener("click", () => act("retry"));
window.addEventListener("hashchange", open);
open();
