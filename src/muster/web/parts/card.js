// One node as a card: how it is, what it has, what it is doing right now.

import { html } from "../core/view.js";
import { state } from "../core/state.js";
import { Badge, Meter, ProgressBar } from "./badge.js";
import { Spark } from "./spark.js";
import { Ago, counted, duration, percent, readable, share } from "../core/format.js";
import { jobHref, nodeHref } from "../core/route.js";

/** From here on memory is drawn as a warning, in percent. */
const MEMORY_HIGH = 95;
const MODELS_SHOWN = 3;

/** @param {number | null | undefined} used @param {number | null | undefined} total */
const ratio = (used, total) => (used == null || !total ? null : (100 * used) / total);

/** Shorter, as the maker is clear from the rest. @param {string | null} name */
const gpuName = (name) => (name ?? "unknown GPU").replace(/^NVIDIA (GeForce )?/, "");

/** @param {{machine: Machine}} props */
export function Notices({ machine: m }) {
  const notices = [];
  if (m.draining) notices.push(html`<p class="notice">draining: finishes what it has, takes no new work</p>`);
  if (m.late && m.health_status !== "dead") notices.push(html`<p class="notice">late: heartbeats overdue, takes no new work</p>`);
  if (m.reason) notices.push(html`<p class="notice ${m.health_status === "dead" ? "bad" : ""}">${m.reason}</p>`);
  return notices;
}

/** @param {{machine: Machine}} props */
export function Host({ machine: { resources: r, cpu_cores: cores } }) {
  return html`<div class="host">
    <span title=${cores ? counted(cores, "core") : undefined}>CPU</span>
    <${Meter} label="CPU" value=${r?.cpu_percent} text=${percent(r?.cpu_percent)} />
    <span>Memory</span>
    <${Meter} label="Memory" value=${ratio(r?.memory_used_mb, r?.memory_total_mb)} high=${MEMORY_HIGH}
      text=${share(r?.memory_used_mb, r?.memory_total_mb)} />
  </div>`;
}

/** @param {{gpu: Gpu}} props */
function GpuRow({ gpu }) {
  const name = `GPU ${gpu.index}`;
  const owners = (gpu.owners ?? []).map((owner) => `${owner.name}: ${share(owner.memory_mb, null)}`);
  const power = gpu.power_w == null ? [] : [`${Math.round(gpu.power_w)} W`];
  const trouble = gpu.out_of_service ? [`out of service: ${gpu.out_of_service}`] : [];
  return html`<li title=${[gpu.name, ...power, ...trouble, ...owners].join(", ")} class=${gpu.out_of_service ? "out" : ""}>
    <span>${gpu.index}</span>
    <${Meter} label="${name} utilisation" value=${gpu.utilization_percent} text=${percent(gpu.utilization_percent)} />
    <${Meter} label="${name} memory" value=${ratio(gpu.memory_used_mb, gpu.memory_total_mb)} high=${MEMORY_HIGH}
      text=${share(gpu.memory_used_mb, gpu.memory_total_mb)} />
    <span class="figure ${gpu.temperature_c == null ? "quiet" : ""}">
      ${gpu.temperature_c == null ? "? °C" : `${Math.round(gpu.temperature_c)} °C`}
    </span>
  </li>`;
}

/** @param {{machine: Machine}} props */
export function Gpus({ machine: { gpus, gpu_count: count } }) {
  if (!gpus.length) return count ? html`<p class="quiet">${counted(count, "GPU")}, figures unknown</p>` : null;
  const names = gpus.map((gpu) => gpuName(gpu.name));
  const kinds = [...new Set(names)].map((kind) => `${names.filter((name) => name === kind).length} × ${kind}`);
  const simulated = gpus.some((gpu) => gpu.simulated);
  return html`<section class="gpus">
    <h4>
      ${kinds.join(", ")}
      ${simulated && html` <span class="tag" title="not a real card: for trying things out">simulated</span>`}
    </h4>
    <div class="columns" aria-hidden="true"><span></span><span>use</span><span>memory</span><span></span></div>
    <ul>${gpus.map((gpu) => html`<${GpuRow} key=${gpu.index} gpu=${gpu} />`)}</ul>
  </section>`;
}

/** What its processes need; some cannot be read everywhere. @param {{figures: Figures}} props */
function Needs({ figures: f }) {
  const needs = [
    f.cpu_percent != null && `CPU ${percent(f.cpu_percent)}`,
    f.rss_mb != null && `memory ${share(f.rss_mb, null)}`,
    f.processes != null && counted(f.processes, "process", "processes"),
    f.uptime_s != null && `up ${duration(f.uptime_s * 1000)}`,
  ].filter(Boolean);
  return html`<p class="needs" title="its processes and those they started; 100 % is one core">${needs.join(" · ")}</p>`;
}

