// The gateway: how many requests, how fast they are answered, what is in flight where; and a model to try.

import { html, signal, useEffect } from "../core/view.js";
import { authorization, problem, request } from "../core/api.js";
import { duration } from "../core/format.js";
import { Chart } from "../parts/chart.js";
import { Choice } from "../parts/filter.js";

const LOOK_EVERY_MS = 2_000;
const MODELS_EVERY_MS = 10_000;

/**
 * @typedef {{at_ms: number, requests_per_s: number, errors_per_s: number, in_flight: number, first_byte_p50_s: number | null, first_byte_p95_s: number | null}} Point
 * @typedef {{model: string, answers: number, first_byte_p50_s: number | null, first_byte_p95_s: number | null, duration_p50_s: number | null, duration_p95_s: number | null}} ModelStats
 * @typedef {{stats: {in_flight: number, requests_total: number, errors_total: number, in_flight_by_worker: Record<string, number>},
 *   models: ModelStats[], failures: {worker: string, reason: string, count: number}[], recent: Point[], lines: Line[], requests: Recent[],
 *   quarantined: Quarantined[], waits: Waits[], streams: Streams}} GatewayView
 * @typedef {{running: number, unread: number, kept_total: number, kept_bytes_total: number, resumed_total: number, taken_over_total: number}} Streams
 * @typedef {{model: string, waiting: number, oldest_s: number, answer_s: number | null, callers: {name: string, requests: number, weight: number}[]}} Line
 * @typedef {{correlation_id: string, at_ms: number, model: string, worker: string, status: number | null, waited_s: number}} Recent
 * @typedef {{worker: string, cost: number, in_flight: number, outside: number, slots: number | null, slowness: number, resident: boolean | null}} Considered
 * @typedef {{worker: string, begun_s: number, ended_s: number | null, failure: string | null, why: string, considered: Considered[], passed_over: {worker: string, reason: string}[]}} Attempt
 * @typedef {{correlation_id: string, model: string, status: number | null, error: string | null, duration_s: number | null,
 *   waits: {what: string, begun_s: number, ended_s: number | null, priority: number | null, weight: number | null}[], attempts: Attempt[],
 *   keeping: {stream_id: string, keep_s: number, kept: boolean, taken_over: boolean} | null}} RequestView
 * @typedef {{worker: string, model: string | null, standing: "out" | "probed" | "returning", reason: string, since_ms: number, times: number, allowed: number, retry_in_s: number}} Quarantined
 * @typedef {{worker: string, model: string, answers: number, first_byte_s: number, silence_s: number, learned: boolean}} Waits
 */

const view = signal(/** @type {GatewayView | null} */ (null));
const trouble = signal("");

