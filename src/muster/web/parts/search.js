// A search through the jobs that the server keeps, page by page.

import { html, signal } from "../core/view.js";
import { request } from "../core/api.js";
import { Ago, Span, counted, readable } from "../core/format.js";
import { jobHref } from "../core/route.js";
import { JOB_STATUS } from "../core/vocabulary.js";
import { Badge } from "./badge.js";

const LIMIT = 50;
const FIELDS = /** @type {const} */ (["text", "service", "customer_id", "workflow_id"]);
const LABELS = { text: "Words", service: "Service", customer_id: "Customer", workflow_id: "Workflow" };

const wanted = signal(/** @type {Record<string, string>} */ ({}));
const found = signal(/** @type {{jobs: Job[], looked: number, next: string | null} | null} */ (null));
const trouble = signal("");
const busy = signal(false);

/** @param {boolean} onward from where the last call ended */
async function search(onward) {
  busy.value = true;
  trouble.value = "";
  const before = onward ? found.peek() : null;
  const query = new URLSearchParams({ limit: String(LIMIT) });
  for (const [name, value] of Object.entries(wanted.peek())) if (value.trim()) query.set(name, value.trim());
  if (before?.next) query.set("cursor", before.next);
  try {
    const answer = await request(`/api/jobs/search?${query}`);
    found.value = {
      jobs: [...(before?.jobs ?? []), ...answer.jobs],
      looked: (before?.looked ?? 0) + answer.looked_at,
      next: answer.next_cursor,
    };
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
  busy.value = false;
}

/** @param {string} name */
const put = (name) => (/** @type {Event} */ event) => {
  wanted.value = { ...wanted.value, [name]: /** @type {HTMLInputElement} */ (event.target).value };
};

/** @param {{job: Job}} props */
function Row({ job }) {
  return html`<tr>
    <td><${Badge} of="job" word=${job.status} /></td>
    <th scope="row"><a href=${jobHref(job.job_id)} data-job=${job.job_id}>${job.job_id}</a></th>
    <td>${job.service_required}</td>
    <td>${job.worker_id}</td>
    <td><${Ago} at=${job.created_at} /></td>
    <td>${job.started_at && html`<${Span} from=${job.started_at} to=${job.completed_at} />`}</td>
    <td class="cut" title=${job.error?.message}>${job.error && `${job.error.code}: ${job.error.message}`}</td>
  </tr>`;
}

function Found() {
  if (trouble.value) return html`<p class="error-text" role="alert">${trouble.value}</p>`;
  if (!found.value) return html`<p class="empty">Any field may be left empty; the newest come first.</p>`;
  const { jobs, looked, next } = found.value;
  return html`<p class="quiet" role="status">${counted(jobs.length, "job")} found among ${looked.toLocaleString()}${next ? ", there are more" : ""}.</p>
    ${jobs.length > 0 && html`<div class="table-box"><table>
      <thead><tr><th scope="col">Status</th><th scope="col">Job</th><th scope="col">Service</th><th scope="col">Worker</th>
        <th scope="col">Submitted</th><th scope="col">Ran</th><th scope="col">Error</th></tr></thead>
      <tbody>${jobs.map((job) => html`<${Row} key=${job.job_id} job=${job} />`)}</tbody></table></div>`}
    ${next && html`<div class="pager"><button disabled=${busy.value} onClick=${() => search(true)}>Look further</button></div>`}`;
}

export function Search() {
  const send = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    search(false);
  };
  return html`<form class="inline" role="search" onSubmit=${send}>
      ${FIELDS.map((name) => html`<label key=${name}>${LABELS[name]} <input type="search" value=${wanted.value[name] ?? ""} onInput=${put(name)}
        autocomplete="off" spellcheck=${false} /></label>`)}
      <label>Status <select onChange=${put("status")}>
        <option value="">any</option>
        ${JOB_STATUS.map((word) => html`<option key=${word} value=${word} selected=${wanted.value.status === word}>${readable(word)}</option>`)}
      </select></label>
      <button type="submit" disabled=${busy.value}>Search</button>
    </form><${Found} />`;
}
