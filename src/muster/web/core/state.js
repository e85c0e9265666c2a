// The fleet as the server last told it. Deltas carry an entity's whole state, so applying one twice is harmless.

import { batch, computed, signal } from "./view.js";
import { whenCalm } from "./hand.js";
import { JOB_ACTIVE, JOB_TERMINAL } from "./vocabulary.js";

/** @typedef {{machine: Machine, workers: Worker[]}} Node */
/** Of a fleet of more machines there is only a line about each, and in full those that are looked at. */
export const WHOLE_UP_TO = 100;
/** @typedef {"waiting" | "running" | "failed" | "finished"} Lane */

/** How many jobs of a lane are kept; the server's own counts speak of the others. @type {Record<Lane, number>} */
export const LANE_LIMITS = { waiting: 2000, running: 2000, failed: 200, finished: 200 };
/** Messages kept for the next frame, which a hidden page may never draw. */
const MAX_INBOX = 5000;
const HIDDEN_FLUSH_MS = 250;

const byName = new Intl.Collator(undefined, { numeric: true }).compare;

/**
 * The same list or record again while it says the same: nothing that only uses it is drawn anew.
 * @template T @param {() => T} compute
 */
export function steady(compute) {
  /** @type {{value: T, said: string} | null} */
  let kept = null;
  return computed(() => {
    const value = compute();
    const said = JSON.stringify(value);
    if (said !== kept?.said) kept = { value, said };
    return kept.value;
  });
}

/** @returns {Record<Lane, number>} */
const noJobs = () => ({ waiting: 0, running: 0, failed: 0, finished: 0 });

/** @param {string} status @returns {Lane} */
export function laneOf(status) {
  if (JOB_ACTIVE.has(status)) return "running";
  if (!JOB_TERMINAL.has(status)) return "waiting";
  return status === "completed" || status === "cancelled" ? "finished" : "failed";
}

/** Priority (of the workflow, if it has one), then first come; equals stay as the server listed them. @param {Job} a @param {Job} b */
const inQueueOrder = (a, b) =>
  (b.workflow_priority ?? b.priority) - (a.workflow_priority ?? a.priority) || a.created_at - b.created_at;

/** @param {Job} a @param {Job} b */
const newestEndFirst = (a, b) => (b.completed_at ?? 0) - (a.completed_at ?? 0);
/** @param {Job} a @param {Job} b */
const newestStartFirst = (a, b) => (b.started_at ?? 0) - (a.started_at ?? 0);

/** @type {Record<Lane, (a: Job, b: Job) => number>} */
const LANE_ORDER = {
  waiting: inQueueOrder,
  running: newestStartFirst,
  failed: newestEndFirst,
  finished: newestEndFirst,
};
const LANES = /** @type {Lane[]} */ (Object.keys(LANE_ORDER));

/** @param {(number | null | undefined)[]} values */
const known = (values) => values.filter((value) => value != null);

/** @param {(number | null | undefined)[]} megabytes */
function gigabytes(megabytes) {
  const there = known(megabytes);
  return there.length ? Math.round(there.reduce((sum, mb) => sum + mb, 0) / 1024) : null;
}

/** Of those that are known. @param {(number | null | undefined)[]} values */
export function mean(values) {
  const there = known(values);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}

/** What the server leaves out of a line because it is as usual. @param {Partial<Line> & Pick<Line, "machine_id" | "status" | "health_status">} line @returns {Line} */
const whole = (line) => ({
  draining: false, late: false, hostname: null, pool: null, link: "", labels: {}, services: [], models: [], gpu_count: 0,
  gpu_names: [], gpu_percent: null, gpu_memory_used_gb: null, gpu_memory_total_gb: null, out_of_service: 0, workers: 0,
  workers_busy: 0, ...line,
});

/** The same as the server's line about a node (api/lines.py), of a node that is there in full. @param {Node} node @returns {Line} */
function lineOf({ machine: m, workers }) {
  const use = mean(m.gpus.map((gpu) => gpu.utilization_percent));
  return {
    machine_id: m.machine_id,
    status: m.status,
    health_status: m.health_status,
    draining: m.draining,
    late: m.late,
    hostname: m.hostname,
    pool: m.pool,
    link: m.link,
    labels: m.labels,
    services: m.service_details.flatMap((service) => [service.name, service.connector]),
    models: m.models,
    gpu_count: m.gpu_count,
    gpu_names: [...new Set(m.gpus.flatMap((gpu) => gpu.name ?? []))],
    gpu_percent: use === null ? null : Math.round(use / 5) * 5,
    gpu_memory_used_gb: gigabytes(m.gpus.map((gpu) => gpu.memory_used_mb)),
    gpu_memory_total_gb: gigabytes(m.gpus.map((gpu) => gpu.memory_total_mb)),
    out_of_service: m.gpus.filter((gpu) => gpu.out_of_service).length,
    workers: workers.length,
    workers_busy: workers.filter((worker) => worker.status === "busy").length,
  };
}