async function look() {
  try {
    view.value = await request("/api/v1/gateway");
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

const talkative = signal(/** @type {string[]} */ ([]));

async function lookForModels() {
  try {
    /** @type {{name: string}[]} */
    const found = await request("/api/v1/models?capability=completion&served=true");
    talkative.value = found.map((model) => model.name);
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** @param {number | null} seconds */
const seconds = (seconds) => (seconds === null ? "unknown" : duration(seconds * 1000));
const rate = (/** @type {number} */ value) => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString()} / s`;

/** @param {{points: Point[]}} props */
function Charts({ points }) {
  /** @param {(point: Point) => number | null} of */
  const course = (of) => points.map((point) => ({ at: point.at_ms, value: of(point) }));
  return html`<section class="panel wide charts" aria-label="The last 15 minutes">
    <${Chart} title="Requests" points=${course((p) => p.requests_per_s)} text=${rate} />
    <${Chart} title="Errors" points=${course((p) => p.errors_per_s)} text=${rate} tone="bad" />
    <${Chart} title="In flight" points=${course((p) => p.in_flight)} text=${String} />
    <${Chart} title="First token, p50" points=${course((p) => p.first_byte_p50_s)} text=${seconds} />
    <${Chart} title="First token, p95" points=${course((p) => p.first_byte_p95_s)} text=${seconds} />
  </section>`;
}

/** @param {{models: ModelStats[]}} props */
function Models({ models }) {
  return html`<section class="panel"><h3>Answers by model</h3>
    ${models.length === 0 ? html`<p class="quiet">Nothing was asked yet.</p>` : html`<div class="table-box"><table>
      <thead><tr><th scope="col">Model</th><th scope="col">Answers</th><th scope="col">First token</th><th scope="col">p95</th><th scope="col">Whole</th><th scope="col">p95</th></tr></thead>
      <tbody>${models.map((m) => html`<tr key=${m.model}><th scope="row">${m.model}</th><td>${m.answers.toLocaleString()}</td>
        <td>${seconds(m.first_byte_p50_s)}</td><td>${seconds(m.first_byte_p95_s)}</td><td>${seconds(m.duration_p50_s)}</td><td>${seconds(m.duration_p95_s)}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}

/** @param {{view: GatewayView}} props */
function Where({ view: { stats, failures, streams } }) {
  const workers = Object.entries(stats.in_flight_by_worker).sort((a, b) => b[1] - a[1]);
  return html`<section class="panel"><h3>In flight</h3>
    ${workers.length === 0 ? html`<p class="quiet">Nothing now.</p>` : html`<ul class="rows">${workers.map(([worker, count]) => html`<li key=${worker} class="line">
      <span class="cut">${worker}</span><b class="end">${count}</b></li>`)}</ul>`}
    ${failures.length > 0 && html`<h3>Failures of workers since the start</h3><ul class="rows">${failures.map((f) => html`<li key=${`${f.worker} ${f.reason}`} class="line">
      <span class="cut">${f.worker}</span> <span class="error-text">${f.reason}</span><b class="end">${f.count.toLocaleString()}</b></li>`)}</ul>`}
    ${(streams.running > 0 || streams.kept_total > 0) && html`<${Kept} streams=${streams} />`}
  </section>`;
}

/** Answers that their callers can come back to. @param {{streams: Streams}} props */
function Kept({ streams }) {
  return html`<h3>Resumable answers</h3><ul class="rows" aria-label="Resumable answers">
    <li class="line"><span>come now</span> ${streams.unread > 0 && html`<span class="quiet">${streams.unread.toLocaleString()} without a reader</span>`}<b class="end">${streams.running.toLocaleString()}</b></li>
    <li class="line"><span>kept since the start</span> <span class="quiet">${(streams.kept_bytes_total / 1e6).toFixed(1)} MB</span><b class="end">${streams.kept_total.toLocaleString()}</b></li>
    <li class="line"><span>callers who came back</span><b class="end">${streams.resumed_total.toLocaleString()}</b></li>
    <li class="line"><span>taken over from gateways that were gone</span><b class="end">${streams.taken_over_total.toLocaleString()}</b></li></ul>`;
}

/** @param {{lines: Line[]}} props */
function Waiting({ lines }) {
  return html`<section class="panel" aria-label="Waiting for a free slot"><h3>Waiting for a free slot</h3>
    ${lines.length === 0 ? html`<p class="quiet">Nobody waits.</p>` : html`<div class="table-box"><table>
      <thead><tr><th scope="col">Model</th><th scope="col">Waiting</th><th scope="col">Longest</th><th scope="col">An answer takes</th><th scope="col">Who</th></tr></thead>
      <tbody>${lines.map((line) => html`<tr key=${line.model}><th scope="row">${line.model}</th><td>${line.waiting.toLocaleString()}</td>
        <td>${seconds(line.oldest_s)}</td><td>${seconds(line.answer_s)}</td><td>${line.callers.map((c) => `${c.name} ${c.requests}${c.weight === 1 ? "" : ` (weight ${c.weight})`}`).join(", ")}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}

// --- why a request went where it did ---

const explained = signal(/** @type {RequestView | null} */ (null));
const unexplained = signal("");

/** @param {string} id */
async function explain(id) {
  try {
    explained.value = await request(`/api/v1/requests/${encodeURIComponent(id)}`);
    unexplained.value = "";
  } catch (error) {
    unexplained.value = /** @type {Error} */ (error).message;
  }
}

/** @param {{attempt: Attempt}} props */
function Asked({ attempt }) {
  return html`<p><b>${attempt.worker}</b>: ${attempt.why}${attempt.failure && html`; <span class="error-text">${attempt.failure}</span>`}</p>
    <div class="table-box"><table>
      <thead><tr><th scope="col">Could serve</th><th scope="col">Cost</th><th scope="col">In flight</th><th scope="col">Of others</th><th scope="col">Slots</th></tr></thead>
      <tbody>${attempt.considered.map((c) => html`<tr key=${c.worker}><th scope="row">${c.worker}</th><td>${c.cost}</td><td>${c.in_flight}</td>
        <td>${c.outside}</td><td>${c.slots ?? "unknown"}</td></tr>`)}</tbody></table></div>
    ${attempt.passed_over.length > 0 && html`<ul class="rows">${attempt.passed_over.map((p) => html`<li key=${p.worker} class="line"><span class="cut">${p.worker}</span> ${p.reason}</li>`)}</ul>`}`;
}

/** @param {NonNullable<RequestView["keeping"]>} k */
const keeping = (k) =>
  k.kept
    ? `Kept as ${k.stream_id} for ${seconds(k.keep_s)} without a reader${k.taken_over ? ", since its gateway was gone by this one" : ""}.`
    : "Its caller wanted to be able to come back for it, but it is not kept.";

/** @param {{view: RequestView}} props */
function Explanation({ view }) {
  const ended = view.status === null ? "is being answered" : `ended with ${view.status}${view.error ? ` (${view.error})` : ""} after ${seconds(view.duration_s)}`;
  return html`<div aria-live="polite"><p><code>${view.correlation_id}</code> for ${view.model} ${ended}</p>
    ${view.keeping && html`<p>${keeping(view.keeping)}</p>`}
    ${view.waits.map((w) => html`<p key=${w.begun_s}>${w.ended_s === null ? "It still waits" : `It waited ${seconds(w.ended_s - w.begun_s)}`} for ${w.what}${w.priority !== null && `, with priority ${w.priority} and weight ${w.weight}`}.</p>`)}
    ${view.attempts.map((a) => html`<${Asked} key=${a.begun_s} attempt=${a} />`)}</div>`;
}

/** @param {{requests: Recent[]}} props */
function Requests({ requests }) {
  return html`<section class="panel wide" aria-label="The newest requests"><h3>The newest requests</h3>
    ${requests.length === 0 ? html`<p class="quiet">No request came yet.</p>` : html`<div class="table-box"><table>
      <thead><tr><th scope="col">Request</th><th scope="col">Model</th><th scope="col">Worker</th><th scope="col">Waited</th><th scope="col">Status</th></tr></thead>
      <tbody>${requests.map((r) => html`<tr key=${r.correlation_id}><th scope="row"><button onClick=${() => explain(r.correlation_id)}>${r.correlation_id}</button></th>
        <td>${r.model}</td><td>${r.worker || "none"}</td><td>${r.waited_s ? seconds(r.waited_s) : ""}</td><td>${r.status ?? "running"}</td></tr>`)}</tbody></table></div>`}
    ${unexplained.value && html`<p class="error-text" role="alert">${unexplained.value}</p>`}
    ${explained.value && html`<${Explanation} view=${explained.value} />`}
  </section>`;
}

/** @param {Quarantined} q */
const standing = (q) =>
  q.standing === "out" ? `tried again in ${seconds(q.retry_in_s)}` : q.standing === "probed" ? "being tried" : `back for ${q.allowed} at a time`;

/** @param {{view: GatewayView}} props */
function Trust({ view: { quarantined, waits } }) {
  return html`<section class="panel"><h3>Quarantine</h3>
    ${quarantined.length === 0 ? html`<p class="quiet">Every worker is trusted.</p>` : html`<ul class="rows">${quarantined.map((q) => html`<li key=${`${q.worker} ${q.model}`} class="line">
      <span class="cut">${q.worker}</span> <span class="error-text">${q.reason}</span> <span class="quiet">${q.model ?? "all models"}, for ${duration(Date.now() - q.since_ms)}</span>
      <b class="end">${standing(q)}</b></li>`)}</ul>`}
    ${waits.length > 0 && html`<h3>How long workers are waited for</h3><div class="table-box"><table>
      <thead><tr><th scope="col">Worker</th><th scope="col">Model</th><th scope="col">Answers</th><th scope="col">First token</th><th scope="col">Silence</th><th scope="col">Learned</th></tr></thead>
      <tbody>${waits.map((w) => html`<tr key=${`${w.worker} ${w.model}`}><th scope="row">${w.worker}</th><td>${w.model}</td><td>${w.answers.toLocaleString()}</td>
        <td>${seconds(w.first_byte_s)}</td><td>${seconds(w.silence_s)}</td><td>${w.learned ? "yes" : "not yet"}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}

// --- a model to try ---

/** @typedef {{role: "user" | "assistant", content: string}} Message */

const talk = signal(/** @type {Message[]} */ ([]));
const chosen = signal("");
const draft = signal("");
const answering = signal(/** @type {AbortController | null} */ (null));
const outcome = signal("");

/** @param {ReadableStream<Uint8Array>} body */
async function* lines(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const all = (rest + value).split("\n");
    rest = all.pop() ?? "";
    yield* all;
  }
}

/** @param {string} model */
async function ask(model) {
  const messages = [...talk.peek(), /** @type {Message} */ ({ role: "user", content: draft.peek() })];
  const stop = new AbortController();
  answering.value = stop;
  outcome.value = "";
  draft.value = "";
  talk.value = [...messages, { role: "assistant", content: "" }];
  const began = performance.now();
  let first = 0;
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", signal: stop.signal, headers: { "Content-Type": "application/json", ...authorization() },
      body: JSON.stringify({ model, messages, stream: true }),
    });
    if (!response.ok || !response.body) throw new Error(await problem(response));
    const worker = response.headers.get("X-Muster-Worker");
    let text = "";
    for await (const line of lines(response.body)) {
      if (!line.startsWith("data:") || line.includes("[DONE]")) continue;
      const part = JSON.parse(line.slice(5));
      if (part.error) throw new Error(part.error.message);
      const more = part.choices?.[0]?.delta?.content ?? "";
      if (more && !first) first = performance.now();
      text += more;
      talk.value = [...messages, { role: "assistant", content: text }];
    }
    outcome.value = `${worker ? `by ${worker}, ` : ""}first token after ${duration(first - began)}, all after ${duration(performance.now() - began)}`;
  } catch (error) {
    outcome.value = stop.signal.aborted ? "stopped" : /** @type {Error} */ (error).message;
  }
  answering.value = null;
}

function Chat() {
  useEffect(() => {
    lookForModels();
    const timer = setInterval(() => !document.hidden && lookForModels(), MODELS_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const models = talkative.value;
  const model = models.includes(chosen.value) ? chosen.value : models[0];
  const send = (/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    if (model && draft.peek().trim()) ask(model);
  };
  return html`<section class="panel chat"><h3>Try a model</h3>
    ${!model ? html`<p class="quiet">No model is served now.</p>` : html`
      <div class="line"><${Choice} label="Model" value=${model} options=${models.map((name) => [name, name])} onChoice=${(/** @type {string} */ name) => (chosen.value = name)} />
        <button class="end" disabled=${!talk.value.length} onClick=${() => (talk.value = [])}>Begin anew</button></div>
      <ol class="talk" aria-live="polite">${talk.value.map((message, index) => html`<li key=${index} class=${message.role}>
        <span class="for-readers">${message.role === "user" ? "You:" : "Model:"}</span>${message.content || "…"}</li>`)}</ol>
      ${outcome.value && html`<p class="quiet" role="status">${outcome.value}</p>`}
      <form class="line" onSubmit=${send}><input class="wide" aria-label="Say something" placeholder="Say something" value=${draft} autocomplete="off"
        onInput=${(/** @type {Event} */ event) => (draft.value = /** @type {HTMLInputElement} */ (event.target).value)} />
        ${answering.value ? html`<button type="button" onClick=${() => answering.peek()?.abort()}>Stop</button>` : html`<button type="submit">Send</button>`}</form>`}
  </section>`;
}

export function GatewayPage() {
  useEffect(() => {
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  const now = view.value;
  return html`<div class="gateway-page"><header class="heading"><h2>Gateway</h2></header>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    <div class="panels">${now && html`<${Charts} points=${now.recent} />`}<${Chat} />
      ${now && html`<${Where} view=${now} /><${Waiting} lines=${now.lines} /><${Models} models=${now.models} /><${Trust} view=${now} />
        <${Requests} requests=${now.requests} />`}</div>
  </div>`;
}
