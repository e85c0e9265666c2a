// One job in full: what was asked, what came of it, why it waits; with cancel and retry. Its address is #/jobs/<id>.

import { html, useEffect, useRef, useState } from "../core/view.js";
import { state, laneOf } from "../core/state.js";
import { fileAt, load, request } from "../core/api.js";
import { closeJob, openJobId } from "../core/route.js";
import { Badge, ProgressBar } from "../parts/badge.js";
import { Timeline } from "../parts/timeline.js";
import { Ago, Clock, Span, counted, percent } from "../core/format.js";

/** Longer texts are cut: a browser is not the place for megabytes. */
const MAX_JSON_CHARS = 20_000;
const EXPLAIN_EVERY_MS = 5_000;

/** @param {string} id @param {string} [action] */
const pathOf = (id, action) => `/api/jobs/${encodeURIComponent(id)}${action ? `/${action}` : ""}`;

/** @param {{title: string, value: unknown}} props */
function Json({ title, value }) {
  if (value == null) return null;
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
  const cut = text.length - MAX_JSON_CHARS;
  return html`<section><h3>${title}</h3>
    <pre tabindex="0">${text.slice(0, MAX_JSON_CHARS)}</pre>
    ${cut > 0 && html`<p class="quiet">${cut.toLocaleString()} more characters: see GET /api/jobs/…</p>`}
  </section>`;
}

