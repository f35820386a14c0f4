// Files that somebody chose: by a dialog, as a folder, or dragged here. Each gets a path under the job's folder.

export interface ChosenFile {
  path: string;
  file: File;
}

export const MOST_FILES = 10_000;

/** From an input element: a folder's files keep their place in it. */
export function fromList(list: FileList): ChosenFile[] {
  return Array.from(list, (file) => ({ path: withoutTop(file.webkitRelativePath) || file.name, file }));
}

/** The folder's own name is the job's, so paths start below it. */
function withoutTop(path: string): string {
  return path.split("/").slice(1).join("/");
}

export function topFolder(list: FileList): string | null {
  return list[0]?.webkitRelativePath.split("/")[0] || null;
}

/** From a drop: files, and folders with all that is in them. */
export async function fromDrop(items: DataTransferItemList): Promise<{ files: ChosenFile[]; folder: string | null }> {
  const entries = Array.from(items, (item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  const only = entries.length === 1 && entries[0]?.isDirectory ? entries[0].name : null;
  const files: ChosenFile[] = [];
  for (const entry of entries) await collect(entry, only === null ? entry.name : "", files);
  return { files, folder: only };
}

async function collect(entry: FileSystemEntry, path: string, into: ChosenFile[]): Promise<void> {
  if (into.length >= MOST_FILES) return;
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    into.push({ path: path || file.name, file });
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    // A reader gives a folder in pieces, and nothing once it is through.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const one of some) await collect(one, path ? `${path}/${one.name}` : one.name, into);
  }
}

/** Add files; one of a path that is there already replaces it. */
export function merged(before: readonly ChosenFile[], added: readonly ChosenFile[]): ChosenFile[] {
  const all = new Map(before.map((one) => [one.path, one]));
  for (const one of added) all.set(one.path, one);
  return [...all.values()].slice(0, MOST_FILES);
}

/** A folder name that any S3 key may have: "Tooth 7 (new)" -> "tooth-7-new". */
export function slug(text: string): string {
  const plain = text.normalize("NFKD").replace(/\p{M}/gu, "").replace(/[^\w.-]+/g, "-").replace(/^[-.]+|[-.]+$/g, "");
  return plain.slice(0, 60).toLowerCase() || "job";
}