/** @param {{service: Service, action?: unknown, figures?: Figures | null}} props */
export function ServiceRow({ service: s, action = null, figures = null }) {
  // Where some are only on disk, those in memory are said to be loaded.
  const mixed = s.models.some((model) => model.resident === false);
  const models = s.models.map((model) => (mixed && model.resident ? `${model.name} (loaded)` : model.name));
  const more = models.length - MODELS_SHOWN;
  return html`<li>
    <div class="line" title=${s.url}>
      <${Badge} of="service" word=${s.status} bare=${s.status === "running"} />
      <b>${s.name}</b>
      ${s.connector !== s.name && html`<span class="quiet">${s.connector}</span>`}
      ${s.restarts > 0 && html`<span class="tag">${counted(s.restarts, "restart")}</span>`}
      ${s.slots != null && html`<span class="end">${s.slots_busy ?? "?"} of ${counted(s.slots, "slot")} busy</span>`}
      ${action && html`<span class="end">${action}</span>`}
    </div>
    ${models.length > 0 &&
    html`<p class="models" title=${models.join("\n")}>
      ${models.slice(0, MODELS_SHOWN).join(", ")}${more > 0 && ` and ${more} more`}
    </p>`}
    ${figures && html`<${Needs} figures=${figures} />`}
    ${s.error && html`<p class="error-text">${s.error}</p>`}
  </li>`;
}

/** What a worker does with one job; draws anew with that job alone. @param {{id: string}} props */
function CurrentJob({ id }) {
  const job = state.job(id);
  const done = job?.progress?.fraction;
  return html`<a class="current" href=${jobHref(id)} title=${job?.progress?.message ?? id}>
    <span class="line"><span>${job?.service_required ?? id}</span>
      <span class="figure end">${done == null ? "" : percent(done * 100)}</span></span>
    <${ProgressBar} progress=${job?.progress ?? null} />
  </a>`;
}

/** @param {{worker: Worker, name: string}} props */
export function WorkerCell({ worker: w, name }) {
  const connectors = Object.entries(w.connector_statuses ?? {}).map(([connector, status]) => `${connector}: ${status}`);
  const title = [w.worker_id, `${w.jobs_completed} completed, ${w.jobs_failed} failed`, ...connectors].join("\n");
  return html`<li title=${title}>
    <div class="line"><${Badge} of="worker" word=${w.status} />
      <span class="quiet cut">${name}${w.slots > 1 && ` · ${w.current_jobs.length} of ${w.slots} slots`}</span></div>
    ${w.current_jobs.map((id) => html`<${CurrentJob} key=${id} id=${id} />`)}
  </li>`;
}

/** A node that is not there in full yet, or not drawn yet. @param {string} id */
function toCome(id) {
  const line = state.lines.get(id)?.value;
  return html`<article class="card" data-node=${id} aria-busy="true">
    <header><h3>${id}</h3> ${line && html`<span class="end"><${Badge} of="health" word=${line.health_status} /></span>`}</header>
    <p class="quiet">Loading …</p>
  </article>`;
}

/** @param {{id: string, drawn: boolean}} props */
export function Card({ id, drawn }) {
  const node = drawn ? state.node(id) : undefined;
  if (!node) return toCome(id);
  const { machine: m, workers } = node;
  const gone = !m.connected || m.health_status === "dead";
  const labels = Object.entries(m.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  const facts = [m.hostname !== m.machine_id && m.hostname, m.pool && `pool ${m.pool}`, m.link, m.version && `v${m.version}`,
    m.uptime_seconds > 0 && !gone && `up ${duration(m.uptime_seconds * 1000)}`, ...labels].filter(Boolean);
  return html`<article class="card ${gone ? "gone" : ""}" data-node=${id} aria-labelledby="node-${id}">
    <header>
      <h3 id="node-${id}"><a href=${nodeHref(id)}>${id}</a></h3>
      <span class="tag" title="phase: ${m.phase}">${readable(m.status)}</span>
      <span class="end"><${Badge} of="health" word=${m.health_status} /></span>
    </header>
    <p class="facts"><span title=${facts.join("\n")}>${facts.join(" · ")}</span>
      <span class="seen">seen <${Ago} at=${m.last_seen} /></span></p>
    <${Notices} machine=${m} />
    <div class="figures">
      ${gone && html`<p class="quiet">last known figures</p>`}
      <${Host} machine=${m} />
      <${Spark} machine=${m} />
      <${Gpus} machine=${m} />
    </div>
    ${m.service_details.length > 0 &&
    html`<ul class="services" aria-label="Services">
      ${m.service_details.map((service) => html`<${ServiceRow} key=${service.name} service=${service} />`)}
    </ul>`}
    ${workers.length > 0 &&
    html`<ul class="workers" aria-label="Workers">
      ${workers.map((worker) => html`<${WorkerCell} key=${worker.worker_id} worker=${worker}
        name=${worker.worker_id.replace(`${id}-`, "")} />`)}
    </ul>`}
  </article>`;
}
