// The page: totals and connection on top, nodes and jobs below, one job beside them.

import { html, render, signal, useState, computed } from "./view.js";
import { state } from "./state.js";
import { Stream } from "./stream.js";
import { keepToken, request } from "./api.js";
import { clockTime, counted, now, setClock } from "./format.js";
import { TextFilter } from "./filter.js";
import { Fleet } from "./fleet.js";
import { Jobs } from "./jobs.js";
import { Drawer, close } from "./drawer.js";

const CHECK_EVERY_MS = 10_000;

const stream = new Stream("/api/events/monitor", (message) => {
  if ("timestamp" in message) setClock(message.timestamp);
  state.receive(message);
});

/** On narrow screens one of the two is shown. */
const tab = signal(/** @type {"fleet" | "jobs"} */ ("fleet"));

const totals = computed(() => {
  const nodes = state.nodeIds.value.flatMap((id) => state.nodes.get(id)?.value ?? []);
  const workers = nodes.flatMap((node) => node.workers);
  return {
    nodes: nodes.length,
    healthy: nodes.filter((node) => node.machine.health_status === "healthy").length,
    gpus: nodes.reduce((sum, node) => sum + node.machine.gpu_count, 0),
    workers: workers.length,
    busy: workers.filter((worker) => worker.status === "busy").length,
    models: new Set(nodes.flatMap((node) => node.machine.models)).size,
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

function Tabs() {
  const choose = (/** @type {"fleet" | "jobs"} */ name, /** @type {string} */ title) =>
    html`<button aria-pressed=${tab.value === name} onClick=${() => (tab.value = name)}>${title}</button>`;
  const { running, waiting } = state.jobCounts.value;
  return html`<nav class="tabs" aria-label="What to show">
    ${choose("fleet", `Nodes ${state.nodeIds.value.length}`)}${choose("jobs", `Jobs ${running + waiting}`)}
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

function Main() {
  const connection = stream.connection.value;
  const { kind } = connection;
  if (connection.kind === "refused")
    return html`<${TokenForm} key="token" known=${connection.known} reason=${connection.reason} />`;
  if (!state.stats.value) return html`<p class="empty">${kind === "away" ? "The server does not answer." : "Loading the fleet …"}</p>`;
  return html`<main class="${kind === "away" ? "last-known" : ""} show-${tab.value}">
    <${Tabs} /><${Fleet} /><${Jobs} /><${Drawer} />
  </main>`;
}

function App() {
  return html`<header class="top">
      <h1><a href="#/">Muster</a> <span class="quiet">${state.stats.value?.version}</span></h1>
      <${Connection} />
      ${state.stats.value && html`<${TextFilter} />`}
      <${Totals} />
    </header>
    <${Updated} />
    <${Main} />`;
}

addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape" && !typing) close();
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

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById("monitor")));
stream.run();
