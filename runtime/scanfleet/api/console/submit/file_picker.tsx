import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { bytes, count } from "../format.ts";
import { fromDrop, fromList, merged, topFolder, type ChosenFile } from "./chosen_files.ts";

const SHOWN = 100;

/** Choose files or a folder, or drop them here. */
export function FilePicker({
  files,
  kinds,
  onChange,
}: {
  files: ChosenFile[];
  kinds: string;
  /** `folder`: the name of the one folder that was chosen. */
  onChange: (files: ChosenFile[], folder: string | null) => void;
}) {
  const isOver = useSignal(false);
  const single = useRef<HTMLInputElement>(null);
  const folder = useRef<HTMLInputElement>(null);
  const take = (input: HTMLInputElement) => {
    if (input.files?.length) onChange(merged(files, fromList(input.files)), topFolder(input.files));
    input.value = ""; // the same file may be chosen again
  };
  const drop = async (event: DragEvent) => {
    event.preventDefault();
    isOver.value = false;
    if (!event.dataTransfer) return;
    const found = await fromDrop(event.dataTransfer.items);
    onChange(merged(files, found.files), found.folder);
  };
  return (
    <>
      <div
        class={`drop ${isOver.value ? "over" : ""}`}
        onDragOver={(event) => {
          event.preventDefault();
          isOver.value = true;
        }}
        onDragLeave={() => (isOver.value = false)}
        onDrop={(event) => void drop(event)}
      >
        <p>Drop files or a folder here</p>
        <div class="row center">
          <button type="button" onClick={() => single.current?.click()}>
            Choose files
          </button>
          <button type="button" onClick={() => folder.current?.click()}>
            Choose a folder
          </button>
        </div>
        <p class="quiet">{kinds}</p>
        <input ref={single} type="file" multiple hidden aria-label="Files" onChange={(event) => take(event.currentTarget)} />
        <input
          ref={folder}
          type="file"
          hidden
          aria-label="Folder"
          onChange={(event) => take(event.currentTarget)}
          {...{ webkitdirectory: true }}
        />
      </div>
      <ChosenList files={files} onChange={(left) => onChange(left, null)} />
    </>
  );
}

function ChosenList({ files, onChange }: { files: ChosenFile[]; onChange: (files: ChosenFile[]) => void }) {
  if (files.length === 0) return null;
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  return (
    <>
      <p class="row" role="status">
        {count(files.length, "file")}, {bytes(total)}
        <button type="button" class="small" onClick={() => onChange([])}>
          Remove all
        </button>
      </p>
      <ul class="files" aria-label="Chosen files">
        {files.slice(0, SHOWN).map((one) => (
          <li key={one.path}>
            <span class="file-name">{one.path}</span>
            <span class="row">
              <span class="quiet number">{bytes(one.file.size)}</span>
              <button
                type="button"
                class="small"
                aria-label={`Remove ${one.path}`}
                onClick={() => onChange(files.filter((other) => other !== one))}
              >
                Remove
              </button>
            </span>
          </li>
        ))}
      </ul>
      {files.length > SHOWN && <p class="quiet">… and {count(files.length - SHOWN, "other file")}</p>}
    </>
  );
}
