// What happened with a job, from its submit to its result, across machines: facts and lines of logs in the order of time.

import { html, useState } from "../core/view.js";
import { request } from "../core/api.js";
import { clockTime, readable } from "../core/format.js";

/** @typedef {{at_ms: number | null, source: string, kind: "event" | "line", text: string, level: string | null}} Entry */

/** @param {{id: string}} props */
export function Timeline({ id }) {
  const [told, setTold] = useState(/** @type {{entries: Entry[], notes: string[]} | null} */ (null));
  const [error, setError] = useState("");
  const look = () => {
    setError("");
    request(`/api/jobs/${encodeURIComponent(id)}/timeline`).then(setTold, (problem) => setError(problem.message));
  };
  return html`<section><div class="line"><h3>Timeline</h3><button onClick=${look}>${told ? "Look again" : "Show"}</button></div>
    ${error && html`<p class="error-text" role="alert">${error}</p>`}
    ${told && html`<ol class="timeline">${told.entries.map((entry, index) => html`<li key=${index} class=${entry.level === "error" ? "error-text" : ""}>
      <span class="quiet">${entry.at_ms === null ? "" : clockTime(entry.at_ms)}</span> <span class="quiet">${entry.source}</span>
      <span>${entry.kind === "event" ? html`<b>${readable(entry.text)}</b>` : entry.text}</span></li>`)}</ol>
      ${told.notes.map((note) => html`<p class="quiet" key=${note}>${note}</p>`)}`}
  </section>`;
}
