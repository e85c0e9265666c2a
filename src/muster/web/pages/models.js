// Models: where each is, loaded or on disk, and how it gets to other nodes.

import { html, signal, useEffect, useState } from "../core/view.js";
import { state } from "../core/state.js";
import { request } from "../core/api.js";
import { nodeHref } from "../core/route.js";
import { Ago, percent, readable } from "../core/format.js";
import { Act } from "../parts/confirm.js";
import { Pager } from "../parts/pager.js";

const LOOK_EVERY_MS = 2_000;
const PER_PAGE = 50;

/**
 * @typedef {{node_id: string, service: string, resident: boolean | null, on_demand: boolean, pinned: boolean, memory_mb: number | null,
 *   used_at: number | null, asked_by: string | null, reasons: string[]}} Holder
 * @typedef {{node_id: string, state: string, size_bytes: number | null, fraction: number | null, pinned: boolean, error: string | null}} Copy
 * @typedef {{name: string, kind: string, capabilities: string[], size_bytes: number | null, context_length: number | null,
 *   parameter_size: string | null, quantization: string | null, nodes: Holder[], copies: Copy[], replicated: boolean}} FleetModel
 */

const models = signal(/** @type {FleetModel[] | null} */ (null));
const total = signal(0);
const page = signal(0);
const words = signal("");
const trouble = signal("");

