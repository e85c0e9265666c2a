// Jobs by state: what runs, what waits and in which order, what failed and why, what is done.

import { html, useState } from "../core/view.js";
import { state } from "../core/state.js";
import { Badge, ProgressBar } from "./badge.js";
import { Ago, Span, now, percent, duration } from "../core/format.js";
import { byWords, jobMatches } from "./filter.js";
import { jobHref, openJobId } from "../core/route.js";

const ROWS_AT_FIRST = 25;

/** @type {{lane: import("../core/state.js").Lane, title: string, none: string}[]} */
const LANES = [
  { lane: "running", title: "Running", none: "Nothing runs." },
  { lane: "waiting", title: "Waiting", none: "Nothing waits." },
  { lane: "failed", title: "Failed", none: "Nothing has failed." },
  { lane: "finished", title: "Finished", none: "Nothing has finished yet." },
];

/** @param {{job: Job}} props */
function Running({ job }) {
  const { progress } = job;
  return html`
    <span class="line"><${ProgressBar} progress=${progress} />
      <span class="figure">${progress?.fraction == null ? "" : percent(progress.fraction * 100)}</span></span>
    <span class="line quiet">
      <span class="cut">${job.worker_id}${job.attempt > 1 && ` · attempt ${job.attempt}`}</span>
      <span class="end cut">${progress?.message}</span>
    </span>`;
}

/** @param {{job: Job}} props */
function Waiting({ job }) {
  const retryIn = job.next_attempt_at == null ? 0 : job.next_attempt_at - now.value;
  const error = job.error && `after ${job.error.code}: ${job.error.message}`;
  return html`
    ${job.status === "unworkable" && html`<span class="error-text">no node can run this</span>`}
    ${retryIn > 0 && html`<span class="line quiet"><span>tries again in ${duration(retryIn)}</span></span>`}
    ${error && html`<span class="line quiet"><span class="cut" title=${error}>${error}</span></span>`}`;
}

/** @param {{job: Job}} props */
function Failed({ job }) {
  const { code, message } = job.error ?? { code: job.status, message: "the service gave no reason" };
  return html`<span class="error-text clamp" title=${message}><b>${code}</b> ${message}</span>`;
}

/** @param {{job: Job, lane: string}} props */
function When({ job, lane }) {
  if (lane === "running") return html`<${Span} from=${job.started_at ?? job.created_at} />`;
  if (lane === "waiting") return html`<${Span} from=${job.created_at} />`;
  const took = job.status === "completed" && job.started_at != null;
  return html`${took && html`took <${Span} from=${job.started_at} to=${job.completed_at} /> · `}<${Ago} at=${job.completed_at} />`;
}

/** @param {{job: Signal<Job>, lane: import("../core/state.js").Lane}} props */
function JobRow({ job: source, lane }) {
  const job = source.value;
  return html`<li>
    <a href=${jobHref(job.job_id)} data-job=${job.job_id} aria-current=${openJobId.value === job.job_id}>
      <span class="line">
        <${Badge} of="job" word=${job.status} bare=${true} />
        <b class="cut">${job.service_required}</b>
        <code class="cut">${job.job_id}</code>
        ${lane === "waiting" && html`<span class="priority" title="priority: higher goes first">p${job.workflow_priority ?? job.priority}</span>`}
        <span class="end quiet"><${When} job=${job} lane=${lane} /></span>
      </span>
      ${lane === "running" && html`<${Running} job=${job} />`}
      ${lane === "waiting" && html`<${Waiting} job=${job} />`}
      ${lane === "failed" && html`<${Failed} job=${job} />`}
    </a>
  </li>`;
}

/** @param {typeof LANES[number]} props */
function LaneList({ lane, title, none }) {
  const [rows, setRows] = useState(ROWS_AT_FIRST);
  const all = state.lanes.value[lane];
  const found = byWords.value ? all.filter((job) => jobMatches(job.peek())) : all;
  const total = Math.max(all.length, state.jobCounts.value[lane]);
  const count = byWords.value ? `${found.length} of ${total.toLocaleString()}` : total.toLocaleString();
  const more = Math.min(found.length - rows, ROWS_AT_FIRST);
  const beyond = byWords.value ? 0 : total - found.length;
  return html`<details class="lane ${lane}" open>
    <summary><h3>${title}</h3> <b class="count">${count}</b></summary>
    ${found.length > 0
      ? html`<ul>${found.slice(0, rows).map((job) => html`<${JobRow} key=${job.peek().job_id} job=${job} lane=${lane} />`)}</ul>`
      : html`<p class="quiet">${all.length ? "None matches the filter." : none}</p>`}
    ${more > 0 && html`<button onClick=${() => setRows(rows + ROWS_AT_FIRST)}>Show ${more} more</button>`}
    ${more <= 0 && beyond > 0 && html`<p class="quiet">${beyond.toLocaleString()} more are kept by the server.</p>`}
  </details>`;
}

export function Lanes() {
  return html`<div class="lanes">${LANES.map((lane) => html`<${LaneList} key=${lane.lane} ...${lane} />`)}</div>`;
}
