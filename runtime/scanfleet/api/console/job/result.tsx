import { useSignal } from "@preact/signals";
import { useEffect, useId, useMemo } from "preact/hooks";
import { readLink, saveLink, sentence } from "../api.ts";
import { bytes, count } from "../format.ts";
import { Card } from "../parts/card.tsx";
import { Notice } from "../parts/notice.tsx";
import { href } from "../router.ts";
import type { JobDetail, PublishedFile } from "../types.ts";

const PREVIEWS_SHOWN = 6;
const FILES_AT_ONCE = 50;
const PICTURE = /\.(png|jpe?g|webp)$/i;
const POINTS = /\.ply$/i;

/** What the job published: pictures, points, every file. */
export function ResultCard({ job }: { job: JobDetail }) {
  const result = job.result;
  if (!result) return null;
  const files = result.manifest?.files ?? [];
  const clouds = files.filter((file) => POINTS.test(file.key));
  return (
    <Card title="Results" aside={<span class="quiet">{count(result.files, "file")}, {bytes(result.size_bytes)}</span>}>
      {clouds.length > 0 && (
        <p class="row">
          {clouds.slice(0, 3).map((file) => (
            <a key={file.key} class="button main" href={href(["job", job.job_id, "points"], { file: file.key })}>
              View the points of {file.key}
            </a>
          ))}
        </p>
      )}
      <Previews key={result.attempt} job={job} files={files.filter((file) => PICTURE.test(file.key)).slice(0, PREVIEWS_SHOWN)} />
      {result.manifest ? (
        <Files job={job} files={files} isCut={result.manifest.is_truncated} />
      ) : (
        <p class="quiet">The list of files is no longer kept. They are in {job.target}</p>
      )}
    </Card>
  );
}

function Previews({ job, files }: { job: JobDetail; files: PublishedFile[] }) {
  if (files.length === 0) return null;
  return (
    <div class="previews">
      {files.map((file) => (
        <Preview key={file.key} uri={job.target + file.key} name={file.key} />
      ))}
    </div>
  );
}

function Preview({ uri, name }: { uri: string; name: string }) {
  const url = useSignal<string | null>(null);
  useEffect(() => {
    const stop = new AbortController();
    readLink(uri, stop.signal).then(
      (link) => (url.value = link.url),
      () => undefined, // the file is in the list below; there the failure is told
    );
    return () => stop.abort();
  }, [uri]);
  return (
    <figure>
      {url.value ? (
        <a href={url.value} target="_blank" rel="noreferrer">
          <img src={url.value} alt={`Preview ${name}`} />
        </a>
      ) : (
        <div class="placeholder" />
      )}
      <figcaption class="quiet">{name}</figcaption>
    </figure>
  );
}

function Files({ job, files, isCut }: { job: JobDetail; files: PublishedFile[]; isCut: boolean }) {
  const shown = useSignal(FILES_AT_ONCE);
  const wanted = useSignal("");
  const id = useId();
  const fitting = useMemo(
    () => files.filter((file) => file.key.toLowerCase().includes(wanted.value.toLowerCase())),
    [files, wanted.value],
  );
  return (
    <>
      {files.length > FILES_AT_ONCE && (
        <div class="row">
          <label for={id}>Find a file</label>
          <input id={id} value={wanted.value} onInput={(event) => (wanted.value = event.currentTarget.value)} />
          <span class="quiet" role="status">{count(fitting.length, "file")}</span>
        </div>
      )}
      <ul class="files" aria-label="Files">
        {fitting.slice(0, shown.value).map((file) => (
          <FileRow key={file.key} uri={job.target + file.key} file={file} />
        ))}
      </ul>
      {fitting.length > shown.value && (
        <button type="button" onClick={() => (shown.value += FILES_AT_ONCE * 4)}>
          Show more of {count(fitting.length, "file")}
        </button>
      )}
      {isCut && <p class="quiet">The first {count(files.length, "file")} are listed; the manifest in the target folder names all.</p>}
    </>
  );
}

function FileRow({ uri, file }: { uri: string; file: PublishedFile }) {
  const problem = useSignal<string | null>(null);
  const download = async () => {
    problem.value = null;
    try {
      const link = document.createElement("a");
      link.href = (await saveLink(uri)).url;
      link.rel = "noreferrer";
      link.click(); // the answer is an attachment: the page stays
    } catch (error) {
      problem.value = sentence(error);
    }
  };
  return (
    <li>
      <button type="button" class="link" aria-label={`Download ${file.key}`} onClick={download}>
        {file.key}
      </button>
      <span class="quiet number">{bytes(file.size_bytes)}</span>
      {problem.value && <Notice bad>{problem.value}</Notice>}
    </li>
  );
}
