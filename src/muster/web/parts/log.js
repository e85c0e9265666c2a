// The logs of a node: one of them, its last lines and what comes, for as long as somebody looks.

import { html, signal, useEffect, useRef } from "../core/view.js";
import { authorization, problem, request } from "../core/api.js";
import { clockTime } from "../core/format.js";
import { events } from "../core/stream.js";
import { Choice } from "./filter.js";

const TAIL = 200;
/** Older lines are given up: the whole log is a `muster logs` away. */
const MAX_LINES = 1_000;
const DRAW_EVERY_MS = 100;

/** @typedef {{text: string, at: string | null, level: string | null, note: boolean}} Line */

const names = signal(/** @type {string[]} */ ([]));
const chosen = signal("");
const words = signal("");
const lines = signal(/** @type {Line[]} */ ([]));
const trouble = signal("");

/** @param {string} path @param {AbortSignal} stop */
async function follow(path, stop) {
  lines.value = [];
  trouble.value = "";
  /** @type {Line[]} */
  let coming = [];
  const draw = setInterval(() => {
    if (!coming.length) return;
    lines.value = [...lines.peek(), ...coming].slice(-MAX_LINES);
    coming = [];
  }, DRAW_EVERY_MS);
  try {
    const response = await fetch(path, { headers: { Accept: "text/event-stream", ...authorization() }, signal: stop, cache: "no-store" });
    if (!response.ok || !response.body) throw new Error(await problem(response));
    for await (const { data } of events(response.body, () => {})) {
      const { text, note, at = null, level = null } = JSON.parse(data);
      coming.push({ text: note ?? text, at, level, note: note !== undefined });
      if (coming.length > MAX_LINES) coming = coming.slice(-MAX_LINES);
    }
    if (!stop.aborted) trouble.value = "the log ended here; choose it again to go on";
  } catch (error) {
    if (!stop.aborted) trouble.value = /** @type {Error} */ (error).message;
  } finally {
    clearInterval(draw);
    if (!stop.aborted) lines.value = [...lines.peek(), ...coming].slice(-MAX_LINES);
  }
}

/** @param {{id: string}} props */
export function Logs({ id }) {
  const box = useRef(/** @type {HTMLPreElement | null} */ (null));
  useEffect(() => {
    chosen.value = "";
    request(`/api/v1/nodes/${encodeURIComponent(id)}/logs`).then(
      (answer) => (names.value = answer.logs.map((/** @type {{name: string}} */ log) => log.name)),
      (error) => (trouble.value = error.message),
    );
  }, [id]);
  useEffect(() => {
    if (!chosen.value) return undefined;
    const stop = new AbortController();
    const grep = words.value ? `&grep=${encodeURIComponent(words.value)}` : "";
    follow(`/api/v1/nodes/${encodeURIComponent(id)}/logs/${encodeURIComponent(chosen.value)}?follow=true&tail=${TAIL}${grep}`, stop.signal);
    return () => stop.abort();
  }, [id, chosen.value, words.value]);
  useEffect(() => {
    const at = box.current;
    if (at && at.scrollHeight - at.scrollTop - at.clientHeight < 160) at.scrollTop = at.scrollHeight;
  }, [lines.value]);
  /** @type {[string, string][]} */
  const options = [["", "none"], ...names.value.map((name) => /** @type {[string, string]} */ ([name, name]))];
  return html`<section class="panel wide"><h3>Logs</h3>
    <div class="inline"><${Choice} label="Log" value=${chosen.value} options=${options} onChoice=${(/** @type {string} */ name) => (chosen.value = name)} />
      <label>With <input type="search" value=${words} placeholder="any words" autocomplete="off" spellcheck=${false}
        onChange=${(/** @type {Event} */ event) => (words.value = /** @type {HTMLInputElement} */ (event.target).value.trim())} /></label></div>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${chosen.value && html`<pre class="log" ref=${box} tabindex="0" aria-label="Log ${chosen.value}">${lines.value.map((line, index) => html`<span key=${index}
      class=${line.note ? "quiet" : line.level === "error" ? "error-text" : ""}>${line.at && html`<time>${clockTime(Date.parse(line.at))}</time> `}${line.text}\n</span>`)}</pre>`}
  </section>`;
}