async function look() {
  const query = new URLSearchParams({ page: String(page.peek() + 1), limit: String(PER_PAGE) });
  if (words.peek()) query.set("q", words.peek());
  try {
    const { body, headers } = await request(`/api/v1/models?${query}`, { withHeaders: true });
    models.value = body;
    total.value = Number(headers.get("X-Total-Count") ?? body.length);
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** @param {number | null} bytes */
const size = (bytes) => (bytes == null ? "" : bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

/** @param {string} action @param {string} model @param {string[] | null} nodes null: all */
async function order(action, model, nodes) {
  await request(`/api/v1/models/${action}`, { method: "POST", json: { model, ...(nodes ? { nodes } : { all: true }) } });
  await look();
}

/** @param {{label: string, onChoice: (node: string) => Promise<unknown>, except?: string[]}} props */
function OnNode({ label, onChoice, except = [] }) {
  const [node, setNode] = useState("");
  const others = state.nodeIds.value.filter((id) => !except.includes(id));
  if (!others.length) return null;
  return html`<span class="asked"><select aria-label="${label} to node" onChange=${(/** @type {Event} */ event) => setNode(/** @type {HTMLSelectElement} */ (event.target).value)}>
      <option value="" selected=${!node}>${label} to …</option>${others.map((id) => html`<option key=${id} value=${id} selected=${id === node}>${id}</option>`)}</select>
    ${node && html`<${Act} label=${label} onSure=${() => onChoice(node).then(() => setNode(""))} />`}</span>`;
}

/** @param {Copy} copy */
const stateOf = (copy) => (copy.state === "resident" ? "in memory" : readable(copy.state));

/** @param {Copy} copy */
const told = (copy) => [stateOf(copy) + (copy.fraction == null ? "" : ` ${percent(copy.fraction * 100)}`), copy.pinned && "pinned"].filter(Boolean).join(", ");

/** What a node has of a model, be it a file, in memory or both. @param {{name: string, node: string, copies: Copy[], holders: Holder[]}} props */
function On({ name, node, copies, holders }) {
  const loaded = holders.some((holder) => holder.resident);
  const others = copies.filter((copy) => !loaded || copy.state !== "resident");
  const failed = others.some((copy) => copy.state === "failed");
  return html`<li data-node=${node}><a href=${nodeHref(node)}>${node}</a> ${others.length > 0 && html`<span class=${failed ? "error-text" : "quiet"}>${[...new Set(others.map(told))].join(", ")}</span>`}
    ${others.map((copy) => copy.error && html` <span class="error-text">${copy.error}</span>`)}
    ${holders.map((holder) => html`<${Held} key=${holder.service} name=${name} holder=${holder} more=${others.length > 0} />`)}</li>`;
}

/** What may be loaded and unloaded by command: since when, for whom, and the means; `more`: after what is said of its file.
 * @param {{name: string, holder: Holder, more: boolean}} props */
function Held({ name, holder: h, more }) {
  const facts = [h.resident ? "in memory" : !more && "on disk", h.memory_mb && size(h.memory_mb * 1048576), h.pinned && "pinned", h.asked_by && `for ${h.asked_by}`].filter(Boolean);
  /** @param {string} action */
  const ask = (action) => () => order(action, name, [h.node_id]);
  return html`<span data-holder=${`${h.node_id}/${h.service}`}><span class="quiet">${more && facts.length > 0 && "· "}${facts.join(", ")}${h.used_at != null && html`, used <${Ago} at=${h.used_at} />`}</span>
    ${h.resident
      ? html`<${Act} label="Unload" question="Take ${name} out of memory on ${h.node_id}?" yes="Unload it" no="No" onSure=${ask("unload")} />`
      : html`<${Act} label="Load" question="Load ${name} on ${h.node_id}?" yes="Load it" no="No" onSure=${ask("load")} />`}
    ${h.pinned
      ? html`<${Act} label="Unpin" question="Let ${name} go from ${h.node_id} when others need room?" yes="Unpin it" no="No" onSure=${ask("unpin")} />`
      : html`<${Act} label="Pin" question="Keep ${name} in memory on ${h.node_id}?" yes="Pin it" no="No" onSure=${ask("pin")} />`}</span>`;
}

/** @param {{model: FleetModel}} props */
function Row({ model: m }) {
  const facts = [m.kind !== "model" && m.kind, m.parameter_size, m.quantization, m.context_length && `${m.context_length.toLocaleString()} tokens`, ...m.capabilities].filter(Boolean);
  const held = m.nodes.filter((holder) => holder.on_demand);
  const nodes = [...new Set([...m.copies, ...held].map((one) => one.node_id))];
  const kept = [...new Set(m.copies.filter((copy) => copy.state === "on_disk" && copy.size_bytes != null).map((copy) => copy.node_id))];
  return html`<tr data-model=${m.name}>
    <th scope="row" class="wrap">${m.name}<br /><span class="quiet">${facts.join(" · ")}</span></th>
    <td>${size(m.size_bytes)}</td>
    <td><ul>${nodes.map((node) => html`<${On} key=${node} name=${m.name} node=${node} copies=${m.copies.filter((copy) => copy.node_id === node)}
      holders=${held.filter((holder) => holder.node_id === node)} />`)}</ul></td>
    <td>${kept.length > 0 && html`<${OnNode} label="Copy" except=${m.copies.map((copy) => copy.node_id)} onChoice=${(/** @type {string} */ node) => order("copy", m.name, [node])} />
      <${Act} label="Remove" question="Delete it from ${kept.join(", ")}?" yes="Delete it" no="No" danger=${true}
        onSure=${() => order("remove", m.name, kept)} />`}</td>
  </tr>`;
}

function Pull() {
  const [model, setModel] = useState("");
  const name = model.trim();
  return html`<form class="inline" onSubmit=${(/** @type {SubmitEvent} */ event) => event.preventDefault()}>
    <label>Fetch <input value=${model} placeholder="hf:org/repo, ollama:name or https://…" autocomplete="off" spellcheck=${false} size="34"
      onInput=${(/** @type {Event} */ event) => setModel(/** @type {HTMLInputElement} */ (event.target).value)} /></label>
    ${name && html`<${OnNode} label="Fetch" onChoice=${(/** @type {string} */ node) => order("pull", name, [node])} />
      <${Act} label="Fetch to all" question="Fetch it to every node?" yes="To all" no="No" onSure=${() => order("pull", name, null)} />`}
  </form>`;
}

export function ModelsPage() {
  useEffect(() => {
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, [page.value, words.value]);
  const first = page.value * PER_PAGE;
  return html`<div class="models-page"><header class="heading"><h2>Models</h2>
      <label class="choice">With <input type="search" value=${words} autocomplete="off" spellcheck=${false} onInput=${(/** @type {Event} */ event) => {
        words.value = /** @type {HTMLInputElement} */ (event.target).value.trim();
        page.value = 0;
      }} /></label></header>
    <${Pull} />
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${models.value?.length === 0 && html`<p class="empty">${words.value ? "No model matches." : "No node has a model yet."}</p>`}
    ${models.value && models.value.length > 0 && html`<div class="table-box"><table>
      <thead><tr><th scope="col">Model</th><th scope="col">Size</th><th scope="col">Where</th><th scope="col"><span class="for-readers">Actions</span></th></tr></thead>
      <tbody>${models.value.map((model) => html`<${Row} key=${model.name} model=${model} />`)}</tbody></table></div>
      <${Pager} what="models" first=${first} shown=${models.value.length} total=${total.value} page=${page.value} onTurn=${(/** @type {number} */ to) => (page.value = to)} />`}
  </div>`;
}
