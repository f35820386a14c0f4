// What the API answers: api/schemas.py says it in Python. Fields that older servers lack are optional.

export type State =
  | "queued"
  | "downloading"
  | "processing"
  | "uploading"
  | "completed"
  | "failed"
  | "cancelled";

export interface Timestamps {
  created: string;
  queued: string;
  started: string | null;
  finished: string | null;
}

export interface Failure {
  failure_class: string;
  reason: string;
  attempt: number;
  exit_code: number | null;
  agent_id: string | null;
  at: string;
  has_evidence: boolean;
}

export interface Eta {
  low_seconds: number;
  likely_seconds: number;
  high_seconds: number;
  share: number;
  runs: number;
}

export interface JobSummary {
  job_id: string;
  status: State;
  processor: string;
  pool: string;
  priority: string;
  owner: string;
  source: string;
  target: string;
  tags: Record<string, string>;
  stage: string | null;
  progress_percent: number;
  attempt: number;
  release: string | null;
  cancel_requested: boolean;
  timestamps: Timestamps;
  failure: Failure | null;
  quarantined: string | null;
  eta?: Eta | null;
}

export interface PublishedFile {
  key: string;
  size_bytes: number;
  sha256: string;
}

export interface Result {
  attempt: number;
  files: number;
  size_bytes: number;
  manifest_uri: string;
  manifest: { files: PublishedFile[]; is_truncated: boolean } | null;
}

export interface Usage {
  seconds: number;
  cpu_percent_mean: number | null;
  cpu_percent_peak: number | null;
  memory_bytes_mean: number | null;
  memory_bytes_peak: number | null;
  gpu_percent_mean: number | null;
  gpu_percent_peak: number | null;
  gpu_memory_bytes_peak: number | null;
  io_bytes: number | null;
  disk_bytes_peak: number | null;
}

export interface Machine {
  instance_id: string;
  instance_type: string;
  ami_id: string;
  region: string;
  driver: string;
  slots: number;
}

export interface Attempt {
  attempt: number;
  agent_id: string;
  machine: Machine;
  release: string | null;
  started_at: string;
  ended_at: string | null;
  outcome: string | null;
  usage: Usage | null;
  bytes_downloaded: number;
  bytes_published: number;
  cost_usd?: number | null;
  why?: string | null;
  why_no_cost?: string | null;
}

export interface JobDetail extends JobSummary {
  settings: Record<string, unknown>;
  time_limit_seconds: number | null;
  durations_seconds: Record<string, number>;
  stage_seconds: Record<string, number>;
  failures: Failure[];
  result: Result | null;
  replaces: string | null;
  superseded_by: string | null;
  why_waiting: string | null;
  queue_position?: number | null;
  trace_id?: string | null;
  input_bytes?: number | null;
  usage?: Usage | null;
  stage_since?: string | null;
  attempts?: Attempt[];
}

export interface JobPage {
  jobs: JobSummary[];
  next_cursor: string | null;
}

export interface LogPage {
  attempt: number;
  lines: string[];
  next: string | null;
}

export interface Receipt {
  queue_seconds: number | null;
  run_seconds: number | null;
  bytes_downloaded: number | null;
  bytes_published: number | null;
  attempts: Attempt[];
  usage: Usage | null;
  release: string | null;
  machine: Machine | null;
  boot_share_seconds: number | null;
  idle_share_seconds: number | null;
  cost: {
    usd: number;
    busy_usd: number;
    boot_usd: number;
    idle_usd: number;
    hourly_usd: number;
    /** null: the operator's own price. */
    price_as_of: string | null;
  } | null;
}

export interface ProcessFacts {
  pid: number;
  parent: number | null;
  name: string | null;
  command: string | null;
  state: string | null;
  cpu_seconds: number | null;
  resident_bytes: number | null;
  threads: number | null;
  waits_in: string | null;
}

export interface Evidence {
  attempt: number;
  saved_at: string;
  reason: string;
  pid: number;
  last_lines: string[];
  processes: ProcessFacts[];
  dialogs: { pid: number; title: string; text: string }[];
  samples: Record<string, unknown>[];
  gpu: Record<string, unknown> | null;
  machine: {
    memory_bytes: number;
    memory_available_bytes: number;
    swap_used_bytes: number;
    disk_bytes: number;
    disk_free_bytes: number;
  } | null;
  missing: Record<string, string>;
}

export interface PoolLoad {
  slots: number;
  busy: number;
  backlog: number;
  in_flight: number;
  agents: number;
  fleet?: {
    desired: number;
    minimum: number;
    maximum: number;
    in_service: number;
    booting: number;
    sampled: string;
  } | null;
}

export interface InstanceLoad {
  agent_id: string;
  pool: string;
  slots: number;
  busy: number;
  job_ids: string[];
  started: string;
  seen: string;
  is_stopping: boolean;
  is_suspended: boolean;
  why_suspended: string;
  release: string;
  instance_id?: string;
  instance_type?: string;
  ami_id?: string;
  driver?: string;
  booted?: string | null;
  is_on_hold?: boolean;
  takes_jobs?: boolean;
}

export interface Load {
  pools: Record<string, PoolLoad>;
  instances: InstanceLoad[];
}

export interface Presigned {
  url: string;
  method: string;
  expires_in_seconds: number;
  headers: Record<string, string>;
  uri: string;
}

export interface Uploads {
  uri: string;
  max_file_bytes: number;
  expires_in_seconds: number;
}

export interface SettingSchema {
  type?: string;
  title?: string;
  description?: string;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  enum?: string[];
}

export interface ProcessorFacts {
  name: string;
  pool: string;
  input_kinds: string;
  is_default: boolean;
  settings: { properties: Record<string, SettingSchema> };
}

export interface Ticket {
  websocket: string | null;
  server_sent_events: boolean;
  poll_seconds: number;
  expires_in_seconds: number;
}
