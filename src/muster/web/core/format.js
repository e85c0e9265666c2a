// Figures as people read them. What is not known is said to be unknown, never shown as 0.

import { html, signal } from "./view.js";

export const UNKNOWN = "unknown";

/** The server's clock, moved on once a second: the browser's own may be wrong. */
export const now = signal(Date.now());
let skewMs = 0;

/** @param {number} serverTime in ms */
export function setClock(serverTime) {
  skewMs = serverTime - Date.now();
  tick();
}

function tick() {
  now.value = Date.now() + skewMs;
}
setInterval(tick, 1000);

/** @param {number | null | undefined} value */
export const percent = (value) => (value == null ? UNKNOWN : `${Math.round(value)} %`);

/** @param {number} mb */
function gigabytes(mb) {
  const gb = mb / 1024;
  return gb < 10 ? gb.toFixed(1) : String(Math.round(gb));
}

/** @param {number | null | undefined} usedMb @param {number | null | undefined} totalMb */
export function share(usedMb, totalMb) {
  if (usedMb == null && totalMb == null) return UNKNOWN;
  if (totalMb == null) return `${gigabytes(usedMb ?? 0)} GB`;
  return `${usedMb == null ? "?" : gigabytes(usedMb)} / ${gigabytes(totalMb)} GB`;
}

/** @param {number} ms */
export function duration(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${Math.floor(s)} s`;
  const two = (/** @type {number} */ value) => String(Math.floor(value)).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)} m ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two((s % 3600) / 60)} m`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

// Made once: to make one takes as long as to draw a row.
const NUMBER = new Intl.NumberFormat();
const CLOCK = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

/** @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${NUMBER.format(count)} ${count === 1 ? one : many}`;

/** @param {number} ms */
export const clockTime = (ms) => CLOCK.format(ms);

/** @param {number} ms */
const absolute = (ms) => DATE.format(ms);

/** How long ago, ticking, with the time itself on hover. @param {{at: number | null | undefined}} props */
export function Ago({ at }) {
  if (!at) return html`<span>never</span>`;
  const ms = now.value - at;
  const text = ms < 1500 ? "just now" : `${duration(ms)} ago`;
  return html`<time dateTime=${new Date(at).toISOString()} title=${absolute(at)}>${text}</time>`;
}

/**
 * How long from one time to another, or until now.
 * @param {{from: number, to?: number | null}} props
 */
export function Span({ from, to }) {
  return html`<time title=${absolute(from)}>${duration((to ?? now.value) - from)}</time>`;
}

/** @param {{at: number}} props */
export function Clock({ at }) {
  return html`<time dateTime=${new Date(at).toISOString()} title=${absolute(at)}>${clockTime(at)}</time>`;
}

/** Words of the vocabulary for reading: in_progress is "in progress". @param {string} word */
export const readable = (word) => word.replaceAll("_", " ");
