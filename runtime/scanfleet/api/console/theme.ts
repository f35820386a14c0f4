// Runs before the page is drawn, so that a chosen theme never flashes in the other one. Imports nothing:
// it is a plain script of its own.
try {
  const chosen = localStorage.getItem("scanfleet-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset["theme"] = chosen;
} catch {
  // Storage is forbidden: the system's theme stays.
}
