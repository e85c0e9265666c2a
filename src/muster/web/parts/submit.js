// A job submitted by hand: a form made of the connector's own schema, or plain JSON.

import { html, signal, useEffect, useState } from "../core/view.js";
import { request } from "../core/api.js";
import { counted } from "../core/format.js";
import { jobHref } from "../core/route.js";

/**
 * @typedef {{type?: string | string[], title?: string, description?: string, default?: unknown, enum?: unknown[],
 *   minimum?: number, maximum?: number, anyOf?: Schema[], properties?: Record<string, Schema>, required?: string[]}} Schema
 * @typedef {{name: string, provides: string[], schema: Schema | null, available: {service: string, workers: number}[]}} Connector
 */

const connectors = signal(/** @type {Connector[] | null} */ (null));
const chosen = signal("simulation");
const fields = signal(/** @type {Record<string, string>} */ ({}));
const json = signal("{}");
const asJson = signal(false);
const priority = signal("50");
const outcome = signal(/** @type {{job?: string, error?: string} | null} */ (null));

/** What can be asked for: each service that runs, and each that some connector could provide. */
function services() {
  /** @type {Map<string, {connector: Connector, workers: number}>} */
  const found = new Map();
  for (const connector of connectors.value ?? []) {
    for (const service of connector.provides) found.set(service, { connector, workers: 0 });
    for (const { service, workers } of connector.available) found.set(service, { connector, workers });
  }
  return found;
}

/** Of several types the first that is one: null is said by leaving the field empty. @param {Schema} schema @returns {string} */
function typeOf(schema) {
  const types = schema.anyOf?.map(typeOf) ?? [schema.type ?? ""].flat();
  return types.find((type) => type !== "null") ?? "";
}

/** What was typed, as the schema wants it; what is left empty is left out. @param {Schema} schema */
function payloadOf(schema) {
  /** @type {Record<string, unknown>} */
  const payload = {};
  for (const [name, part] of Object.entries(schema.properties ?? {})) {
    const text = fields.peek()[name] ?? "";
    if (text === "") continue;
    const type = typeOf(part);
    if (type === "string") payload[name] = text;
    else {
      try {
        payload[name] = JSON.parse(text);
      } catch {
        throw new Error(`${name}: ${type || "this"} is written as JSON, which ${text} is not`);
      }
    }
  }
  return payload;
}

/** @param {Schema | null} schema */
async function send(schema) {
  outcome.value = null;
  try {
    const payload = schema?.properties && !asJson.peek() ? payloadOf(schema) : JSON.parse(json.peek());
    const body = { service_required: chosen.peek(), priority: Number(priority.peek()), payload };
    outcome.value = { job: (await request("/api/jobs", { method: "POST", json: body })).job_id };
  } catch (error) {
    outcome.value = { error: /** @type {Error} */ (error).message };
  }
}

/** @param {{name: string, schema: Schema, required: boolean}} props */
function Field({ name, schema, required }) {
  const value = fields.value[name] ?? "";
  const put = (/** @type {Event} */ event) => (fields.value = { ...fields.value, [name]: /** @type {HTMLInputElement} */ (event.target).value });
  const type = typeOf(schema);
  const hint = schema.default == null ? "" : JSON.stringify(schema.default);
  let input;
  if (schema.enum || type === "boolean") {
    const options = schema.enum ?? [true, false];
    input = html`<select onChange=${put} required=${required}><option value="">${hint && `${hint} (default)`}</option>
      ${options.map((option) => html`<option key=${option} value=${option} selected=${String(option) === value}>${String(option)}</option>`)}</select>`;
  } else if (type === "number" || type === "integer") {
    input = html`<input type="number" step=${type === "integer" ? 1 : "any"} min=${schema.minimum} max=${schema.maximum} value=${value}
      placeholder=${hint} required=${required} onInput=${put} />`;
  } else {
    input = html`<textarea rows=${type === "string" ? 2 : 3} placeholder=${hint || (type === "string" ? "" : "JSON")} required=${required}
      spellcheck=${false} onInput=${put} value=${value}></textarea>`;
  }
  return html`<label class="field"><span>${schema.title ?? name}${required && " *"}</span>${input}
    ${schema.description && html`<small class="quiet">${schema.description}</small>`}</label>`;
}

/** @param {{schema: Schema | null}} props */
function Payload({ schema }) {
  if (!schema?.properties || asJson.value)
    return html`<label class="field"><span>Payload</span><textarea rows="8" spellcheck=${false} value=${json}
      onInput=${(/** @type {Event} */ event) => (json.value = /** @type {HTMLTextAreaElement} */ (event.target).value)}></textarea></label>`;
  return Object.entries(schema.properties).map(([name, part]) =>
    html`<${Field} key=${name} name=${name} schema=${part} required=${schema.required?.includes(name) ?? false} />`);
}

export function Submit() {
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    request("/api/connectors").then((answer) => (connectors.value = answer.connectors), (error) => setTrouble(error.message));
  }, []);
  if (trouble) return html`<p class="error-text" role="alert">${trouble}</p>`;
  if (!connectors.value) return html`<p class="quiet">Loading …</p>`;
  const all = services();
  const now = all.get(chosen.value) ?? [...all.values()][0];
  const schema = now?.connector.schema ?? null;
  const choose = (/** @type {Event} */ event) => {
    chosen.value = /** @type {HTMLSelectElement} */ (event.target).value;
    fields.value = {};
    outcome.value = null;
  };
  return html`<form class="panel submit" onSubmit=${(/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    send(schema);
  }}>
    <label class="field"><span>Service</span><select onChange=${choose}>${[...all].map(([service, { workers }]) => html`<option key=${service}
      value=${service} selected=${service === chosen.value}>${service} (${workers ? counted(workers, "worker") : "no worker now"})</option>`)}</select></label>
    <label class="field"><span>Priority</span><input type="number" value=${priority} required
      onInput=${(/** @type {Event} */ event) => (priority.value = /** @type {HTMLInputElement} */ (event.target).value)} /></label>
    <${Payload} schema=${schema} />
    <div class="line"><button type="submit">Submit</button>
      ${schema?.properties && html`<label><input type="checkbox" checked=${asJson} onChange=${() => (asJson.value = !asJson.value)} /> as JSON</label>`}</div>
    ${outcome.value?.job && html`<p role="status">Submitted: <a href=${jobHref(outcome.value.job)}><code>${outcome.value.job}</code></a></p>`}
    ${outcome.value?.error && html`<p class="error-text" role="alert">${outcome.value.error}</p>`}
  </form>`;
}
