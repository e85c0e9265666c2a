// The frame of all pages: totals, connection and navigation on top, the open page below, one job over it.

import { behind } from "./core/hand.js";
import { computed, effect, html, render, useState } from "./core/view.js";
import { WHOLE_UP_TO, state } from "./core/state.js";
import { Stream } from "./core/stream.js";
import { keepToken, request } from "./core/api.js";
import { clockTime, counted, now, setClock } from "./core/format.js";
import { closeJob, heading, openJobId, route } from "./core/route.js";
import { TextFilter } from "./parts/filter.js";
import { JobSheet } from "./pages/job.js";
import { PAGES, openPage } from "./pages/index.js";

const CHECK_EVERY_MS = 10_000;
/** Who pages or types quickly is not followed with each step. */
const RESELECT_AFTER_MS = 150;

const stream = new Stream((message) => {
  if ("timestamp" in message) setClock(message.timestamp);
  state.receive(message);
});

const totals = computed(() => {
  const lines = state.nodeIds.value.flatMap((id) => state.lines.get(id)?.value ?? []);
  const sum = (/** @type {(line: Line) => number} */ of) => lines.reduce((total, line) => total + of(line), 0);
  return {
    nodes: lines.length,
    healthy: lines.filter((line) => line.health_status === "healthy").length,
    gpus: sum((line) => line.gpu_count),
    workers: sum((line) => line.workers),
    busy: sum((line) => line.workers_busy),
    models: new Set(lines.flatMap((line) => line.models)).size,
  };
});

/** @param {{name: string, value: unknown, note?: unknown}} props */
const Total = ({ name, value, note }) =>
  html`<div class="total"><dt>${name}</dt><dd><b>${value}</b> ${note && html`<span class="quiet">${note}</span>`}</dd></div>`;

function Totals() {
  const t = totals.value;
  const jobs = state.jobCounts.value;
  const gateway = state.stats.value?.gateway;
  if (!gateway) return null;
  return html`<dl class="totals">
    <${Total} name="nodes healthy" value=${t.healthy} note="of ${t.nodes}" />
    <${Total} name="workers busy" value=${t.busy} note="of ${t.workers}" />
    <${Total} name="GPUs" value=${t.gpus} />
    <${Total} name="models" value=${t.models} />
    <${Total} name="jobs running" value=${jobs.running.toLocaleString()} note="· ${jobs.waiting.toLocaleString()} waiting" />
    <${Total} name="jobs failed" value=${jobs.failed.toLocaleString()} note="· ${jobs.finished.toLocaleString()} finished" />
    <${Total} name="gateway in flight" value=${gateway.in_flight}
      note="· ${counted(gateway.requests_total, "request")}, ${counted(gateway.errors_total, "error")}" />
  </dl>`;
}

/** @returns {{tone: string, words: string, next?: string, title?: string}} */
function connectionWords() {
  const c = stream.connection.value;
  switch (c.kind) {
    case "connecting":
      return { tone: "quiet", words: "connecting …" };
    case "snapshot":
      return { tone: "busy", words: "snapshot …", title: "connected; waiting for the state of the fleet" };
    case "live":
      return { tone: "good", words: "live", title: `last heard ${clockTime(stream.lastHeard.value ?? Date.now())}` };
    case "refused":
      return { tone: "warn", words: c.known ? "not allowed" : "token needed", title: c.reason };
    case "away": {
      now.value; // counts down
      const seconds = c.retryAt === null ? 0 : Math.ceil((c.retryAt - Date.now()) / 1000);
      const next = seconds > 0 ? `reconnecting in ${seconds} s …` : "reconnecting …";
      return { tone: "bad", words: `server away since ${clockTime(c.since)}`, next, title: c.reason };
    }
  }
}

function Connection() {
  const { tone, words, next, title } = connectionWords();
  return html`<div class="connection ${tone}" title=${title}>
    <span class="light" aria-hidden="true"></span>
    <div><span role="status">${words}</span>${next && html`<small>${next}</small>`}</div>
    ${next && html`<button onClick=${() => stream.retry()}>Now</button>`}
  </div>`;
}

/** @param {{known: boolean, reason: string}} props */
function TokenForm({ known, reason }) {
  const [token, setToken] = useState("");
  const send = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    keepToken(token.trim());
    stream.retry();
  };
  return html`<form class="token" onSubmit=${send}>
    <h2>${known ? "This token may not see the fleet" : "This fleet asks for a token"}</h2>
    <p>${reason}</p>
    <label>Token <input type="password" autocomplete="off" required value=${token}
      onInput=${(/** @type {InputEvent} */ event) => setToken(/** @type {HTMLInputElement} */ (event.target).value)} /></label>
    <button type="submit">Open the monitor</button>
    <p class="quiet">It is the value of MUSTER_TOKEN on the server, or one that an admin makes:
      <code>muster token create NAME --role viewer</code>. It is kept for this browser tab only.</p>
  </form>`;
}

