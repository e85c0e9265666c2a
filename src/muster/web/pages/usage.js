// Usage: what was asked of models, by whom, day by day; for admins, and for their spreadsheets.

import { html, signal, useEffect } from "../core/view.js";
import { fileAt, request } from "../core/api.js";
import { duration } from "../core/format.js";
import { Chart } from "../parts/chart.js";
import { Choice } from "../parts/filter.js";

const DAY_MS = 86_400_000;
const LOOK_EVERY_MS = 30_000;

/**
 * @typedef {{at: string | null, token: string | null, token_name: string | null, model: string | null, requests: number,
 *   requests_estimated: number, prompt_tokens: number, completion_tokens: number, tokens: number, worker_s: number,
 *   watt_hours: number | null}} Row
 */

const days = signal("30");
const rows = signal(/** @type {{rows: Row[], total: number} | null} */ (null));
const course = signal(/** @type {Row[]} */ ([]));
const trouble = signal("");

/** The days that are shown, in UTC as the server counts them, today last. */
const shown = () => {
  const today = Math.floor(Date.now() / DAY_MS);
  return Array.from({ length: Number(days.peek()) }, (_, back) => new Date((today - Number(days.peek()) + 1 + back) * DAY_MS).toISOString().slice(0, 10));
};

async function look() {
  const from = shown()[0];
  try {
    const [table, daily] = await Promise.all([
      request(`/api/v1/usage?by=token,model&from=${from}`),
      request(`/api/v1/usage?by=day&from=${from}`),
    ]);
    rows.value = { rows: table.usage, total: table.total };
    course.value = daily.usage;
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

async function save() {
  try {
    const address = URL.createObjectURL(await fileAt(`/api/v1/usage?by=token,model,day&format=csv&from=${shown()[0]}`));
    Object.assign(document.createElement("a"), { href: address, download: "usage.csv" }).click();
    URL.revokeObjectURL(address);
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

const number = (/** @type {number} */ value) => value.toLocaleString();
const energy = (/** @type {number} */ value) => (value < 1000 ? `${value.toFixed(1)} Wh` : `${(value / 1000).toFixed(2)} kWh`);

function Charts() {
  const known = new Map(course.value.map((row) => [row.at, row]));
  /** A day of which nothing is told had no requests, but what they took may be unknown. @param {(row: Row) => number | null} of */
  const points = (of) => shown().map((day) => {
    const row = known.get(day);
    return { at: Date.parse(day), value: row ? of(row) : 0 };
  });
  const since = `by day since ${shown()[0]}`;
  return html`<section class="panel wide charts" aria-label="By day">
    <${Chart} title="Tokens" points=${points((row) => row.tokens)} text=${number} since=${since} />
    <${Chart} title="Requests" points=${points((row) => row.requests)} text=${number} since=${since} />
    <${Chart} title="Energy, estimated" points=${points((row) => row.watt_hours)} text=${energy} since=${since} />
  </section>`;
}

/** @param {{row: Row}} props */
function Line({ row: r }) {
  return html`<tr data-usage="${r.token} ${r.model}">
    <th scope="row">${r.token_name ?? r.token} ${r.token_name && html`<span class="quiet">${r.token}</span>`}</th>
    <td>${r.model}</td>
    <td class="number">${number(r.requests)} ${r.requests_estimated > 0 && html`<span class="quiet">${number(r.requests_estimated)} estimated</span>`}</td>
    <td class="number">${number(r.prompt_tokens)}</td><td class="number">${number(r.completion_tokens)}</td><td class="number">${number(r.tokens)}</td>
    <td class="number">${duration(r.worker_s * 1000)}</td>
    <td class="number">${r.watt_hours === null ? html`<span class="quiet">unknown</span>` : energy(r.watt_hours)}</td>
  </tr>`;
}

/** @param {{rows: Row[], total: number}} props */
function Table({ rows, total }) {
  if (!rows.length) return html`<p class="empty">Nothing was used in this time.</p>`;
  return html`<div class="table-box"><table>
    <thead><tr><th scope="col">Token</th><th scope="col">Model</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Prompt</th>
      <th scope="col" class="number">Completion</th><th scope="col" class="number">Tokens</th><th scope="col" class="number">Worker time</th><th scope="col" class="number">Energy</th></tr></thead>
    <tbody>${[...rows].sort((a, b) => b.tokens - a.tokens).map((row) => html`<${Line} key=${`${row.token} ${row.model}`} row=${row} />`)}</tbody></table></div>
    ${total > rows.length && html`<p class="quiet">${number(rows.length)} of ${number(total)}; the export has all.</p>`}`;
}

export function UsagePage() {
  useEffect(() => {
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<div class="usage-page"><header class="heading"><h2>Usage</h2>
      <${Choice} label="Time" value=${days.value} options=${[["7", "7 days"], ["30", "30 days"], ["90", "90 days"]]} onChoice=${(/** @type {string} */ choice) => {
        days.value = choice;
        look();
      }} />
      <button onClick=${save}>Export as CSV</button></header>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${rows.value && html`<${Charts} /><${Table} ...${rows.value} />`}
  </div>`;
}
