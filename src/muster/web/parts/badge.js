// Status as shape, colour and word together: each can be read without the others.

import { html } from "../core/view.js";
import { readable } from "../core/format.js";

/** @typedef {"good" | "busy" | "warn" | "bad" | "quiet"} Tone */
/** @typedef {keyof typeof SHAPES} Shape */

/** @param {number} radius around the middle of a box of 16 by 16 */
const circle = (radius) => `M8 ${8 - radius}a${radius} ${radius} 0 1 0 0 ${2 * radius}a${radius} ${radius} 0 1 0 0-${2 * radius}z`;

/** Paths with their class. */
const SHAPES = {
  check: [["fill", circle(7)], ["cut", "M4.8 8.3l2.2 2.3 4.2-4.8"]],
  cross: [["fill", circle(7)], ["cut", "M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2"]],
  triangle: [["fill", "M8 1.2L15.4 14.4H.6z"], ["cut", "M8 6v3.6M8 11.6v.9"]],
  ring: [["line", circle(5.6)]],
  dots: [["line dashed", circle(5.6)]],
  half: [["line", circle(5.6)], ["fill", "M8 2.4a5.6 5.6 0 0 1 0 11.2z"]],
  clock: [["line", circle(6)], ["line", "M8 4.4V8l2.4 1.8"]],
  square: [["fill", "M2.5 2.5h11v11h-11z"]],
  slash: [["line", circle(6)], ["line", "M4 12L12 4"]],
  arrow: [["line", circle(6)], ["line", "M8 4.8v6M5.6 8.6L8 11l2.4-2.4"]],
};

/** @type {Record<Health, [Shape, Tone]>} */
const HEALTH = {
  registering: ["dots", "quiet"],
  healthy: ["check", "good"],
  degraded: ["triangle", "warn"],
  unhealthy: ["cross", "bad"],
  stale: ["clock", "warn"],
  dead: ["square", "bad"],
};

/** @type {Record<WorkerStatus, [Shape, Tone]>} */
const WORKER = {
  starting: ["dots", "quiet"],
  idle: ["ring", "quiet"],
  busy: ["half", "busy"],
  draining: ["arrow", "warn"],
  stopped: ["square", "quiet"],
  error: ["cross", "bad"],
};

/** @type {Record<ServiceStatus, [Shape, Tone]>} */
const SERVICE = {
  starting: ["dots", "quiet"],
  running: ["check", "good"],
  unhealthy: ["triangle", "warn"],
  stopping: ["arrow", "quiet"],
  stopped: ["square", "quiet"],
  failed: ["cross", "bad"],
};

/** @type {Record<JobStatus, [Shape, Tone]>} */
const JOB = {
  pending: ["clock", "quiet"],
  assigned: ["dots", "busy"],
  in_progress: ["half", "busy"],
  completed: ["check", "good"],
  failed: ["cross", "bad"],
  cancelled: ["slash", "quiet"],
  timeout: ["clock", "bad"],
  unworkable: ["triangle", "warn"],
};

/** Of what the fleet stands on. @type {Record<string, [Shape, Tone]>} */
const PART = {
  answers: ["check", "good"],
  connected: ["check", "good"],
  leads: ["check", "good"],
  in_trouble: ["triangle", "warn"],
  away: ["cross", "bad"],
  stands_by: ["ring", "quiet"],
};

/** Of a start. @type {Record<string, [Shape, Tone]>} */
const STEP = { running: ["half", "busy"], done: ["check", "good"], failed: ["cross", "bad"] };

/** A newer server may know more words than this page. @type {[Shape, Tone]} */
const OTHER = ["ring", "quiet"];
/** @type {Record<string, Record<string, [Shape, Tone]>>} */
const LOOKS = { health: HEALTH, worker: WORKER, service: SERVICE, job: JOB, part: PART, step: STEP };

/** @param {{of: "health" | "worker" | "service" | "job" | "part" | "step", word: string, bare?: boolean}} props */
export function Badge({ of, word, bare = false }) {
  const [shape, tone] = LOOKS[of]?.[word] ?? OTHER;
  const text = readable(word);
  return html`<span class="badge ${tone}" title=${bare ? text : undefined}>
    <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
      ${SHAPES[shape].map(([name, d]) => html`<path class=${name} d=${d} />`)}
    </svg>
    <span class=${bare ? "for-readers" : "word"}>${text}</span>
  </span>`;
}

/** @param {number | null} value in percent; null draws a hatched track @param {Record<string, unknown>} meaning ARIA */
function track(value, meaning) {
  return html`<span class="track ${value === null ? "unknown" : ""}" ...${meaning}>
    <span class="bar" style=${{ width: `${value ?? 0}%` }}></span>
  </span>`;
}

/** @param {number | null | undefined} value */
const within = (value) => (value == null ? null : Math.round(Math.min(100, Math.max(0, value))));

/**
 * A bar with its figure. Without a figure it is hatched and says so.
 * @param {{label: string, value: number | null | undefined, text: string, high?: number}} props value in percent;
 *   from `high` on it is drawn as a warning
 */
export function Meter({ label, value, text, high = Infinity }) {
  const known = within(value);
  const meaning =
    known === null
      ? { role: "img", "aria-label": `${label}: ${text}` }
      : { role: "meter", "aria-label": label, "aria-valuenow": known, "aria-valuetext": text };
  return html`<span class="meter ${known !== null && known >= high ? "high" : ""}">
    ${track(known, meaning)}<span class="figure ${known === null ? "quiet" : ""}">${text}</span>
  </span>`;
}

/** @param {{progress: Progress | null}} props */
export function ProgressBar({ progress }) {
  const known = within(progress?.fraction == null ? null : progress.fraction * 100);
  return track(known, { role: "progressbar", "aria-label": "progress", ...(known !== null && { "aria-valuenow": known }) });
}
