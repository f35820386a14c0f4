import { useId, useLayoutEffect, useRef } from "preact/hooks";

interface Question {
  title: string;
  text: string;
  yes: string;
  no: string;
  isDangerous?: boolean;
  onYes: () => void;
  onClose: () => void;
}

/**
 * Asks before something is done. The browser's own modal dialog keeps the focus and is cancelled by Esc.
 *
 * Each answer closes it at once. The browser's own closing would tell of it later only: a key pressed in
 * between, which asks again, would find the question still open and be lost.
 */
export function Confirm({ title, text, yes, no, isDangerous = false, onYes, onClose }: Question) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useLayoutEffect(() => {
    const shown = dialog.current;
    const before = document.activeElement as HTMLElement | null;
    shown?.showModal();
    return () => {
      shown?.close(); // while it is open, nothing outside of it takes the focus
      before?.focus();
    };
  }, []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby={`${id}-title`}
      aria-describedby={`${id}-text`}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
      onClose={(event) => event.currentTarget.isConnected && onClose()}
    >
      <h2 id={`${id}-title`}>{title}</h2>
      <p id={`${id}-text`}>{text}</p>
      <div class="row end">
        <button type="button" onClick={onClose}>
          {no}
        </button>
        <button
          type="button"
          class={isDangerous ? "danger" : "main"}
          onClick={() => {
            onYes();
            onClose();
          }}
        >
          {yes}
        </button>
      </div>
    </dialog>
  );
}
