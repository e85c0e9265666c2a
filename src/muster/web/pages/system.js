// What the fleet stands on: the store, the broker, the links of nodes and the control planes; and what to do where one is away.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { Ago, Clock, Span, UNKNOWN, counted, duration, share } from "../core/format.js";
import { Badge } from "../parts/badge.js";
import { TableBox } from "../parts/table.js";

const LOOK_EVERY_MS = 2_000;

/**
 * @typedef {{product: string, version: string | null, ping_ms: number, uptime_s: number | null, memory_mb: number | null,
 *   limit_mb: number | null, clients: number | null, ops_per_s: number | null, keys: number, log_entries: number,
 *   append_only: boolean | null, append_error: string | null, saved_at_ms: number | null, role: string | null,
 *   replicas: number | null, primary_up: boolean | null}} StoreStanding
 * @typedef {{address: string, embedded: boolean, standing: StoreStanding | null, error: string | null, next_step: string | null}} Store
 * @typedef {{name: string, ready: number | null, consumers: number | null, unacked: number, received: number, refused: number}} BrokerQueue
 * @typedef {{name: string, ready: number | null, unacked: number | null, consumers: number | null, published_per_s: number | null,
 *   delivered_per_s: number | null, acked_per_s: number | null}} ManagedQueue
 * @typedef {{address: string, queues: ManagedQueue[], queue_count: number, error: string | null, next_step: string | null}} Management
 * @typedef {{address: string, connected: boolean, since_ms: number, reconnects: number, product: string | null,
 *   error: string | null, next_step: string | null, queues: BrokerQueue[],
 *   management: Management | null}} Broker
 * @typedef {{name: string, nodes: number, connected: number}} Link
 * @typedef {{plane_id: string, here: boolean, leads: boolean | null, version: string | null, hostname: string | null,
 *   started_at_ms: number | null}} ControlPlane
 * @typedef {{number: number, pid: number | null, restarts: number, memory_mb: number, connections: number, in_flight: number}} GatewayProcess
 * @typedef {{store: Store, broker: Broker | null, links: Link[], control_planes: ControlPlane[], gateway_processes: GatewayProcess[],
 *   node_versions: Record<string, number>}} System
 */

const system = signal(/** @type {System | null} */ (null));
const trouble = signal("");

