// Queues: what waits and how fast it goes, held and let go; customers and their shares; what is submitted by the clock.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { Ago, Clock, duration } from "../core/format.js";
import { jobHref } from "../core/route.js";
import { Act } from "../parts/confirm.js";

const LOOK_EVERY_MS = 2_000;

/**
 * @typedef {{name: string, paused: boolean, waiting: number, unworkable: number, running: number, oldest_age_s: number | null,
 *   submitted_per_min: number, completed_per_min: number, failed_per_min: number}} Queue
 * @typedef {{customer_id: string, weight: number, running_max: number | null, waiting_max: number | null, waiting: number, running: number}} Customer
 * @typedef {{schedule_id: string, every_s: number | null, cron: string | null, paused: boolean, next_runs: number[],
 *   last_at: number | null, last_job_id: string | null}} Schedule
 */

const queues = signal(/** @type {{all_paused: boolean, queues: Queue[]} | null} */ (null));
const customers = signal(/** @type {Customer[]} */ ([]));
const schedules = signal(/** @type {Schedule[]} */ ([]));
const trouble = signal("");

async function look() {
  try {
    const [q, c, s] = await Promise.all([request("/api/queues"), request("/api/customers"), request("/api/schedules")]);
    queues.value = q;
    customers.value = c.customers;
    schedules.value = s.schedules;
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** @param {string} path */
const post = (path) => async () => {
  await request(path, { method: "POST" });
  await look();
};

/** @param {number} rate jobs a minute */
const rate = (rate) => (rate === 0 ? "0" : rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString());

/** @param {{name: string, paused: boolean}} props */
function Hold({ name, paused }) {
  const path = `/api/queues/${encodeURIComponent(name)}`;
  return paused
    ? html`<${Act} label="Resume" onSure=${post(`${path}/resume`)} />`
    : html`<${Act} label="Pause" question="Start nothing more of it?" yes="Pause it" no="No" onSure=${post(`${path}/pause`)} />`;
}

/** @param {{queue: Queue}} props */
function QueueRow({ queue: q }) {
  return html`<tr data-queue=${q.name}>
    <th scope="row">${q.name} ${q.paused && html`<span class="tag">paused</span>`}</th>
    <td>${q.waiting.toLocaleString()} ${q.unworkable > 0 && html`<span class="error-text">${q.unworkable.toLocaleString()} nobody can run</span>`}</td>
    <td>${q.oldest_age_s != null && duration(q.oldest_age_s * 1000)}</td>
    <td>${q.running.toLocaleString()}</td>
    <td>${rate(q.submitted_per_min)}</td><td>${rate(q.completed_per_min)}</td><td>${rate(q.failed_per_min)}</td>
    <td><${Hold} name=${q.name} paused=${q.paused} /></td>
  </tr>`;
}

/** @param {{state: {all_paused: boolean, queues: Queue[]}}} props */
function Queues({ state: { all_paused: held, queues: all } }) {
  return html`<section class="panel wide"><header class="line"><h3>Queues</h3>
      ${held && html`<span class="tag">all are paused</span>`}
      <span class="end">${held
        ? html`<${Act} label="Resume all" onSure=${post("/api/queues/all/resume")} />`
        : html`<${Act} label="Pause all" question="Start no job at all?" yes="Pause all" no="No" onSure=${post("/api/queues/all/pause")} />`}</span></header>
    ${all.length === 0 ? html`<p class="quiet">No job was submitted yet.</p>` : html`<div class="table-box"><table>
      <thead><tr><th scope="col">Service</th><th scope="col">Waiting</th><th scope="col">Oldest</th><th scope="col">Running</th>
        <th scope="col">Submitted / min</th><th scope="col">Completed / min</th><th scope="col">Failed / min</th><th scope="col"><span class="for-readers">Actions</span></th></tr></thead>
      <tbody>${all.map((queue) => html`<${QueueRow} key=${queue.name} queue=${queue} />`)}</tbody></table></div>`}
  </section>`;
}

function Customers() {
  if (!customers.value.length) return null;
  return html`<section class="panel"><h3>Customers</h3><div class="table-box"><table>
    <thead><tr><th scope="col">Customer</th><th scope="col">Share</th><th scope="col">Waiting</th><th scope="col">Running</th></tr></thead>
    <tbody>${customers.value.map((c) => html`<tr key=${c.customer_id}><th scope="row">${c.customer_id}</th><td>${c.weight}</td>
      <td>${c.waiting.toLocaleString()}${c.waiting_max != null && ` of at most ${c.waiting_max.toLocaleString()}`}</td>
      <td>${c.running.toLocaleString()}${c.running_max != null && ` of at most ${c.running_max.toLocaleString()}`}</td></tr>`)}</tbody></table></div>
  </section>`;
}

function Schedules() {
  if (!schedules.value.length) return null;
  return html`<section class="panel"><h3>Schedules</h3><ul class="rows">${schedules.value.map((s) => html`<li key=${s.schedule_id}>
    <div class="line"><b>${s.schedule_id}</b> <code>${s.cron ?? `every ${s.every_s} s`}</code> ${s.paused && html`<span class="tag">paused</span>`}
      <span class="end"><${Act} label=${s.paused ? "Resume" : "Pause"}
        onSure=${post(`/api/schedules/${encodeURIComponent(s.schedule_id)}/${s.paused ? "resume" : "pause"}`)} /></span></div>
    <p class="quiet">${s.next_runs[0] && html`next <${Clock} at=${s.next_runs[0]} />`}
      ${s.last_job_id && html` · last <a href=${jobHref(s.last_job_id)}><code>${s.last_job_id}</code></a> <${Ago} at=${s.last_at} />`}</p>
  </li>`)}</ul></section>`;
}

export function QueuesPage() {
  useEffect(() => {
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  return html`<div class="queues-page"><header class="heading"><h2>Queues</h2>
      <a class="end" href="#/system">Broker and store</a></header>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${queues.value && html`<div class="panels"><${Queues} state=${queues.value} /><${Customers} /><${Schedules} /></div>`}
  </div>`;
}
