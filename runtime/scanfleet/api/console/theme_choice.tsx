import { signal } from "@preact/signals";

const KEY = "scanfleet-theme"; // theme.ts reads it before the page is drawn
type Theme = "light" | "dark";

const system = matchMedia("(prefers-color-scheme: dark)");
const theme = signal<Theme>(chosen() ?? (system.matches ? "dark" : "light"));
system.addEventListener("change", () => {
  if (!chosen()) theme.value = system.matches ? "dark" : "light";
});

function chosen(): Theme | null {
  const found = document.documentElement.dataset["theme"];
  return found === "light" || found === "dark" ? found : null;
}

function choose(wanted: Theme): void {
  theme.value = wanted;
  document.documentElement.dataset["theme"] = wanted;
  try {
    localStorage.setItem(KEY, wanted);
  } catch {
    // Storage is forbidden: the choice lasts until the page is left.
  }
}

export function ThemeToggle() {
  const other: Theme = theme.value === "dark" ? "light" : "dark";
  return (
    <button type="button" class="icon" aria-label={`Use the ${other} theme`} title={`Use the ${other} theme`} onClick={() => choose(other)}>
      <span aria-hidden="true">{other === "dark" ? "☾" : "☀"}</span>
    </button>
  );
}
