import { useId } from "preact/hooks";
import type { FieldProblem } from "../api.ts";
import type { ProcessorFacts, SettingSchema } from "../types.ts";

export type Values = Record<string, unknown>;

/** A form made from the processor's own description of its settings. */
export function SettingsForm({
  processor,
  values,
  problems,
  onChange,
}: {
  processor: ProcessorFacts;
  values: Values;
  problems: FieldProblem[];
  onChange: (values: Values) => void;
}) {
  const entries = Object.entries(processor.settings.properties);
  if (entries.length === 0) return <p class="quiet">This processor has no settings.</p>;
  return (
    <div class="settings">
      {entries.map(([key, schema]) => (
        <Setting
          key={key}
          name={key}
          schema={schema}
          value={values[key] ?? schema.default}
          problem={problems.find((one) => one.field === `settings.${key}`)}
          onChange={(value) => onChange({ ...values, [key]: value })}
        />
      ))}
    </div>
  );
}

interface SettingProps {
  name: string;
  schema: SettingSchema;
  value: unknown;
  problem: FieldProblem | undefined;
  onChange: (value: unknown) => void;
}

function Setting({ name, schema, value, problem, onChange }: SettingProps) {
  const id = useId();
  const hint = [schema.description, problem?.message].filter(Boolean).join(" ");
  const shared = {
    id,
    "aria-invalid": problem !== undefined,
    "aria-describedby": hint ? `${id}-hint` : undefined,
  } as const;
  return (
    <div class={`setting ${schema.type === "boolean" ? "switch" : ""}`}>
      <label for={id}>{name}</label>
      <Field {...{ schema, value, onChange, shared }} />
      {hint && (
        <span id={`${id}-hint`} class={problem ? "problem" : "quiet"}>
          {hint}
        </span>
      )}
    </div>
  );
}

function Field({
  schema,
  value,
  onChange,
  shared,
}: Pick<SettingProps, "schema" | "value" | "onChange"> & { shared: Record<string, string | boolean | undefined> }) {
  if (schema.type === "boolean") {
    return <input {...shared} type="checkbox" checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} />;
  }
  if (schema.enum) {
    return (
      <select {...shared} onChange={(event) => onChange(event.currentTarget.value)}>
        {schema.enum.map((one) => (
          <option key={one} selected={one === value}>
            {one}
          </option>
        ))}
      </select>
    );
  }
  if (schema.type === "integer" || schema.type === "number") {
    return (
      <input
        {...shared}
        type="number"
        required
        min={schema.minimum}
        max={schema.maximum}
        step={schema.type === "integer" ? 1 : "any"}
        value={typeof value === "number" ? value : ""}
        onInput={(event) => {
          const said = event.currentTarget.valueAsNumber;
          onChange(Number.isNaN(said) ? undefined : said);
        }}
      />
    );
  }
  return <input {...shared} value={typeof value === "string" ? value : ""} onInput={(event) => onChange(event.currentTarget.value)} />;
}
