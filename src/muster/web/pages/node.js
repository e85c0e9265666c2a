// One node: what it is, what it does, and what can be asked of it.

import { html, useEffect, useState } from "../core/view.js";
import { state } from "../core/state.js";
import { load, request } from "../core/api.js";
import { Ago, Clock, duration, share } from "../core/format.js";
import { Badge } from "../parts/badge.js";
import { Gpus, Host, Notices, ServiceRow, WorkerCell } from "../parts/card.js";
import { Commands, follow, refresh, send } from "../parts/commands.js";
import { Act } from "../parts/confirm.js";
import { LastMinutes } from "../parts/history.js";
import { Logs } from "../parts/log.js";
import { Startup } from "../parts/startup.js";
import { useTurns } from "../parts/turns.js";

const PANELS_PER_FRAME = 2;

/** @param {{id: string, machine: Machine}} props */
function Actions({ id, machine: m }) {
  const drain = m.draining
    ? html`<${Act} label="Resume" onSure=${() => send(id, "resume")} />`
    : html`<${Act} label="Drain" question="Finish what it has and take no new work?" yes="Drain it" no="Leave it"
        onSure=${() => send(id, "drain", { reason: "from the monitor" })} />`;
  return html`<div class="actions">${drain}
    <${Act} label="Shut down" question="End the agent and its services?" yes="Shut it down" no="Keep it" danger=${true}
      onSure=${() => send(id, "shutdown")} />
    ${m.health_status === "dead" && html`<${Act} label="Forget" question="Forget this node?" yes="Forget it" no="Keep it"
      onSure=${() => request(`/api/v1/nodes/${encodeURIComponent(id)}`, { method: "DELETE" })} />`}
  </div>`;
}

/** @param {{id: string}} props */
function PullModel({ id }) {
  const [model, setModel] = useState("");
  const pull = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    send(id, "pull_model", { model: model.trim() }).then(() => setModel(""), (error) => setProblem(error.message));
  };
  const [problem, setProblem] = useState("");
  return html`<form class="inline" onSubmit=${pull}>
    <label>Model <input required value=${model} placeholder="qwen3:8b" autocomplete="off" spellcheck=${false}
      onInput=${(/** @type {InputEvent} */ event) => setModel(/** @type {HTMLInputElement} */ (event.target).value)} /></label>
    <button type="submit">Pull</button>${problem && html`<p class="error-text" role="alert">${problem}</p>`}
  </form>`;
}

/** @param {{id: string, machine: Machine, answer: import("../core/api.js").Answer<NodeDetail>}} props */
function Services({ id, machine: m, answer }) {
  const figures = new Map(answer.value?.services.map((service) => [service.name, service.figures]));
  return html`<section class="panel"><h3>Services</h3>
    ${m.service_details.length === 0 && html`<p class="quiet">None.</p>`}
    ${m.service_details.length > 0 && html`<ul class="services" aria-label="Services">${m.service_details.map((service) => html`<${ServiceRow}
      key=${service.name} service=${service} figures=${figures.get(service.name)} action=${service.managed && html`<${Act} label="Restart"
        question="Stop and start ${service.name}?" yes="Restart it" no="No" onSure=${() => send(id, "restart_service", { service: service.name })} />`} />`)}</ul>`}
    <${PullModel} id=${id} />
  </section>`;
}

