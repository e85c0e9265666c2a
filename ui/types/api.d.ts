// What the control plane sends to the monitor. Absent figures are null: unknown is not zero. Times are ms since the epoch.

type Health = import("../../src/muster/web/core/vocabulary.js").Health;
type Phase = import("../../src/muster/web/core/vocabulary.js").Phase;
type WorkerStatus = import("../../src/muster/web/core/vocabulary.js").WorkerStatus;
type ServiceStatus = import("../../src/muster/web/core/vocabulary.js").ServiceStatus;
type JobStatus = import("../../src/muster/web/core/vocabulary.js").JobStatus;
type Signal<T> = import("@preact/signals-core").Signal<T>;

interface Gpu {
  index: number;
  name: string | null;
  memory_total_mb: number | null;
  memory_used_mb: number | null;
  utilization_percent: number | null;
  temperature_c: number | null;
  power_w: number | null;
  owners?: { name: string; service: boolean; memory_mb: number | null }[] | null;
  out_of_service?: string | null;
  simulated: boolean;
}

interface Resources {
  memory_total_mb: number | null;
  memory_used_mb: number | null;
  cpu_percent: number | null;
  disk_total_mb: number | null;
  disk_free_mb: number | null;
}

interface Service {
  name: string;
  connector: string;
  status: ServiceStatus;
  url: string | null;
  models: { name: string; resident: boolean | null }[];
  slots: number | null;
  slots_busy: number | null;
  managed: boolean;
  error: string | null;
  restarts: number;
}

interface Machine {
  machine_id: string;
  status: string;
  phase: Phase;
  health_status: Health;
  reason: string | null;
  connected: boolean;
  draining: boolean;
  late: boolean;
  last_seen: number | null;
  uptime_seconds: number;
  hostname: string | null;
  link: string;
  version: string | null;
  labels: Record<string, string>;
  pool: string | null;
  gpu_count: number;
  gpu_model: string | null;
  gpus: Gpu[];
  cpu_cores: number | null;
  resources: Resources;
  service_details: Service[];
  models: string[];
}

/** A node in a line; the server leaves out what is as usual. */
interface Line {
  machine_id: string;
  status: string;
  health_status: Health;
  draining: boolean;
  late: boolean;
  hostname: string | null;
  pool: string | null;
  link: string;
  labels: Record<string, string>;
  services: string[];
  models: string[];
  gpu_count: number;
  gpu_names: string[];
  gpu_percent: number | null;
  gpu_memory_used_gb: number | null;
  gpu_memory_total_gb: number | null;
  out_of_service: number;
  workers: number;
  workers_busy: number;
}

interface Worker {
  worker_id: string;
  machine_id: string;
  status: WorkerStatus;
  slots: number;
  gpu_index: number | null;
  connector_statuses: Record<string, string>;
  current_jobs: string[];
  jobs_completed: number;
  jobs_failed: number;
}

/** What GET /api/v1/nodes/{id} adds to what the stream tells. */
interface NodeDetail {
  type: string;
  address: string | null;
  platform: string | null;
  region: string | null;
  az: string | null;
  instance_id: string | null;
  heartbeat_interval_s: number;
  registered_at: string;
  command_problem: string | null;
  services: { name: string; figures: Figures | null }[];
}

/** What the processes of a service need. */
interface Figures {
  processes: number | null;
  cpu_percent: number | null;
  rss_mb: number | null;
  uptime_s: number | null;
}

interface CommandView {
  command_id: string;
  command: string;
  args: Record<string, unknown>;
  state: string;
  issued_by: string | null;
  created_at: string;
  deadline: string;
  progress: Progress | null;
  result: unknown;
  error: string | null;
}

interface Progress {
  fraction: number | null;
  message: string | null;
  preview_url?: string | null;
}

interface JobError {
  code: string;
  message: string;
}

interface Job {
  job_id: string;
  service_required: string;
  priority: number;
  status: JobStatus;
  worker_id: string | null;
  attempt: number;
  retry_count: number;
  max_retries: number;
  timeout_s: number;
  created_at: number;
  started_at: number | null;
  completed_at: number | null;
  next_attempt_at: number | null;
  progress: Progress | null;
  error: JobError | null;
  workflow_id: string | null;
  workflow_priority: number | null;
  workflow_datetime: number | null;
  step_number: number | null;
  customer_id: string | null;
}

/** A job as GET /api/jobs/{id} shows it. */
interface FullJob extends Job {
  payload: unknown;
  requirements: unknown;
  result: unknown;
}

interface Mismatch {
  requirement: string;
  text: string;
}

interface Explanation {
  summary: string;
  position: number | null;
  can_run: unknown[];
  candidates: { class_id: string; sessions: number; mismatches: Mismatch[] }[];
}

interface SystemStats {
  version: string;
  total_machines: number;
  models: number;
  jobs: Record<JobStatus, number>;
  gateway: { in_flight: number; requests_total: number; errors_total: number };
  suspects_itself?: boolean;
}

/** At most 50 jobs in each list; the counts in the statistics are whole. */
interface MonitorState {
  machines: Machine[];
  workers: Worker[];
  jobs: { pending: Job[]; active: Job[]; completed: Job[]; failed: Job[] };
  system_stats: SystemStats;
  lines?: Line[];
}

type MonitorMessage =
  | { type: "machine_lines"; lines: Line[]; removed: string[] }
  | { type: "connected"; timestamp: number }
  | { type: "full_state_snapshot"; data: MonitorState; timestamp: number }
  | { type: "machine_update"; machine: Machine; workers: Worker[] }
  | { type: "machine_removed"; machine_id: string }
  | { type: "machine_startup"; machine_id: string; phase: string; timestamp: number }
  | { type: "machine_startup_step"; machine_id: string; step: string; timestamp: number }
  | { type: "machine_startup_complete"; machine_id: string; worker_count: number; timestamp: number }
  | { type: "machine_startup_failed"; machine_id: string; step: string; reason: string; timestamp: number }
  | { type: "service_started"; machine_id: string; service: string; timestamp: number }
  | { type: "service_failed"; machine_id: string; service: string; reason: string; timestamp: number }
  | { type: "job_update"; job: Job }
  | { type: "job_progress"; job_id: string; progress: Progress }
  | { type: "periodic_status_update"; machine_id: string; status: string; last_seen: number; timestamp: number }
  | { type: "system_stats"; data: SystemStats }
  | { type: "resync"; reason: string };
