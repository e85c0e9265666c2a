// What of the fleet is shown: words that must all occur, and one health.

import { computed, html, signal } from "./view.js";
import { state } from "./state.js";
import { Badge } from "./badge.js";
import { HEALTH } from "./vocabulary.js";

export const text = signal("");
export const health = signal(/** @type {string | null} */ (null));

const words = computed(() => text.value.toLowerCase().split(/\s+/).filter(Boolean));

/** Records are replaced, never changed, so what can be found in one is put together once. @type {WeakMap<object, string>} */
const haystacks = new WeakMap();

/** @template {object} T @param {T} record @param {(record: T) => unknown[]} parts */
function matches(record, parts) {
  if (!words.value.length) return true;
  let haystack = haystacks.get(record);
  if (haystack === undefined) {
    haystack = parts(record).join(" ").toLowerCase();
    haystacks.set(record, haystack);
  }
  return words.value.every((word) => haystack.includes(word));
}

/** @param {import("./state.js").Node} node */
function wordsOfNode({ machine: m, workers }) {
  const labels = Object.entries(m.labels ?? {}).map(([name, value]) => `${name}=${value}`);
  const services = m.service_details.flatMap((s) => [s.name, s.connector]);
  const flags = [m.draining && "draining", m.late && "late"];
  const gpus = m.gpus.map((gpu) => gpu.name);
  return [m.machine_id, m.hostname, m.pool, m.link, m.status, m.health_status, ...labels, ...services, ...flags, ...gpus,
    ...m.models, ...workers.map((worker) => worker.worker_id)];
}

/** @param {Job} job */
const wordsOfJob = (job) => [job.job_id, job.service_required, job.status, job.worker_id, job.customer_id, job.workflow_id,
  job.error?.code, job.error?.message];

/** @param {Job} job */
export const jobMatches = (job) => matches(job, wordsOfJob);

export const nodeIds = computed(() =>
  state.nodeIds.value.filter((id) => {
    const node = state.nodes.get(id)?.value;
    return node && (!health.value || node.machine.health_status === health.value) && matches(node, wordsOfNode);
  }),
);

const healthCounts = computed(() => {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const node of state.nodes.values()) {
    const word = node.value.machine.health_status;
    counts[word] = (counts[word] ?? 0) + 1;
  }
  state.nodeIds.value; // nodes come and go
  return counts;
});

/** @param {string | null} choice */
const choose = (choice) => () => (health.value = health.value === choice ? null : choice);

export function HealthFilter() {
  const present = HEALTH.filter((word) => healthCounts.value[word] || health.value === word);
  return html`<div class="chips" role="group" aria-label="Show nodes by health">
    <button aria-pressed=${health.value === null} onClick=${choose(null)}>all <b>${state.nodeIds.value.length}</b></button>
    ${present.map(
      (word) => html`<button key=${word} aria-pressed=${health.value === word} onClick=${choose(word)}>
        <${Badge} of="health" word=${word} /> <b>${healthCounts.value[word] ?? 0}</b>
      </button>`,
    )}
  </div>`;
}

export function TextFilter() {
  return html`<input id="filter" type="search" placeholder="Filter nodes and jobs" aria-label="Filter nodes and jobs"
    title="Words that must all occur: names, labels, models, services, jobs, errors. Key: /" autocomplete="off"
    spellcheck=${false} value=${text} onInput=${(/** @type {InputEvent} */ event) => {
      text.value = /** @type {HTMLInputElement} */ (event.target).value;
    }} />`;
}

/** Said where a filter leaves nothing. @param {{what: string}} props */
export function NothingMatches({ what }) {
  const clear = () => {
    text.value = "";
    health.value = null;
  };
  return html`<p class="empty">No ${what} matches the filter. <button onClick=${clear}>Show all</button></p>`;
}
