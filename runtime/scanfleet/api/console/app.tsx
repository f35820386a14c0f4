// The frame around every place of the console.

import { connection } from "./live.ts";
import { href, place } from "./router.ts";
import { ThemeToggle } from "./theme_choice.tsx";
import { CloudView } from "./views/cloud.tsx";
import { FleetView } from "./views/fleet.tsx";
import { JobView } from "./views/job.tsx";
import { JobsView } from "./views/jobs.tsx";
import { SubmitView } from "./views/submit.tsx";
import { Heading } from "./parts/page.tsx";

const PLACES = [
  ["jobs", "Jobs"],
  ["fleet", "Fleet"],
  ["submit", "Submit"],
] as const;

export function App() {
  const here = place.value.parts[0] ?? "jobs";
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to content
      </a>
      <header>
        <a class="brand" href={href(["jobs"])}>
          <img src="/pages/icon.svg" alt="" width="24" height="24" />
          Scanfleet
        </a>
        <nav aria-label="Console">
          {PLACES.map(([name, title]) => (
            <a key={name} href={href([name])} aria-current={isIn(name, here) ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <div class="row end">
          <ConnectionSign />
          <ThemeToggle />
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        <Place />
      </main>
      <footer>
        <a href="/docs">API</a>
        <a href="/pages/licences.txt">Licences</a>
      </footer>
    </>
  );
}

/** The link's own target would be taken for a place. */
function skip(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function isIn(name: string, here: string): boolean {
  return name === here || (name === "jobs" && here === "job");
}

function Place() {
  const [name = "jobs", id, view] = place.value.parts;
  if (name === "jobs") return <JobsView />;
  if (name === "fleet") return <FleetView />;
  if (name === "submit") return <SubmitView />;
  if (name === "job" && id && view === "points") return <CloudView key={id} jobId={id} />;
  if (name === "job" && id) return <JobView key={id} jobId={id} />;
  return (
    <>
      <Heading title="No such page" />
      <p>
        There is nothing here. <a href={href(["jobs"])}>All jobs</a>
      </p>
    </>
  );
}

const SIGNS = {
  live: ["Live", "Changes are shown as they happen."],
  polling: ["Polling", "Changes are shown every few seconds."],
  offline: ["Offline", "The API does not answer; what is shown may be old."],
} as const;

function ConnectionSign() {
  const [word, title] = SIGNS[connection.value];
  return (
    <span class={`sign ${connection.value}`} role="status" aria-label={`Connection: ${word}`} title={title}>
      {word}
    </span>
  );
}
