import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { call, readLink, jobPath, sentence } from "../api.ts";
import { bytes, count, jobName, percent } from "../format.ts";
import { Bar } from "../parts/bar.tsx";
import { Notice } from "../parts/notice.tsx";
import { Heading } from "../parts/page.tsx";
import { href, place } from "../router.ts";
import type { JobDetail } from "../types.ts";
import type { Cloud, Shading } from "../viewer/ply.ts";
import type { Viewer } from "../viewer/viewer.ts";

interface Loading {
  readBytes: number;
  totalBytes: number | null;
}

/** The merged points of a result, to turn around. The viewer itself is fetched when somebody comes here. */
export function CloudView({ jobId }: { jobId: string }) {
  const file = place.value.query.get("file") ?? "";
  const name = useSignal(jobId);
  const loading = useSignal<Loading | null>({ readBytes: 0, totalBytes: null });
  const problem = useSignal<string | null>(null);
  const cloud = useSignal<Cloud | null>(null);
  const viewer = useSignal<Viewer | null>(null);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const stop = new AbortController();
    const begin = async () => {
      const [code, job] = await Promise.all([
        import("../viewer/viewer.ts"),
        call<JobDetail>(jobPath(jobId), { signal: stop.signal }),
      ]);
      name.value = jobName(job);
      if (!code.hasWebGl()) {
        throw new Error("This browser cannot draw in three dimensions (no WebGL). The file can still be downloaded.");
      }
      const link = await readLink(job.target + file, stop.signal);
      const found = await code.readCloud(link.url, stop.signal, (readBytes, totalBytes) => {
        loading.value = { readBytes, totalBytes };
      });
      if (stop.signal.aborted || !box.current) return;
      cloud.value = found;
      loading.value = null;
      viewer.value = new code.Viewer(box.current, found);
    };
    begin().catch((error: unknown) => {
      if (stop.signal.aborted) return;
      loading.value = null;
      problem.value = sentence(error);
    });
    return () => {
      stop.abort();
      viewer.value?.close();
      viewer.value = null;
    };
  }, [jobId, file]);
  return (
    <div class="cloud">
      <p class="crumbs">
        <a href={href(["jobs"])}>Jobs</a> / <a href={href(["job", jobId])}>{name.value}</a> / {file}
      </p>
      <Heading title={`Points of ${name.value}`} />
      {problem.value && <Notice bad>{problem.value}</Notice>}
      {loading.value && <Progress loading={loading.value} />}
      {cloud.value && viewer.value && <Controls cloud={cloud.value} viewer={viewer.value} />}
      <div
        ref={box}
        class="canvas"
        hidden={cloud.value === null}
        tabIndex={0}
        role="application"
        aria-label="Points in three dimensions. Arrow keys turn, plus and minus zoom, shift with arrow keys moves, F shows everything."
        onKeyDown={(event) => {
          if (viewer.value?.press(event.key, event.shiftKey)) event.preventDefault();
        }}
      />
      {cloud.value && (
        <p class="quiet">
          Drag turns, the wheel or two fingers zoom, the right button or two fingers move. Keys: arrows, + and −, shift
          with arrows, F.
        </p>
      )}
    </div>
  );
}

function Progress({ loading }: { loading: Loading }) {
  const { readBytes, totalBytes } = loading;
  return (
    <>
      <p role="status">Loading the points…</p>
      {totalBytes !== null && <Bar value={readBytes} max={totalBytes} label="Loading the points" />}
      <p class="quiet">
        {bytes(readBytes)}
        {totalBytes ? ` of ${bytes(totalBytes)}, ${percent((100 * readBytes) / totalBytes)}` : ""}
      </p>
    </>
  );
}

const SHADINGS: Record<Shading, string> = { color: "their own colour", light: "light", height: "height" };

function Controls({ cloud, viewer }: { cloud: Cloud; viewer: Viewer }) {
  const size = useSignal(viewer.pointSize);
  const shading = useSignal(viewer.shading);
  return (
    <div class="row controls">
      <span role="status">
        {cloud.shown < cloud.total
          ? `${count(cloud.shown, "point")} of ${cloud.total.toLocaleString("en")} are drawn`
          : count(cloud.total, "point")}
      </span>
      <label>
        Point size{" "}
        <input
          type="range"
          min={1}
          max={10}
          step={0.5}
          value={size.value}
          onInput={(event) => {
            size.value = event.currentTarget.valueAsNumber;
            viewer.setPointSize(size.value);
          }}
        />
      </label>
      <label>
        Shown by{" "}
        <select
          onChange={(event) => {
            shading.value = event.currentTarget.value as Shading;
            viewer.setShading(shading.value);
          }}
        >
          {cloud.shadings.map((one) => (
            <option key={one} value={one} selected={one === shading.value}>
              {SHADINGS[one]}
            </option>
          ))}
        </select>
      </label>
      <button type="button" onClick={() => viewer.fit()}>
        Show everything
      </button>
    </div>
  );
}
