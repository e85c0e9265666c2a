// Why jobs ended badly, the most frequent reason first; what was repaired is tried again together.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { counted } from "../core/format.js";
import { jobHref } from "../core/route.js";
import { Act } from "./confirm.js";
import { Choice } from "./filter.js";

/** @typedef {{service: string, code: string, message: string, count: number, job_ids: string[]}} Group */

const status = signal("failed");
const groups = signal(/** @type {Group[] | null} */ (null));
const looked = signal({ at: 0, more: false });
const trouble = signal("");

async function look() {
  try {
    const answer = await request(`/api/jobs/failures?status=${status.peek()}`);
    groups.value = answer.groups;
    looked.value = { at: answer.looked_at, more: answer.next_cursor !== null };
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** Try all jobs of a group again, however many calls that takes. @param {Group} group */
async function replay({ service, code }) {
  let cursor = null;
  do {
    const answer = await request("/api/jobs/replay", { method: "POST", json: { status: status.peek(), service, code, cursor } });
    cursor = answer.next_cursor;
  } while (cursor !== null);
  await look();
}

/** @param {{group: Group}} props */
function Row({ group }) {
  return html`<li>
    <div class="line"><b>${group.service}</b> <span class="badge bad">${group.code}</span> <span>${counted(group.count, "job")}</span>
      <span class="end"><${Act} label="Try again" question="Try all of them again?" yes="Try again" no="No" onSure=${() => replay(group)} /></span></div>
    <p class="clamp" title=${group.message}>${group.message}</p>
    <p class="quiet">${group.job_ids.map((id) => html`<a key=${id} href=${jobHref(id)}><code>${id}</code></a> `)}</p>
  </li>`;
}

export function Failures() {
  useEffect(() => {
    look();
  }, [status.value]);
  const options = [["failed", "failed"], ["timeout", "timed out"], ["cancelled", "cancelled"]];
  return html`<div class="inline"><${Choice} label="Ended as" value=${status.value} options=${options}
      onChoice=${(/** @type {string} */ word) => (status.value = word)} /><button onClick=${look}>Look again</button></div>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${groups.value?.length === 0 && html`<p class="empty">None of the jobs that are kept ended so.</p>`}
    ${groups.value && groups.value.length > 0 && html`<section class="panel">
      <p class="quiet">Of the newest ${counted(looked.value.at, "job")}${looked.value.more ? "; there are older ones" : ""}.</p>
      <ul class="rows">${groups.value.map((group) => html`<${Row} key=${`${group.service} ${group.code}`} group=${group} />`)}</ul>
    </section>`}`;
}
