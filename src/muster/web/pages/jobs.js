// Jobs: what is going on now, a search through all that is kept, why jobs failed, and a form to submit one.

import { html, signal } from "../core/view.js";
import { Lanes } from "../parts/lanes.js";
import { Failures } from "../parts/failures.js";
import { Search } from "../parts/search.js";
import { Submit } from "../parts/submit.js";

const SECTIONS = {
  now: { title: "Now", draw: Lanes },
  search: { title: "Search", draw: Search },
  failures: { title: "Failures", draw: Failures },
  submit: { title: "Submit", draw: Submit },
};
const section = signal(/** @type {keyof typeof SECTIONS} */ ("now"));

function Sections() {
  return html`<div class="chips" role="group" aria-label="Jobs">${Object.entries(SECTIONS).map(
    ([name, { title }]) => html`<button key=${name} aria-pressed=${section.value === name}
      onClick=${() => (section.value = /** @type {keyof typeof SECTIONS} */ (name))}>${title}</button>`,
  )}</div>`;
}

export function Jobs() {
  return html`<section id="jobs" aria-labelledby="jobs-title">
    <header class="heading"><h2 id="jobs-title">Jobs</h2><${Sections} /></header>
    <${SECTIONS[section.value].draw} />
  </section>`;
}

/** Beside the nodes: what is going on, and nothing else. */
export function JobsBeside() {
  return html`<section id="jobs" aria-labelledby="jobs-title">
    <header class="heading"><h2 id="jobs-title">Jobs</h2></header>
    <${Lanes} />
  </section>`;
}