/** The server's own words, asked for again while they may change. @param {{job: Job}} props */
function Explanation({ job }) {
  const [answer, setAnswer] = useState(/** @type {import("../core/api.js").Answer<Explanation>} */ ({}));
  useEffect(() => {
    let stop = () => {};
    const ask = () => {
      stop();
      stop = load(async () => (await request(pathOf(job.job_id, "explain"))).explanation, setAnswer);
    };
    ask();
    const timer = setInterval(ask, EXPLAIN_EVERY_MS);
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [job.job_id, job.status, job.attempt]);
  if (!answer.value) return answer.error && html`<p class="error-text">${answer.error}</p>`;
  const { summary, position, can_run: canRun, candidates } = answer.value;
  return html`<section class="why"><h3>Why it waits</h3>
    <p>${summary}</p>
    <p class="quiet">
      ${job.status === "pending" && position != null && (position ? `${counted(position, "job")} before it. ` : "First in line. ")}
      ${counted(canRun.length, "kind of worker", "kinds of workers")} can run it.
    </p>
    ${candidates.map(
      (c) => html`<div key=${c.class_id} class="candidate">
        <code>${c.class_id}</code> <span class="quiet">${counted(c.sessions, "worker")} online</span>
        <ul>${c.mismatches.length ? c.mismatches.map((m) => html`<li>${m.text}</li>`) : html`<li>can run it</li>`}</ul>
      </div>`,
    )}
  </section>`;
}

/** @param {{job: Job}} props */
function Actions({ job }) {
  const [asking, setAsking] = useState(false);
  const [error, setError] = useState("");
  const act = (/** @type {string} */ action) => async () => {
    setAsking(false);
    setError("");
    try {
      await request(pathOf(job.job_id, action), { method: "POST" });
    } catch (problem) {
      setError(/** @type {Error} */ (problem).message);
    }
  };
  const lane = laneOf(job.status);
  const ended = lane === "finished" || lane === "failed";
  return html`<div class="actions">
    ${!ended && !asking && html`<button onClick=${() => setAsking(true)}>Cancel job</button>`}
    ${!ended && asking &&
    html`<button class="danger" onClick=${act("cancel")}>Yes, cancel it</button>
      <button onClick=${() => setAsking(false)}>Keep it</button>`}
    ${ended && job.status !== "completed" && html`<button onClick=${act("retry")}>Retry job</button>`}
    ${error && html`<p class="error-text" role="alert">${error}</p>`}
  </div>`;
}

/** @param {{job: Job}} props */
function Facts({ job }) {
  /** @type {[string, unknown][]} */
  const facts = [
    ["service", job.service_required],
    ["worker", job.worker_id],
    ["attempt", `${job.attempt} (${job.retry_count} of ${counted(job.max_retries, "retry", "retries")} used)`],
    ["priority", job.workflow_priority ?? job.priority],
    ["submitted", html`<${Clock} at=${job.created_at} />, <${Ago} at=${job.created_at} />`],
    ["waited", html`<${Span} from=${job.created_at} to=${job.started_at ?? job.completed_at} />`],
    ["started", job.started_at && html`<${Clock} at=${job.started_at} />`],
    ["ran", job.started_at && html`<${Span} from=${job.started_at} to=${job.completed_at} />`],
    ["ended", job.completed_at && html`<${Clock} at=${job.completed_at} />, <${Ago} at=${job.completed_at} />`],
    ["next attempt", laneOf(job.status) === "waiting" && job.next_attempt_at && html`<${Clock} at=${job.next_attempt_at} />`],
    ["time limit", `${job.timeout_s} s for each attempt`],
    ["workflow", job.workflow_id && `${job.workflow_id}${job.step_number == null ? "" : `, step ${job.step_number}`}`],
    ["customer", job.customer_id],
  ];
  return html`<dl>${facts.filter(([, value]) => value != null && value !== false && value !== 0)
    .map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

/** The newest picture of what is being made; the one before stays until it is there. @param {{url: string}} props */
function Preview({ url }) {
  const [shown, setShown] = useState("");
  useEffect(
    () => load(() => fileAt(url), ({ value }) => value && setShown(URL.createObjectURL(value))),
    [url],
  );
  useEffect(() => () => URL.revokeObjectURL(shown), [shown]);
  return shown && html`<img class="preview" src=${shown} alt="what it looks like so far" />`;
}

/** @param {{id: string, live: Job | undefined}} props */
function Body({ id, live }) {
  const [answer, setAnswer] = useState(/** @type {import("../core/api.js").Answer<FullJob>} */ ({}));
  // The live record is slim: what was asked and what came of it is fetched again with each step of its life.
  useEffect(() => load(async () => (await request(pathOf(id))).job, setAnswer), [id, live?.status, live?.attempt]);
  const full = answer.value;
  const job = live ?? full;
  if (!job) return html`<p class=${answer.error ? "error-text" : "quiet"}>${answer.error ?? "Loading …"}</p>`;
  const lane = laneOf(job.status);
  return html`
    <div class="line"><${Badge} of="job" word=${job.status} /><${Actions} key=${id} job=${job} /></div>
    ${lane === "running" &&
    html`<p class="line"><${ProgressBar} progress=${job.progress} />
        <span class="figure">${job.progress?.fraction == null ? "" : percent(job.progress.fraction * 100)}</span></p>
      <p class="quiet">${job.progress?.message}</p>
      ${job.progress?.preview_url?.startsWith("/api/files/") && html`<${Preview} url=${job.progress.preview_url} />`}`}
    ${job.error && html`<section class="failure"><h3>${job.error.code}</h3><p>${job.error.message}</p></section>`}
    ${lane === "waiting" && html`<${Explanation} key=${id} job=${job} />`}
    <${Facts} job=${job} />
    ${answer.error && html`<p class="error-text">${answer.error}</p>`}
    <${Timeline} key=${`timeline ${id}`} id=${id} />
    <${Json} title="Result" value=${full?.result} />
    <${Json} title="Payload" value=${full?.payload} />
    ${Object.keys(full?.requirements ?? {}).length > 0 && html`<${Json} title="Requirements" value=${full?.requirements} />`}`;
}

export function JobSheet() {
  const id = openJobId.value;
  const closer = useRef(/** @type {HTMLButtonElement | null} */ (null));
  useEffect(() => {
    if (id === null) return undefined;
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    closer.current?.focus();
    return () => before?.focus();
  }, [id === null]);
  if (id === null) return null;
  return html`<dialog open class="drawer" aria-labelledby="drawer-title">
    <header class="line">
      <h2 id="drawer-title"><span class="quiet">Job</span> <code>${id}</code></h2>
      <button ref=${closer} class="end" onClick=${closeJob} aria-label="Close" title="Close (Esc)">✕</button>
    </header>
    <${Body} key=${id} id=${id} live=${state.job(id)} />
  </dialog>`;
}