async function look() {
  try {
    system.value = await request("/api/v1/system");
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** @param {number | null} value */
const count = (value) => (value == null ? UNKNOWN : value.toLocaleString());

/** @param {number} mb */
const size = (mb) => (mb < 1024 ? `${mb.toFixed(mb < 10 ? 1 : 0)} MB` : share(mb, null));

/** @param {{facts: [string, unknown][]}} props those that are null or false are left out */
const Facts = ({ facts }) =>
  html`<dl>${facts.filter(([, value]) => value != null && value !== false).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;

/** @param {{error: string | null, next: string | null}} props */
const Trouble = ({ error, next }) =>
  error && html`<div class="failure" role="alert"><p class="error-text">${error}</p>${next && html`<p>${next}</p>`}</div>`;

/** @param {StoreStanding} s */
function append(s) {
  if (s.append_only === null) return null;
  return s.append_only ? "appended to its file" : "not appended to a file: what is not in a snapshot goes with the process";
}

/** @param {{store: Store}} props */
function StorePanel({ store: { address, embedded, standing: s, error, next_step: next } }) {
  return html`<section class="panel" data-part="store"><header class="line"><h3>Store</h3>
      <span class="end"><${Badge} of="part" word=${error ? "away" : s?.append_error || s?.primary_up === false ? "in_trouble" : "answers"} /></span></header>
    <${Trouble} error=${error} next=${next} />
    ${s?.append_error && html`<p class="notice bad">${s.append_error}: see its log, and whether its disk is full</p>`}
    ${s?.primary_up === false && html`<p class="notice bad">a replica that does not hear its primary: nothing can be written</p>`}
    <${Facts} facts=${[
      ["address", html`<code>${address}</code> ${embedded && html`<span class="tag">embedded</span>`}`],
      ["server", s && `${s.product} ${s.version ?? ""}`],
      ["up", s?.uptime_s != null && duration(s.uptime_s * 1000)],
      ["answers in", s && `${s.ping_ms} ms`],
      ["memory", s?.memory_mb != null && `${size(s.memory_mb)}${s.limit_mb === null ? ", no limit is set" : ` of ${size(s.limit_mb)}`}`],
      ["keys", s && html`${count(s.keys)}${!embedded && html` <span class="quiet">in the whole database, not only ours</span>`}`],
      ["log of facts", s && counted(s.log_entries, "entry", "entries")],
      ["clients", s?.clients != null && count(s.clients)],
      ["commands", s?.ops_per_s != null && `${count(s.ops_per_s)} / s`],
      ["kept", s && append(s)],
      ["last snapshot", s?.saved_at_ms && html`<${Ago} at=${s.saved_at_ms} />`],
      ["role", s?.role && `${s.role}${s.replicas ? `, ${counted(s.replicas, "replica")}` : ""}`],
    ]} />
  </section>`;
}

/** @param {{queue: BrokerQueue}} props */
const QueueRow = ({ queue: q }) => html`<tr data-queue=${q.name}><th scope="row">${q.name}</th><td>${count(q.ready)}</td>
  <td>${count(q.consumers)}</td><td>${count(q.unacked)}</td><td>${count(q.received)}</td>
  <td>${q.refused > 0 ? html`<span class="error-text">${count(q.refused)}</span>` : 0}</td></tr>`;

/** @param {number | null} perSecond */
const rate = (perSecond) => (perSecond == null ? "" : perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond)));

/** What only the broker's management API tells. @param {{management: Management}} props */
function Managed({ management: m }) {
  if (m.error)
    return html`<p class="quiet" data-part="management">All queues of this vhost and their rates are told by RabbitMQ's management API.
      At <code>${m.address}</code> ${m.error}. ${m.next_step}.</p>`;
  return html`<div data-part="management"><h4>All queues of the vhost</h4><${TableBox} label="All queues of the vhost"><table><thead><tr>
      <th scope="col">Queue</th><th scope="col">Ready</th><th scope="col">Unacknowledged</th><th scope="col">Consumers</th>
      <th scope="col">Published / s</th><th scope="col">Delivered / s</th><th scope="col">Acknowledged / s</th></tr></thead>
    <tbody>${m.queues.map((q) => html`<tr key=${q.name} data-managed=${q.name}><th scope="row">${q.name}</th><td>${count(q.ready)}</td>
      <td>${count(q.unacked)}</td><td>${count(q.consumers)}</td><td>${rate(q.published_per_s)}</td><td>${rate(q.delivered_per_s)}</td>
      <td>${rate(q.acked_per_s)}</td></tr>`)}</tbody></table><//>
    ${m.queue_count > m.queues.length && html`<p class="quiet">${counted(m.queue_count - m.queues.length, "more queue")}.</p>`}</div>`;
}

/** @param {{broker: Broker | null}} props */
function BrokerPanel({ broker: b }) {
  if (!b)
    return html`<section class="panel" data-part="broker"><h3>RabbitMQ</h3>
      <p class="quiet">None is named: nodes come by HTTP or gRPC. <code>MUSTER_RABBITMQ_URL</code> names one.</p></section>`;
  return html`<section class="panel wide" data-part="broker"><header class="line"><h3>RabbitMQ</h3>
      <span class="end"><${Badge} of="part" word=${!b.connected ? "away" : b.error ? "in_trouble" : "connected"} /></span></header>
    <${Trouble} error=${b.error} next=${b.next_step} />
    <${Facts} facts=${[
      ["address", html`<code>${b.address}</code>`],
      ["server", b.product],
      [b.connected ? "connected" : "away", html`since <${Clock} at=${b.since_ms} />, <${Span} from=${b.since_ms} />`],
      ["connected anew", b.reconnects > 0 && counted(b.reconnects, "time")],
    ]} />
    <${TableBox} label="Queues of the broker"><table><thead><tr><th scope="col">Queue</th><th scope="col">Ready</th><th scope="col">Consumers</th>
      <th scope="col" title="of this control plane: delivered to it, and not acknowledged">Unacknowledged here</th>
      <th scope="col" title="by this control plane since its start">Received here</th><th scope="col">Refused here</th></tr></thead>
      <tbody>${b.queues.map((queue) => html`<${QueueRow} key=${queue.name} queue=${queue} />`)}</tbody></table><//>
    ${b.management && html`<${Managed} management=${b.management} />`}
  </section>`;
}

/** @param {{planes: ControlPlane[]}} props */
function Planes({ planes }) {
  return html`<section class="panel wide" data-part="planes"><h3>Control planes</h3><${TableBox} label="Control planes"><table>
    <thead><tr><th scope="col">Control plane</th><th scope="col">Host</th><th scope="col">Version</th><th scope="col">Up</th><th scope="col">Part</th></tr></thead>
    <tbody>${planes.map((plane) => html`<tr key=${plane.plane_id}>
      <th scope="row"><code>${plane.plane_id}</code> ${plane.here && html`<span class="tag">this one</span>`}</th>
      <td>${plane.hostname ?? UNKNOWN}</td><td>${plane.version ?? UNKNOWN}</td>
      <td>${plane.started_at_ms ? html`<${Span} from=${plane.started_at_ms} />` : UNKNOWN}</td>
      <td>${plane.leads === null ? UNKNOWN : html`<${Badge} of="part" word=${plane.leads ? "leads" : "stands_by"} />`}</td></tr>`)}</tbody>
    </table><//></section>`;
}

/** @param {{processes: GatewayProcess[]}} props */
const GatewayProcesses = ({ processes }) =>
  processes.length > 0 && html`<section class="panel wide" data-part="gateway-processes"><h3>Gateway processes</h3>
    <p class="quiet">Beside the control plane itself, on its port.</p>
    <${TableBox} label="Gateway processes"><table><thead><tr><th scope="col">Process</th><th scope="col">Pid</th><th scope="col">State</th>
      <th scope="col">Memory</th><th scope="col">Connections</th><th scope="col">Being answered</th><th scope="col">Restarts</th></tr></thead>
    <tbody>${processes.map((one) => html`<tr key=${one.number}><th scope="row">${one.number}</th><td>${one.pid ?? UNKNOWN}</td>
      <td><${Badge} of="part" word=${one.pid ? "answers" : "away"} /></td><td>${one.pid ? size(one.memory_mb) : UNKNOWN}</td>
      <td>${count(one.connections)}</td><td>${count(one.in_flight)}</td><td>${count(one.restarts)}</td></tr>`)}</tbody></table><//></section>`;

/** @type {Record<string, string>} */
const LINKS = { http: "HTTP", amqp: "RabbitMQ", grpc: "gRPC", memory: "in this process", v2: "/v2", hive: "hive" };

/** @param {{links: Link[], versions: Record<string, number>}} props */
function Nodes({ links, versions }) {
  return html`<section class="panel" data-part="links"><h3>How nodes come</h3>
    ${links.length === 0 ? html`<p class="quiet">No node has registered yet.</p>` : html`<${TableBox} label="Links"><table>
      <thead><tr><th scope="col">Link</th><th scope="col">Nodes</th><th scope="col">Connected</th></tr></thead>
      <tbody>${links.map((link) => html`<tr key=${link.name}><th scope="row">${LINKS[link.name] ?? (link.name || UNKNOWN)}</th>
        <td>${count(link.nodes)}</td><td>${count(link.connected)}</td></tr>`)}</tbody></table><//>
      <p class="quiet">Versions of agents: ${Object.entries(versions).map(([version, nodes]) => `${version} on ${counted(nodes, "node")}`).join(", ")}.</p>`}
  </section>`;
}

export function SystemPage() {
  useEffect(() => {
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const s = system.value;
  return html`<div class="system-page ${trouble.value ? "last-known" : ""}"><header class="heading"><h2>System</h2></header>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${s && html`<div class="panels"><${Planes} planes=${s.control_planes} />
      <${GatewayProcesses} processes=${s.gateway_processes} /><${StorePanel} store=${s.store} />
      <${Nodes} links=${s.links} versions=${s.node_versions} /><${BrokerPanel} broker=${s.broker} /></div>`}
  </div>`;
}
