// The live connection: server-sent events, read with fetch because EventSource hides the status (is it a missing token
// or a dead server?), the keep-alive comments (is it quiet or cut?) and cannot resume after its own backoff.

import { authorization, problem } from "./api.js";
import { signal } from "./view.js";

/**
 * `away` carries since when, and when the next try is due (null: it is under way).
 * @typedef {{kind: "connecting"} | {kind: "snapshot"} | {kind: "live"}
 *   | {kind: "away", since: number, retryAt: number | null, reason: string}
 *   | {kind: "refused", known: boolean, reason: string}} Connection
 */

/** The server says something at least every 15 s. */
const SILENCE_MS = 20_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 15_000;

class Refused extends Error {
  /** @param {string} reason @param {boolean} known whether the token is one, only not for this */
  constructor(reason, known) {
    super(reason);
    this.known = known;
  }
}
class Resync extends Error {}
/** What is looked at changed: another stream is opened, and what is shown stays. */
class Reselect extends Error {}

/** Spread by chance, so that a server that comes back is not met by all pages at once. @param {number} failures */
const backoffMs = (failures) => Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.75 + Math.random() / 4);

/**
 * Cut the bytes of a stream into events.
 * @param {ReadableStream<Uint8Array>} body @param {() => void} heard called for every piece, comments included
 */
export async function* events(body, heard) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const blocks = (rest + decoder.decode(value, { stream: true }).replaceAll("\r", "")).split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      let id = null;
      const data = [];
      for (const line of block.split("\n")) {
        if (line.startsWith("id:")) id = line.slice(3).trim();
        else if (line.startsWith("data:")) data.push(line.slice(5));
      }
      if (data.length) yield { id, data: data.join("\n") };
    }
  }
}

export class Stream {
  connection = signal(/** @type {Connection} */ ({ kind: "connecting" }));
  lastHeard = signal(/** @type {number | null} */ (null));
  #path = "";
  #reselecting = false;
  #receive;
  #failures = 0;
  #awaySince = /** @type {number | null} */ (null);
  #lastId = /** @type {string | null} */ (null);
  #attempt = new AbortController();
  #wake = () => {};

  /** @param {(message: MonitorMessage) => void} receive */
  constructor(receive) {
    this.#receive = receive;
  }

  /** Listen for the life of the page. @param {string} path */
  async run(path) {
    this.#path = path;
    for (;;) {
      const reason = await this.#listen().catch((error) => error);
      if (reason instanceof Refused) {
        this.connection.value = { kind: "refused", known: reason.known, reason: reason.message };
        await this.#pause(null);
      } else if (reason instanceof Reselect) {
        this.#reselecting = true;
      } else if (reason instanceof Resync) {
        this.#enter("snapshot");
      } else {
        if (reason instanceof SyntaxError) this.#lastId = null; // do not ask for the same broken event again
        await this.#waitOutside(reason.message);
      }
    }
  }

  /** Try again now: there is a token, a network, a person who looks. */
  retry() {
    this.#wake();
  }

  /** Forget what was heard and ask for the whole state. @param {string} reason */
  resync(reason) {
    this.#lastId = null;
    this.#attempt.abort(new Resync(reason));
  }

  /** Listen to this instead; at the next try, where there is no connection. @param {string} path */
  reselect(path) {
    this.#path = path;
    this.#lastId = null;
    this.#attempt.abort(new Reselect());
  }

  /** @param {string} reason */
  async #waitOutside(reason) {
    this.#reselecting = false;
    this.#awaySince ??= Date.now();
    const since = this.#awaySince;
    const delay = backoffMs(this.#failures++);
    console.info(`muster: disconnected (${reason}), next try in ${Math.round(delay)} ms`);
    this.connection.value = { kind: "away", since, retryAt: Date.now() + delay, reason };
    await this.#pause(delay);
    this.connection.value = { kind: "away", since, retryAt: null, reason };
  }

  /** @param {number | null} delay in ms; null waits for retry() alone */
  async #pause(delay) {
    await /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        this.#wake = resolve;
        if (delay !== null) setTimeout(resolve, delay);
      })
    );
    this.#wake = () => {};
  }

  /** @returns {Promise<never>} */
  async #listen() {
    const attempt = new AbortController();
    this.#attempt = attempt;
    let watchdog = 0;
    const heard = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => attempt.abort(new Error("nothing heard for 20 s")), SILENCE_MS);
    };
    try {
      heard();
      /** @type {Record<string, string>} */
      const headers = { Accept: "text/event-stream", ...authorization() };
      if (this.#lastId !== null) headers["Last-Event-ID"] = this.#lastId;
      const response = await fetch(this.#path, { headers, cache: "no-store", signal: attempt.signal });
      if (response.status === 401 || response.status === 403) throw new Refused(await problem(response), response.status === 403);
      if (!response.ok || !response.body) throw new Error(await problem(response));
      for await (const event of events(response.body, heard)) this.#take(event);
      throw new Error("the server closed the connection");
    } finally {
      clearTimeout(watchdog);
      attempt.abort();
    }
  }

  /** @param {{id: string | null, data: string}} event */
  #take({ id, data }) {
    /** @type {MonitorMessage} */
    const message = JSON.parse(data);
    this.lastHeard.value = Date.now();
    this.#receive(message);
    if (message.type === "connected" && !this.#reselecting) this.#enter(this.#lastId === null ? "snapshot" : "live");
    else if (message.type === "resync") this.#enter("snapshot");
    else if (message.type === "full_state_snapshot") this.#enter("live");
    if (id !== null) this.#lastId = id;
  }

  /** @param {"snapshot" | "live"} kind */
  #enter(kind) {
    if (kind === "live") {
      this.#reselecting = false;
      this.#failures = 0;
      this.#awaySince = null;
    }
    if (this.connection.peek().kind !== kind) console.info(`muster: ${kind === "live" ? "live" : "connected, waiting for the state"}`);
    this.connection.value = { kind };
  }
}
