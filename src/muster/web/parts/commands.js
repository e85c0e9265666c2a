// Commands to nodes: sent, and followed until they end.

import { html, signal } from "../core/view.js";
import { request } from "../core/api.js";
import { Ago, Clock, Span, duration, now, percent, readable } from "../core/format.js";

const LOOK_EVERY_MS = 700;
const SHOWN = 20;
const ENDED = new Set(["done", "failed", "expired"]);

/** The newest commands of the node that is looked at. */
const recent = signal(/** @type {CommandView[]} */ ([]));
let node = "";
let timer = 0;

/** @param {string} id */
async function look(id) {
  clearTimeout(timer);
  try {
    const found = await request(`/api/v1/commands?node=${encodeURIComponent(id)}&limit=${SHOWN}`);
    if (id === node) recent.value = found;
  } finally {
    // Also after a look that failed: what is shown as waiting must not stay so because nobody looks any more.
    if (id === node && recent.peek().some((command) => !ENDED.has(command.state))) {
      clearTimeout(timer);
      timer = setTimeout(() => refresh(id), LOOK_EVERY_MS);
    }
  }
}

/** Somebody else may have sent it one. @param {string} id */
export function refresh(id) {
  look(id).catch((error) => console.info(`muster: commands not read (${error.message})`));
}

/** Show this node's commands from now on. @param {string} id */
export function follow(id) {
  node = id;
  recent.value = [];
  refresh(id);
  return () => {
    node = "";
    clearTimeout(timer);
  };
}

/** @param {string} id @param {string} command @param {Record<string, unknown>} [args] */
export async function send(id, command, args = {}) {
  await request("/api/v1/command", { method: "POST", json: { node_id: id, command, args } });
  await look(id);
}

/** @param {string} state */
const tone = (state) => (state === "done" ? "good" : ENDED.has(state) ? "bad" : "busy");

/** What is known of a command without a result. @type {Record<string, string>} */
const WAITS = {
  created: "the node has not fetched it yet",
  sent: "sent, and not acknowledged yet",
  acked: "the node has it, and has told no result yet",
};

/** @param {{command: CommandView}} props */
function Waiting({ command: c }) {
  const since = Date.parse(c.created_at);
  const deadline = Date.parse(c.deadline);
  if (c.state === "expired")
    return html`<p class="error-text">Not answered: waited for <${Span} from=${since} to=${deadline} />, given up at <${Clock} at=${deadline} />.</p>`;
  const waits = WAITS[c.state];
  if (!waits) return null;
  const left = deadline - now.value;
  return html`<p class="quiet">Waiting for <${Span} from=${since} />: ${waits}. ${left > 0
    ? html`Given up at <${Clock} at=${deadline} />, in ${duration(left)}.`
    : html`Its time ended at <${Clock} at=${deadline} />.`}</p>`;
}

/** @param {{command: CommandView}} props */
function Row({ command: c }) {
  const args = Object.values(c.args).join(" ");
  const said = c.state === "expired" ? "" : c.error ?? (typeof c.result === "string" ? c.result : c.result == null ? "" : JSON.stringify(c.result));
  const progress = ENDED.has(c.state) ? null : c.progress;
  return html`<li>
    <div class="line"><b>${readable(c.command)}</b> <span class="cut">${args}</span>
      <span class="badge ${tone(c.state)}">${c.state}${progress?.fraction != null && ` ${percent(progress.fraction * 100)}`}</span>
      <span class="end quiet">${c.issued_by && `by ${c.issued_by}, `}<${Ago} at=${Date.parse(c.created_at)} /></span></div>
    ${(progress?.message || said) && html`<p class="clamp ${c.error ? "error-text" : "quiet"}" title=${said}>${progress?.message ?? said}</p>`}
    <${Waiting} command=${c} />
  </li>`;
}

export function Commands() {
  return html`<section class="panel"><h3>Commands</h3>
    ${recent.value.length
      ? html`<ul class="rows">${recent.value.map((command) => html`<${Row} key=${command.command_id} command=${command} />`)}</ul>`
      : html`<p class="quiet">None was sent to this node yet.</p>`}
  </section>`;
}
