/** How much of something is done or used. `label` is its name for those who do not see it. */
export function Bar({ value, max = 100, label, kind }: { value: number; max?: number; label: string; kind?: string }) {
  const share = max > 0 ? Math.min(100, Math.max(0, (100 * value) / max)) : 0;
  return (
    <div
      class={`bar ${kind ?? ""}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(share)}
    >
      <span style={{ width: `${share}%` }} />
    </div>
  );
}