export class FleetState {
  /** @type {Map<string, Signal<Node>>} */
  nodes = new Map();
  /** What every node can be found and sorted by. @type {Map<string, Signal<Line>>} */
  lines = new Map();
  /** Whether `nodes` has only those that are looked at. */
  selective = signal(false);
  /** All of `lines`, in order of their names. */
  nodeIds = computed(() => {
    this.#linesChanged.value;
    return [...this.lines.keys()].sort(byName);
  });
  /** @type {Map<string, Signal<Job>>} */
  jobs = new Map();
  stats = signal(/** @type {SystemStats | null} */ (null));
  /** Jobs by lane in the whole fleet: the server's figure, moved along by each job that changes. */
  jobCounts = signal(noJobs());
  #jobsChanged = signal(0);
  #nodesChanged = signal(0);
  #linesChanged = signal(0); // which there are, not what they say
  /** @type {MonitorMessage[]} */
  #inbox = [];
  #flushDue = false;

  lanes = computed(() => {
    this.#jobsChanged.value;
    /** @type {Record<Lane, Signal<Job>[]>} */
    const lanes = { waiting: [], running: [], failed: [], finished: [] };
    for (const job of this.jobs.values()) lanes[laneOf(job.peek().status)].push(job);
    for (const lane of LANES) lanes[lane].sort((a, b) => LANE_ORDER[lane](a.peek(), b.peek()));
    return lanes;
  });

  /** Keep a message for the next frame, so that a burst is drawn once. @param {MonitorMessage} message */
  receive(message) {
    this.#inbox.push(message);
    if (this.#inbox.length >= MAX_INBOX) {
      this.flush();
    } else if (!this.#flushDue) {
      this.#flushDue = true;
      const flush = () => this.flush();
      if (document.hidden) setTimeout(flush, HIDDEN_FLUSH_MS);
      else whenCalm(flush);
    }
  }

  flush() {
    const messages = this.#inbox;
    this.#inbox = [];
    this.#flushDue = false;
    batch(() => {
      for (const message of messages) this.apply(message);
      this.#dropSurplus();
    });
  }

  /** @param {MonitorMessage} message */
  apply(message) {
    switch (message.type) {
      case "full_state_snapshot":
        return this.#replace(message.data);
      case "machine_update":
        return this.#putNode({ machine: message.machine, workers: message.workers });
      case "machine_lines":
        for (const line of message.lines) this.#putLine(whole(line));
        return this.#removeLines(message.removed);
      case "machine_removed":
        return this.#removeNode(message.machine_id);
      case "job_update":
        return this.#putJob(message.job);
      case "job_progress":
        return this.#putProgress(message);
      case "system_stats":
        return this.#putStats(message.data);
      default:
        return undefined; // of the connection only, or of a newer server
    }
  }

  /** One node in full, if it is looked at; who asks while drawing is told when it comes or changes. @param {string} id */
  node(id) {
    const known = this.nodes.get(id);
    if (!known) this.#nodesChanged.value;
    return known?.value;
  }

  /** One job, if it is kept; who asks while drawing is told when it comes or changes. @param {string} id */
  job(id) {
    const known = this.jobs.get(id);
    if (!known) this.lanes.value;
    return known?.value;
  }

  /**
   * Take in what the events did not tell and return what contradicts them. One look may fall between two events: only
   * what two looks find is a fault.
   * @param {MonitorState} data
   */
  reconcile({ jobs, system_stats: stats }) {
    /** @type {Set<string>} */
    const found = new Set();
    batch(() => {
      // A snapshot holds the head of a long queue, and who can run a job changes without an event of the job.
      for (const job of [...jobs.pending, ...jobs.active]) {
        const known = this.jobs.get(job.job_id)?.peek();
        if (!known || (laneOf(known.status) === "waiting" && laneOf(job.status) === "waiting")) this.#putJob(job);
      }
      this.#putStats(stats);
    });
    if (stats.total_machines !== this.lines.size) found.add(`${this.lines.size} nodes here, ${stats.total_machines} there`);
    this.#compare("running", jobs.active, stats.jobs.assigned + stats.jobs.in_progress, found);
    this.#compare("waiting", jobs.pending, stats.jobs.pending + stats.jobs.unworkable, found);
    return found;
  }

