// All nodes: cards to look at, or a table of a line each where there are many.

import { computed, html, signal } from "../core/view.js";
import { followed } from "../core/hand.js";
import { state, steady } from "../core/state.js";
import { nodeHref } from "../core/route.js";
import { percent } from "../core/format.js";
import { Badge, Meter } from "../parts/badge.js";
import { Card } from "../parts/card.js";
import { HealthFilter, LabelFilter, NothingMatches, OrderChoice, PoolFilter, lines } from "../parts/filter.js";
import { useNear } from "../parts/near.js";
import { Pager } from "../parts/pager.js";
import { TableBox } from "../parts/table.js";
import { useTurns } from "../parts/turns.js";

const VIEW_KEY = "muster-fleet-view";
const PER_PAGE = { cards: 60, table: 250 };
/** So few that a hand never waits long for them. */
const PER_FRAME = { cards: 1, table: 12 };
/** About as many as a screen has. */
const AT_FIRST = { cards: 4, table: 24 };

const view = signal(localStorage.getItem(VIEW_KEY) === "table" ? /** @type {const} */ ("table") : /** @type {const} */ ("cards"));
const page = signal(0);
const shownView = followed(view);
const shownPage = followed(page);
const pages = computed(() => Math.max(1, Math.ceil(lines.value.length / PER_PAGE[shownView.value])));
const first = computed(() => Math.min(shownPage.value, pages.value - 1) * PER_PAGE[shownView.value]);
const shown = steady(() => lines.value.slice(first.value, first.value + PER_PAGE[shownView.value]).map((line) => line.machine_id));

/** The nodes that have to be there in full: a table shows lines alone. */
export const inFull = computed(() => (shownView.value === "cards" ? shown.value : []));

function ViewChoice() {
  const choose = (/** @type {"cards" | "table"} */ name, /** @type {string} */ title) => html`<button
    aria-pressed=${view.value === name} onClick=${() => {
      view.value = name;
      page.value = 0;
      localStorage.setItem(VIEW_KEY, name);
    }}>${title}</button>`;
  return html`<div class="chips" role="group" aria-label="View">${choose("cards", "Cards")}${choose("table", "Table")}</div>`;
}

/** @param {Line} line */
const flags = (line) => [line.draining && "draining", line.late && "late", line.out_of_service > 0 && `${line.out_of_service} GPU out of service`]
  .filter(Boolean).join(", ");

/** @param {{id: string, drawn: boolean}} props */
function Row({ id, drawn }) {
  const line = drawn ? state.lines.get(id)?.value : undefined;
  if (!line) return html`<tr data-node=${id} aria-busy="true"><th scope="row">${id}</th></tr>`;
  const { gpu_memory_used_gb: used, gpu_memory_total_gb: total } = line;
  const memory = total == null ? null : { share: used == null ? null : (100 * used) / total, text: `${used ?? "?"} / ${total} GB` };
  return html`<tr data-node=${id}>
    <th scope="row" title=${id}><a href=${nodeHref(id)}>${id}</a></th>
    <td><${Badge} of="health" word=${line.health_status} /></td>
    <td title=${flags(line)}>${line.status} <span class="quiet">${flags(line)}</span></td>
    <td>${line.pool}</td>
    <td title=${line.gpu_names.join(", ")}>${line.gpu_count || ""} <span class="quiet">${line.gpu_names.join(", ")}</span></td>
    <td class="meter-cell">${line.gpu_count > 0 && html`<${Meter} label="GPU use" value=${line.gpu_percent} text=${percent(line.gpu_percent)} />`}</td>
    <td class="meter-cell">${memory && html`<${Meter} label="GPU memory" value=${memory.share} text=${memory.text} />`}</td>
    <td>${line.workers > 0 && `${line.workers_busy} of ${line.workers} busy`}</td>
  </tr>`;
}

function Table() {
  const ids = shown.value;
  const { list, near } = useNear(ids, AT_FIRST.table);
  const turns = useTurns(near, PER_FRAME.table);
  return html`<${TableBox} label="Nodes"><table class="nodes">
    <thead><tr><th scope="col">Node</th><th scope="col">Health</th><th scope="col">State</th><th scope="col">Pool</th><th scope="col">GPUs</th>
      <th scope="col">Use</th><th scope="col">Memory</th><th scope="col">Workers</th></tr></thead>
    <tbody ref=${list}>${ids.map((id) => html`<${Row} key=${id} id=${id} drawn=${turns.has(id)} />`)}</tbody>
  </table><//>`;
}

function Cards() {
  const ids = shown.value;
  const { list, near } = useNear(ids, AT_FIRST.cards);
  const turns = useTurns(near, PER_FRAME.cards);
  return html`<div class="cards" ref=${list}>${ids.map((id) => html`<${Card} key=${id} id=${id} drawn=${turns.has(id)} />`)}</div>`;
}

function Nodes() {
  if (!state.nodeIds.value.length)
    return html`<div class="empty">
      <p>No node has registered yet.</p>
      <p>Start an agent on any machine: <code>muster agent</code> with <code>MUSTER_CONTROL_PLANE=${location.origin}</code></p>
    </div>`;
  if (!shown.value.length) return html`<${NothingMatches} what="node" />`;
  if (shownView.value === "table") return html`<${Table} />`;
  return html`<${Cards} />`;
}

export function Fleet() {
  const turn = (/** @type {number} */ to) => {
    page.value = to;
    document.getElementById("fleet")?.scrollIntoView();
  };
  return html`<section id="fleet" aria-labelledby="fleet-title">
    <header class="heading"><h2 id="fleet-title">Nodes</h2><${HealthFilter} /><${PoolFilter} /><${LabelFilter} /><${OrderChoice} /><${ViewChoice} /></header>
    <${Nodes} />
    <${Pager} what="nodes" first=${first.value} shown=${shown.value.length} total=${lines.value.length}
      page=${Math.min(shownPage.value, pages.value - 1)} onTurn=${turn} />
  </section>`;
}
