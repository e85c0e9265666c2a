// How a node came up: its steps one after the other, how long each took, and what failed.

import { html, useEffect, useState } from "../core/view.js";
import { load, request } from "../core/api.js";
import { Ago, counted, duration, readable } from "../core/format.js";
import { Badge } from "./badge.js";

const SETTLED_S = 60;

/**
 * @typedef {{name: string, state: "running" | "done" | "failed", took_ms: number | null, error: string | null}} Step
 * @typedef {{name: string, started: boolean, took_s: number | null, error: string | null}} Started
 * @typedef {{state: "unknown" | "starting" | "complete" | "failed", begun_at: number | null, took_s: number | null,
 *   workers: number | null, reason: string | null, steps: Step[], services: Started[]}} Told
 */

/** Where a step lies among all, in percent of the whole: they follow each other. @param {Step[]} steps */
function places(steps) {
  const whole = Math.max(1, steps.reduce((sum, step) => sum + (step.took_ms ?? 0), 0));
  let before = 0;
  return steps.map((step) => {
    const place = { left: (100 * before) / whole, width: Math.max(0.5, (100 * (step.took_ms ?? 0)) / whole) };
    before += step.took_ms ?? 0;
    return { ...place, left: Math.min(place.left, 100 - place.width) };
  });
}

/** @param {{step: Step, place: {left: number, width: number}}} props */
function StepRow({ step, place }) {
  return html`<li><span class="cut">${readable(step.name)}</span>
    <${Badge} of="step" word=${step.state} />
    <span class="track" aria-hidden="true"><span class="bar ${step.state === "failed" ? "failed" : ""}"
      style=${{ marginLeft: `${place.left}%`, width: `${place.width}%` }}></span></span>
    <span class="figure quiet">${step.took_ms === null ? "" : duration(step.took_ms)}</span>
    ${step.error && html`<p class="error-text">${step.error}</p>`}</li>`;
}

/** @param {{service: Started}} props */
const ServiceRow = ({ service: s }) =>
  html`<li class="line"><span>${s.name}</span> <${Badge} of="step" word=${s.started ? "done" : "failed"} />
    ${s.took_s !== null && html`<span class="quiet">${duration(s.took_s * 1000)}</span>`}
    ${s.error && html`<span class="error-text">${s.error}</span>`}</li>`;

/** @param {Told} told */
function outcome(told) {
  if (told.state === "starting") return "is coming up";
  if (told.state === "failed") return "did not come up";
  return `came up${told.took_s === null ? "" : ` in ${duration(told.took_s * 1000)}`}${told.workers === null ? "" : ` with ${counted(told.workers, "worker")}`}`;
}

/** @param {{id: string, machine: Machine}} props */
export function Startup({ id, machine: m }) {
  const [answer, setAnswer] = useState(/** @type {import("../core/api.js").Answer<Told>} */ ({}));
  const told = answer.value;
  // While it comes up, and where it just did, each of its words may be news.
  const settled = told !== undefined && told.state !== "starting" && m.uptime_seconds > SETTLED_S;
  const news = settled ? m.phase : m.last_seen;
  useEffect(() => load(() => request(`/api/v1/nodes/${encodeURIComponent(id)}/startup`), setAnswer), [id, news]);
  if (answer.error) return html`<section class="panel"><h3>Start</h3><p class="error-text">${answer.error}</p></section>`;
  if (!told) return null;
  if (told.state === "unknown")
    return html`<section class="panel"><h3>Start</h3><p class="quiet">The log of facts tells nothing of it (any more).</p></section>`;
  const at = places(told.steps);
  return html`<section class="panel" aria-label="Start"><h3>Start</h3>
    <p class=${told.state === "failed" ? "error-text" : ""}>It ${outcome(told)}, <${Ago} at=${told.begun_at} />.
      ${told.reason && ` ${told.reason}`}</p>
    <ol class="steps">${told.steps.map((step, index) => html`<${StepRow} key=${step.name} step=${step} place=${at[index]} />`)}</ol>
    ${told.services.length > 0 && html`<h4>Services</h4><ul class="rows">${told.services.map((service) => html`<${ServiceRow} key=${service.name} service=${service} />`)}</ul>`}
  </section>`;
}