/** @param {{machine: Machine, answer: import("../core/api.js").Answer<NodeDetail>}} props */
function Facts({ machine: m, answer }) {
  const n = answer.value;
  const labels = Object.entries(m.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(" ");
  /** @type {[string, unknown][]} */
  const facts = [
    ["host", m.hostname],
    ["address", n?.address],
    ["platform", n?.platform],
    ["version", m.version],
    ["kind", n?.type],
    ["pool", m.pool],
    ["labels", labels],
    ["region", [n?.region, n?.az].filter(Boolean).join(", ")],
    ["instance", n?.instance_id],
    ["link", m.link],
    ["heartbeat", n && `every ${n.heartbeat_interval_s} s`],
    ["seen", html`<${Ago} at=${m.last_seen} />`],
    ["registered", n && html`<${Clock} at=${Date.parse(n.registered_at)} />, <${Ago} at=${Date.parse(n.registered_at)} />`],
    ["up", m.uptime_seconds > 0 && duration(m.uptime_seconds * 1000)],
    ["cores", m.cpu_cores],
    ["disk free", m.resources?.disk_free_mb != null && share(m.resources.disk_free_mb, m.resources.disk_total_mb)],
  ];
  return html`<section class="panel"><h3>Facts</h3>
    <dl class="facts-list">${facts.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    ${n?.command_problem && html`<p class="notice">last command without an answer: ${n.command_problem}</p>`}
    ${answer.error && html`<p class="error-text">${answer.error}</p>`}
  </section>`;
}

/** @param {{gpu: Gpu}} props */
function GpuDetails({ gpu }) {
  const owners = gpu.owners ?? [];
  return html`<li><b>${gpu.index}</b> ${gpu.name}
    ${gpu.power_w != null && html` · ${Math.round(gpu.power_w)} W`}
    ${gpu.out_of_service && html`<p class="error-text">out of service: ${gpu.out_of_service}</p>`}
    ${owners.length > 0 && html`<ul>${owners.map((owner) => html`<li class=${owner.service ? "" : "quiet"}>
      ${share(owner.memory_mb, null)} ${owner.name} ${!owner.service && html`<span class="tag">not of this fleet</span>`}</li>`)}</ul>`}
  </li>`;
}

/** @param {{machine: Machine}} props */
const Load = ({ machine: m }) => html`<section class="panel"><h3>Load</h3>
  <div class="figures"><${Host} machine=${m} /><${Gpus} machine=${m} /></div>
  ${m.gpus.length > 0 && html`<ul class="gpu-details">${m.gpus.map((gpu) => html`<${GpuDetails} key=${gpu.index} gpu=${gpu} />`)}</ul>`}
</section>`;

/** @param {{id: string, workers: Worker[]}} props */
const Workers = ({ id, workers }) => html`<section class="panel"><h3>Workers</h3>
  ${workers.length ? html`<ul class="workers" aria-label="Workers">${workers.map((worker) => html`<${WorkerCell} key=${worker.worker_id}
    worker=${worker} name=${worker.worker_id.replace(`${id}-`, "")} />`)}</ul>` : html`<p class="quiet">None.</p>`}
</section>`;

/** In the order of the page. */
const PANELS = { Load, Workers, Services, Facts, Startup, Commands, LastMinutes, Logs };
const PANEL_NAMES = Object.keys(PANELS);

/** @param {{id: string | null}} props */
export function NodePage({ id }) {
  useEffect(() => (id ? follow(id) : undefined), [id]);
  const known = id !== null && state.nodeIds.value.includes(id);
  const node = known ? state.node(id) : undefined;
  if (!known || !node)
    return html`<p class="empty">${known ? "Loading …" : `There is no node ${id}.`} <a href="#/">All nodes</a></p>`;
  return html`<${Shown} key=${id} id=${id} node=${node} />`;
}

/** @param {{id: string, node: import("../core/state.js").Node}} props */
function Shown({ id, node: { machine: m, workers } }) {
  const [answer, setAnswer] = useState(/** @type {import("../core/api.js").Answer<NodeDetail>} */ ({}));
  const turns = useTurns(PANEL_NAMES, PANELS_PER_FRAME);
  useEffect(() => refresh(id), [m.last_seen]);
  // Every heartbeat has figures that the stream leaves out for all the nodes that nobody looks at.
  useEffect(() => load(() => request(`/api/v1/nodes/${encodeURIComponent(id)}`), setAnswer), [m.last_seen, m.health_status]);
  return html`<div class="node-page" data-node=${id}>
    <header class="heading"><h2>${id}</h2><${Badge} of="health" word=${m.health_status} /><span class="tag">${m.status}</span>
      <${Actions} id=${id} machine=${m} /></header>
    <${Notices} machine=${m} />
    <div class="panels">${Object.entries(PANELS).map(([name, Panel]) => turns.has(name) && html`<${Panel} key=${name} id=${id} machine=${m}
      workers=${workers} answer=${answer} />`)}</div>
  </div>`;
}
