// What of the fleet is shown, and in which order: words that must all occur, one health, one pool, labels.

import { computed, html, signal } from "../core/view.js";
import { followed } from "../core/hand.js";
import { state, steady } from "../core/state.js";
import { Badge } from "./badge.js";
import { HEALTH } from "../core/vocabulary.js";

export const text = signal("");
export const health = signal(/** @type {string | null} */ (null));
export const pool = signal(/** @type {string | null} */ (null));
/** `zone=a,gpu`: those with that value, and with any value. */
export const label = signal("");

/** Begins a word of the text that is a label. Jobs have none: they are not filtered by it. */
const OF_LABEL = "label:";
const LABELS_OFFERED = 200;

/** Healthy nodes come last: who sorts by health looks for the others. */
const WORST_FIRST = ["dead", "unhealthy", "stale", "degraded", "registering", "healthy"];

/** What is not known comes last. @param {number | null} a @param {number | null} b */
const highestFirst = (a, b) => (b ?? -1) - (a ?? -1);

/** @param {Line} line */
const freeMemory = (line) =>
  line.gpu_memory_total_gb == null || line.gpu_memory_used_gb == null ? null : line.gpu_memory_total_gb - line.gpu_memory_used_gb;

/** Equals stay in the order of their names. @type {Record<string, {title: string, order: ((a: Line, b: Line) => number) | null}>} */
export const ORDERS = {
  name: { title: "name", order: null },
  health: { title: "health, worst first", order: (a, b) => WORST_FIRST.indexOf(a.health_status) - WORST_FIRST.indexOf(b.health_status) },
  use: { title: "GPU use, highest first", order: (a, b) => highestFirst(a.gpu_percent, b.gpu_percent) },
  memory: { title: "free GPU memory, most first", order: (a, b) => highestFirst(freeMemory(a), freeMemory(b)) },
  idle: { title: "idle workers, most first", order: (a, b) => highestFirst(a.workers - a.workers_busy, b.workers - b.workers_busy) },
};
export const orderName = signal("name");

/** What is looked for: what a hand has chosen, as soon as that stands on the screen. */
const wanted = {
  text: followed(text),
  health: followed(health),
  pool: followed(pool),
  label: followed(label),
  order: followed(orderName),
};
/** Whether words are looked for. */
export const byWords = computed(() => wanted.text.value !== "");

const allWords = computed(() => wanted.text.value.toLowerCase().split(/\s+/).filter(Boolean));
const words = computed(() => allWords.value.filter((word) => !word.startsWith(OF_LABEL)));

/** Name and value of `name=value`; null: any value. @param {string} word @returns {[string, string | null]} */
function labelIn(word) {
  const [name = "", ...value] = word.trim().split("=");
  return [name, value.join("=") || null];
}

const wantedLabels = computed(() => {
  const inText = allWords.value.filter((word) => word.startsWith(OF_LABEL)).map((word) => word.slice(OF_LABEL.length));
  return [...wanted.label.value.toLowerCase().split(","), ...inText].map(labelIn).filter(([name]) => name);
});

/** @param {Line} line */
const hasLabels = (line) =>
  wantedLabels.value.every(([name, value]) =>
    Object.entries(line.labels).some(([known, its]) => known.toLowerCase() === name && (value === null || its.toLowerCase() === value)));

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

/** Workers are named after their node. @param {Line} line */
const wordsOfLine = (line) => [line.machine_id, line.hostname, line.pool, line.link, line.status, line.health_status,
  ...Object.entries(line.labels).map(([name, value]) => `${name}=${value}`), ...line.services, line.draining && "draining",
  line.late && "late", ...line.gpu_names, ...line.models, ...Array.from({ length: line.workers }, (_, i) => `${line.machine_id}-worker-${i}`)];

/** @param {Job} job */
const wordsOfJob = (job) => [job.job_id, job.service_required, job.status, job.worker_id, job.customer_id, job.workflow_id,
  job.error?.code, job.error?.message];

/** @param {Job} job */
export const jobMatches = (job) => matches(job, wordsOfJob);

const allLines = computed(() => state.nodeIds.value.flatMap((id) => state.lines.get(id)?.value ?? []));

export const lines = computed(() => {
  const found = allLines.value.filter((line) =>
    (!wanted.health.value || line.health_status === wanted.health.value) && (!wanted.pool.value || line.pool === wanted.pool.value) && hasLabels(line) && matches(line, wordsOfLine));
  const order = ORDERS[wanted.order.value]?.order;
  return order ? found.toSorted(order) : found;
});

const healthCounts = steady(() => {
  /** @type {Record<string, number>} */
  const counts = {};
  for (const { health_status: word } of allLines.value) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
});

const pools = steady(() => [...new Set(allLines.value.flatMap((line) => line.pool ?? []))].sort());

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

/** @param {{label: string, value: string, options: [string, string][], onChoice: (value: string) => void}} props options: value, text */
export function Choice({ label, value, options, onChoice }) {
  return html`<label class="choice">${label}
    <select value=${value} onChange=${(/** @type {Event} */ event) => onChoice(/** @type {HTMLSelectElement} */ (event.target).value)}>
      ${options.map(([name, title]) => html`<option key=${name} value=${name} selected=${name === value}>${title}</option>`)}
    </select></label>`;
}

export function PoolFilter() {
  if (!pools.value.length) return null;
  /** @type {[string, string][]} */
  const options = [["", "all"], ...pools.value.map((name) => /** @type {[string, string]} */ ([name, name]))];
  return html`<${Choice} label="Pool" value=${pool.value ?? ""} options=${options}
    onChoice=${(/** @type {string} */ name) => (pool.value = name || null)} />`;
}

const labels = steady(() =>
  [...new Set(allLines.value.flatMap((line) => Object.entries(line.labels).map(([name, value]) => `${name}=${value}`)))].sort());

export function LabelFilter() {
  if (!labels.value.length && !label.value) return null;
  return html`<label class="choice">Label
    <input type="search" list="labels" value=${label} placeholder="name=value" autocomplete="off" spellcheck=${false}
      title="Several with commas; a name alone for any value" onInput=${(/** @type {InputEvent} */ event) => {
        label.value = /** @type {HTMLInputElement} */ (event.target).value;
      }} />
    <datalist id="labels">${labels.value.slice(0, LABELS_OFFERED).map((word) => html`<option key=${word} value=${word} />`)}</datalist>
  </label>`;
}

export function OrderChoice() {
  const options = Object.entries(ORDERS).map(([name, { title }]) => [name, title]);
  return html`<${Choice} label="Sort by" value=${orderName.value} options=${options}
    onChoice=${(/** @type {string} */ name) => (orderName.value = name)} />`;
}

export function TextFilter() {
  return html`<input id="filter" type="search" placeholder="Filter nodes and jobs" aria-label="Filter nodes and jobs"
    title="Words that must all occur: names, labels, models, services, jobs, errors; label:name=value for one label. Key: /" autocomplete="off"
    spellcheck=${false} value=${text} onInput=${(/** @type {InputEvent} */ event) => {
      text.value = /** @type {HTMLInputElement} */ (event.target).value;
    }} />`;
}

/** Said where a filter leaves nothing. @param {{what: string}} props */
export function NothingMatches({ what }) {
  const clear = () => {
    text.value = "";
    health.value = null;
    pool.value = null;
    label.value = "";
  };
  return html`<p class="empty">No ${what} matches the filter. <button onClick=${clear}>Show all</button></p>`;
}
