import { useSignal } from "@preact/signals";

/** A button that copies a text. */
export function Copy({ text, what }: { text: string; what: string }) {
  const isDone = useSignal(false);
  const copy = async () => {
    isDone.value = await copied(text);
    setTimeout(() => {
      isDone.value = false;
    }, 2000);
  };
  return (
    <button type="button" class="small" onClick={copy}>
      {isDone.value ? "Copied" : `Copy ${what}`}
    </button>
  );
}

/** Copies; pages that came over plain HTTP have no clipboard of their own, so they copy a selection. */
async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "out-of-sight";
    document.body.append(field);
    field.select();
    const isDone = document.execCommand("copy");
    field.remove();
    return isDone;
  }
}