function Navigation() {
  const page = heading.value;
  const { running, waiting } = state.jobCounts.value;
  /** @type {Record<string, number>} */
  const counts = { fleet: state.nodeIds.value.length, jobs: running + waiting };
  const isOpen = (/** @type {string} */ name) => name === page || (name === "fleet" && page === "node");
  return html`<nav class="pages" aria-label="Pages">
    ${Object.entries(PAGES).map(([name, { title, href }]) => href && html`<a key=${name} href=${href}
      aria-current=${isOpen(name) ? "page" : undefined}>${title}${counts[name] !== undefined && html` <span class="quiet">${counts[name]?.toLocaleString()}</span>`}</a>`)}
  </nav>`;
}

let firstVersion = "";

/** After an update of the server this page is the old one. */
function Updated() {
  const version = state.stats.value?.version ?? "";
  firstVersion ||= version;
  if (version === firstVersion) return null;
  return html`<p class="updated" role="status">The server is now version ${version}.
    <button onClick=${() => location.reload()}>Reload the page</button></p>`;
}

/** On every page: what it shows of nodes may be old, and the fault is likely not theirs. */
function CutOff() {
  if (!state.stats.value?.suspects_itself) return null;
  return html`<p class="updated" role="alert">Most nodes fell silent at once: this control plane itself may be cut off from
    them. What is shown of them is what was heard last, and none is called dead meanwhile. Look at this control plane's own
    network first.</p>`;
}

function Main() {
  const connection = stream.connection.value;
  const { kind } = connection;
  if (connection.kind === "refused")
    return html`<${TokenForm} key="token" known=${connection.known} reason=${connection.reason} />`;
  if (!state.stats.value) return html`<p class="empty">${kind === "away" ? "The server does not answer." : "Loading the fleet …"}</p>`;
  return html`<main aria-busy=${behind} class="${kind === "away" ? "last-known" : ""} page-${route.value.page}">
    <${openPage().draw} id=${route.value.id} /><${JobSheet} />
  </main>`;
}

function App() {
  return html`<header class="top">
      <h1><a href="#/">Muster</a> <span class="quiet">${state.stats.value?.version}</span></h1>
      <${Connection} />
      ${state.stats.value && html`<${Navigation} /><${TextFilter} />`}
      <${Totals} />
    </header>
    <${Updated} /><${CutOff} />
    <${Main} />`;
}

addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape" && !typing && openJobId.peek() !== null) closeJob();
  if (event.key === "/" && !typing) {
    event.preventDefault();
    document.getElementById("filter")?.focus();
  }
});
addEventListener("online", () => stream.retry());
document.addEventListener("visibilitychange", () => !document.hidden && stream.retry());

/** @type {Set<string>} */
let suspicions = new Set();

/** Events are an optimisation: what is shown is compared with what the server holds, and taken anew if it differs twice. */
async function check() {
  if (stream.connection.peek().kind !== "live" || document.hidden) return;
  const { data } = await request("/api/monitor/state?limit=1");
  const found = state.reconcile(data);
  const [lasting] = found.intersection(suspicions);
  suspicions = found;
  if (lasting) stream.resync(lasting);
}
setInterval(() => check().catch((error) => console.info(`muster: state not checked (${error.message})`)), CHECK_EVERY_MS);

/** What the stream is asked for. A fleet that is told whole stays so until it grows too large. */
const wished = computed(() => {
  const { machines, jobs } = openPage().interest(route.value.id);
  return `/api/events/monitor?whole_up_to=${WHOLE_UP_TO}&all_jobs=${jobs}&machines=${machines.map(encodeURIComponent).join(",")}`;
});
const tooLarge = computed(() => state.selective.value || state.nodeIds.value.length > WHOLE_UP_TO);

let asked = wished.peek();
let reselection = 0;
effect(() => {
  const path = wished.value;
  if (!tooLarge.value) return;
  clearTimeout(reselection);
  const atFirst = path !== asked && !state.nodes.size; // nothing is shown in full yet: somebody waits
  reselection = setTimeout(() => {
    if (path === asked && state.selective.peek()) return;
    asked = path;
    stream.reselect(path);
  }, atFirst ? 0 : RESELECT_AFTER_MS);
});

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("monitor")));
stream.run(asked);
