import { useSignal } from "@preact/signals";
import { useId, useMemo } from "preact/hooks";
import { bytes, count, percent } from "../format.ts";
import { Bar } from "../parts/bar.tsx";
import { Card } from "../parts/card.tsx";
import { Notice, Trouble } from "../parts/notice.tsx";
import type { ProcessorFacts, Uploads } from "../types.ts";
import { slug, type ChosenFile } from "./chosen_files.ts";
import { FilePicker } from "./file_picker.tsx";
import { MoreFields, tagsOf, type More } from "./more_fields.tsx";
import type { Order, Sender } from "./sending.ts";
import { SettingsForm, type Values } from "./settings_form.tsx";

interface FormProps {
  processors: ProcessorFacts[];
  uploads: Uploads;
  sender: Sender;
  isSending: boolean;
  onSubmit: (order: Order) => void;
}

export function SubmitForm({ processors, uploads, sender, isSending, onSubmit }: FormProps) {
  const id = useId();
  const files = useSignal<ChosenFile[]>([]);
  const name = useSignal("job");
  // Two jobs of one name must not share a folder: the second would replace the first one's inputs.
  const mark = useMemo(stamp, []);
  const folder = `${slug(name.value)}-${mark}`;
  const isNamed = useSignal(false);
  const chosen = useSignal(processors.find((one) => one.is_default)?.name ?? processors[0]?.name ?? "");
  const values = useSignal<Values>({});
  const more = useSignal<More>({ source: "", target: "", priority: "normal", minutes: "", tags: "", replaces: false });
  const complaint = useSignal<string | null>(null);
  const processor = processors.find((one) => one.name === chosen.value);
  const tooLarge = files.value.filter(({ file }) => file.size > uploads.max_file_bytes);

  const submit = (event: Event) => {
    event.preventDefault();
    const source = more.value.source.trim();
    if (!source && files.value.length === 0) complaint.value = "Choose the files of the job first.";
    else if (tooLarge.length > 0) complaint.value = null;
    else {
      complaint.value = null;
      onSubmit(orderOf(source));
    }
  };
  const orderOf = (source: string): Order => {
    const { target, priority, minutes, tags, replaces } = more.value;
    const settings = Object.fromEntries(Object.entries(values.value).filter(([, value]) => value !== undefined));
    const job: Record<string, unknown> = { processor: chosen.value, settings, priority, tags: tagsOf(tags) };
    if (minutes) job["time_limit_seconds"] = Math.round(Number(minutes) * 60);
    if (replaces) job["replace_results"] = true;
    return { folder, files: files.value, source: source || null, target: target.trim() || null, job };
  };

  return (
    <form class="submit" onSubmit={submit} aria-label="Job">
      <fieldset disabled={isSending} class="plain">
        <Card title="Inputs">
          <FilePicker
            files={files.value}
            kinds={processor ? `${processor.name} reads ${processor.input_kinds}` : ""}
            onChange={(chosenFiles, chosenFolder) => {
              files.value = chosenFiles;
              complaint.value = null;
              if (chosenFolder && !isNamed.value) name.value = slug(chosenFolder);
            }}
          />
          {tooLarge.map(({ path, file }) => (
            <Notice key={path} bad>
              {path} is too large: {bytes(file.size)}; a file may have {bytes(uploads.max_file_bytes)} here.
            </Notice>
          ))}
        </Card>
        <Card title="Job">
          <div class="fields">
            <div>
              <label for={`${id}-name`}>Name</label>
              <input
                id={`${id}-name`}
                required
                maxLength={60}
                value={name.value}
                aria-describedby={`${id}-name-hint`}
                onInput={(event) => {
                  name.value = event.currentTarget.value;
                  isNamed.value = true;
                }}
              />
              <span id={`${id}-name-hint`} class="quiet">
                Its folder: <span class="mono">{uploads.uri + folder}/</span>
              </span>
            </div>
            <div>
              <label for={`${id}-processor`}>Processor</label>
              <select
                id={`${id}-processor`}
                onChange={(event) => {
                  chosen.value = event.currentTarget.value;
                  values.value = {};
                }}
              >
                {processors.map((one) => (
                  <option key={one.name} value={one.name} selected={one.name === chosen.value}>
                    {one.name} ({one.pool})
                  </option>
                ))}
              </select>
            </div>
          </div>
          <MoreFields more={more.value} uploads={uploads} onChange={(changed) => (more.value = changed)} />
        </Card>
        {processor && (
          <Card title="Settings">
            <SettingsForm
              processor={processor}
              values={values.value}
              problems={sender.error.value?.errors ?? []}
              onChange={(changed) => (values.value = changed)}
            />
          </Card>
        )}
      </fieldset>
      {complaint.value && <Notice bad>{complaint.value}</Notice>}
      <Trouble error={sender.error.value} />
      <FailedUploads sender={sender} />
      {isSending ? (
        <Progress sender={sender} files={files.value.length} />
      ) : (
        <button type="submit" class="main large">
          {files.value.length ? "Upload and submit" : "Submit"}
        </button>
      )}
    </form>
  );
}

function FailedUploads({ sender }: { sender: Sender }) {
  if (sender.failed.value.length === 0) return null;
  return (
    <Notice bad>
      {count(sender.failed.value.length, "file")} could not be uploaded. Submitting again sends only these.
      <ul>
        {sender.failed.value.slice(0, 20).map(({ path, reason }) => (
          <li key={path}>
            <strong>{path}</strong>: {reason}
          </li>
        ))}
      </ul>
    </Notice>
  );
}

function Progress({ sender, files }: { sender: Sender; files: number }) {
  const state = sender.state.value;
  if (!state) return null;
  const share = state.totalBytes ? (100 * state.sentBytes) / state.totalBytes : 100;
  return (
    <div class="sending">
      <p role="status">{state.isAsking ? "Submitting the job…" : `Uploading ${count(files, "file")}…`}</p>
      {!state.isAsking && (
        <>
          <Bar value={share} label="Upload" />
          <p class="quiet">
            {percent(share)} · {bytes(state.sentBytes)} of {bytes(state.totalBytes)} · {count(state.done, "file")} done
          </p>
        </>
      )}
      <button type="button" onClick={() => sender.stop()}>
        Stop
      </button>
    </div>
  );
}

/** Example: "1121-184502". */
function stamp(): string {
  const digits = new Date().toISOString().replace(/\D/g, "");
  return `${digits.slice(4, 8)}-${digits.slice(8, 14)}`;
}