  /** @param {Lane} lane @param {Job[]} theirs @param {number} total @param {Set<string>} found */
  #compare(lane, theirs, total, found) {
    const ids = new Set(theirs.map((job) => job.job_id));
    const complete = ids.size === total;
    for (const job of this.lanes.peek()[lane]) {
      const id = job.peek().job_id;
      if (complete && !ids.delete(id)) found.add(`${id} is not ${lane} there`);
    }
    if (complete) for (const id of ids) found.add(`${id} is ${lane} there`);
  }

  /** @param {MonitorState} data */
  #replace(data) {
    /** @type {Map<string, Worker[]>} */
    const workers = new Map(data.machines.map((machine) => [machine.machine_id, []]));
    for (const worker of data.workers) workers.get(worker.machine_id)?.push(worker);
    this.selective.value = data.lines != null;
    for (const id of this.nodes.keys()) if (!workers.has(id)) this.nodes.delete(id);
    const known = new Set(data.lines?.map((line) => line.machine_id) ?? workers.keys());
    this.#removeLines([...this.lines.keys()].filter((id) => !known.has(id)));
    for (const line of data.lines ?? []) this.#putLine(whole(line));
    for (const machine of data.machines) this.#putNode({ machine, workers: workers.get(machine.machine_id) ?? [] });

    const before = this.jobs;
    this.jobs = new Map();
    for (const job of Object.values(data.jobs).flat()) {
      const known = before.get(job.job_id) ?? signal(job);
      known.value = job;
      this.jobs.set(job.job_id, known);
    }
    this.#jobsChanged.value += 1;
    this.#putStats(data.system_stats);
  }

  /** @param {Node} node */
  #putNode(node) {
    const id = node.machine.machine_id;
    const known = this.nodes.get(id);
    if (known) known.value = node;
    else {
      this.nodes.set(id, signal(node));
      this.#nodesChanged.value += 1;
    }
    if (!this.selective.peek()) this.#putLine(lineOf(node));
  }

  /** @param {Line} line */
  #putLine(line) {
    const known = this.lines.get(line.machine_id);
    if (!known) {
      this.lines.set(line.machine_id, signal(line));
      this.#linesChanged.value += 1;
    } else if (JSON.stringify(known.peek()) !== JSON.stringify(line)) known.value = line;
  }

  /** @param {string[]} ids */
  #removeLines(ids) {
    const gone = ids.filter((id) => this.lines.delete(id));
    if (gone.length) this.#linesChanged.value += 1;
  }

  /** @param {string} id */
  #removeNode(id) {
    this.nodes.delete(id);
    this.#removeLines([id]);
  }

  /** @param {Job} job */
  #putJob(job) {
    const known = this.jobs.get(job.job_id);
    const before = known?.peek().status;
    if (known) known.value = job;
    else this.jobs.set(job.job_id, signal(job));
    if (before === job.status) return;
    const counts = { ...this.jobCounts.peek() };
    if (before) counts[laneOf(before)] -= 1;
    counts[laneOf(job.status)] += 1;
    this.jobCounts.value = counts;
    this.#jobsChanged.value += 1;
  }

  /** @param {Extract<MonitorMessage, {type: "job_progress"}>} message */
  #putProgress({ job_id, progress }) {
    const known = this.jobs.get(job_id)?.peek();
    // Progress is coalesced and may come after the end that it led to: it never brings a job back.
    if (known && laneOf(known.status) === "running") this.#putJob({ ...known, status: "in_progress", progress });
  }

  /** @param {SystemStats} stats */
  #putStats(stats) {
    this.stats.value = stats;
    const counts = noJobs();
    for (const [status, count] of Object.entries(stats.jobs)) counts[laneOf(status)] += count;
    this.jobCounts.value = counts;
  }

  #dropSurplus() {
    const lanes = this.lanes.peek();
    const surplus = LANES.flatMap((lane) => lanes[lane].slice(LANE_LIMITS[lane]));
    for (const job of surplus) this.jobs.delete(job.peek().job_id);
    if (surplus.length) this.#jobsChanged.value += 1;
  }
}

export const state = new FleetState();
