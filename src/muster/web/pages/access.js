// Tokens: who may come in as what, made and revoked by admins. A token's own text is shown once, when it is made.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { Ago, readable } from "../core/format.js";
import { Act } from "../parts/confirm.js";
import { ROLE } from "../core/vocabulary.js";

/**
 * @typedef {{id: string, name: string, role: string, joins: boolean, node_id: string | null, requests_per_s: number | null,
 *   uses: number, uses_max: number | null, created_at: number, expires_at: number | null, expired: boolean, last_used_at: number | null,
 *   allowance: Allowance, used: Used | null}} Token
 * @typedef {{models?: string[], requests_per_min?: number | null, tokens_per_min?: number | null, tokens_per_day?: number | null, tokens_per_month?: number | null,
 *   weight?: number, priority?: number | null}} Allowance
 * @typedef {{tokens_today: number, tokens_this_month: number, requests_left: number | null, tokens_left: number | null}} Used
 * @typedef {"requests_per_min" | "tokens_per_min" | "tokens_per_day" | "tokens_per_month" | "weight" | "priority"} Limit
 */

const tokens = signal(/** @type {Token[] | null} */ (null));
const trouble = signal("");
const made = signal(/** @type {{name: string, token: string} | null} */ (null));
const wanted = signal({ name: "", role: "client", days: "" });

/** Name, label, least, step. */
const LIMITS = /** @type {[Limit, string, string, string][]} */ ([
  ["requests_per_min", "Requests a minute", "1", "1"],
  ["tokens_per_min", "Tokens a minute", "1", "1"],
  ["tokens_per_day", "Tokens a day", "1", "1"],
  ["tokens_per_month", "Tokens a month", "1", "1"],
  ["weight", "Weight in line", "0.01", "any"],
  ["priority", "Priority", "0", "1"],
]);
const edited = signal(/** @type {{id: string, name: string, models: string, limits: Record<Limit, string>} | null} */ (null));

/** @param {Token} token */
function edit({ id, name, allowance }) {
  const limits = Object.fromEntries(LIMITS.map(([limit]) => [limit, String(allowance[limit] ?? "")]));
  edited.value = { id, name, models: (allowance.models ?? []).join(", "), limits: /** @type {Record<Limit, string>} */ (limits) };
}

async function allow() {
  const now = edited.peek();
  if (!now) return;
  try {
    const limits = Object.fromEntries(LIMITS.flatMap(([limit]) => (now.limits[limit] === "" ? [] : [[limit, Number(now.limits[limit])]])));
    const models = now.models.split(",").map((model) => model.trim()).filter(Boolean);
    await request(`/api/v1/tokens/${encodeURIComponent(now.id)}/allowance`, { method: "PUT", json: { models, ...limits } });
    edited.value = null;
    await look();
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

async function look() {
  try {
    tokens.value = await request("/api/v1/tokens");
    trouble.value = "";
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

async function make() {
  const { name, role, days } = wanted.peek();
  try {
    const expires = days === "" ? {} : { expires_in_s: Number(days) * 86_400 };
    const answer = await request("/api/v1/tokens", { method: "POST", json: { name: name.trim(), role, ...expires } });
    made.value = { name: answer.about.name, token: answer.token };
    wanted.value = { ...wanted.peek(), name: "" };
    await look();
  } catch (error) {
    trouble.value = /** @type {Error} */ (error).message;
  }
}

/** @param {keyof ReturnType<typeof wanted.peek>} name */
const put = (name) => (/** @type {Event} */ event) => {
  wanted.value = { ...wanted.value, [name]: /** @type {HTMLInputElement} */ (event.target).value };
};

function Form() {
  return html`<form class="inline" onSubmit=${(/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    make();
  }}>
    <label>Name <input required value=${wanted.value.name} onInput=${put("name")} autocomplete="off" spellcheck=${false} /></label>
    <label>Role <select onChange=${put("role")}>${ROLE.map((role) => html`<option key=${role} value=${role}
      selected=${role === wanted.value.role}>${readable(role)}</option>`)}</select></label>
    <label>Ends after <input type="number" min="1" step="1" placeholder="never" value=${wanted.value.days} onInput=${put("days")} /> days</label>
    <button type="submit">Make a token</button>
  </form>`;
}

function Made() {
  if (!made.value) return null;
  const { name, token } = made.value;
  return html`<section class="panel" role="status"><p>The token <b>${name}</b>, shown this once:</p>
    <p class="line"><code class="secret">${token}</code> <button onClick=${() => navigator.clipboard?.writeText(token)}>Copy</button>
      <button onClick=${() => (made.value = null)}>Done</button></p></section>`;
}

function Allowing() {
  const now = edited.value;
  if (!now) return null;
  const write = (/** @type {Partial<typeof now>} */ change) => (edited.value = { ...now, ...change });
  return html`<form class="panel inline" aria-label="What ${now.name} may use" onSubmit=${(/** @type {SubmitEvent} */ event) => {
    event.preventDefault();
    allow();
  }}>
    <p>What <b>${now.name}</b> may use; empty is no limit. Days and months are those of UTC. Where requests wait, one of
      weight 2 has two turns where others have one; its priority is also the most that it may ask for.</p>
    <label>Models <input value=${now.models} placeholder="all, or names and globs with commas" size="32" autocomplete="off" spellcheck=${false}
      onInput=${(/** @type {Event} */ event) => write({ models: /** @type {HTMLInputElement} */ (event.target).value })} /></label>
    ${LIMITS.map(([limit, label, least, step]) => html`<label key=${limit}>${label} <input type="number" min=${least} step=${step} value=${now.limits[limit]}
      onInput=${(/** @type {Event} */ event) => write({ limits: { ...now.limits, [limit]: /** @type {HTMLInputElement} */ (event.target).value } })} /></label>`)}
    <button type="submit">Save</button><button type="button" onClick=${() => (edited.value = null)}>Cancel</button>
  </form>`;
}

/** How much of each limit is used or left. @param {{allowance: Allowance, used: Used}} props */
function Limits({ allowance, used }) {
  const parts = [
    allowance.requests_per_min && `${used.requests_left?.toLocaleString()} of ${allowance.requests_per_min.toLocaleString()} requests left this minute`,
    allowance.tokens_per_min && `${used.tokens_left?.toLocaleString()} of ${allowance.tokens_per_min.toLocaleString()} tokens left this minute`,
    allowance.tokens_per_day && `${Math.max(0, allowance.tokens_per_day - used.tokens_today).toLocaleString()} of ${allowance.tokens_per_day.toLocaleString()} tokens left today`,
    allowance.tokens_per_month && `${Math.max(0, allowance.tokens_per_month - used.tokens_this_month).toLocaleString()} of ${allowance.tokens_per_month.toLocaleString()} tokens left this month`,
    allowance.weight != null && `weight ${allowance.weight} in line`,
    allowance.priority != null && `priority ${allowance.priority}`,
  ].filter(Boolean);
  return parts.length ? html`<ul class="rows">${parts.map((part) => html`<li key=${part}>${part}</li>`)}</ul>` : html`<span class="quiet">no limit</span>`;
}

/** @param {{token: Token}} props */
function Row({ token: t }) {
  return html`<tr data-token=${t.name}>
    <th scope="row">${t.name}</th>
    <td>${t.joins ? "join" : readable(t.role)} ${t.node_id && html`<span class="quiet">${t.node_id}</span>`}</td>
    <td>${t.used && ((t.allowance.models ?? []).join(", ") || html`<span class="quiet">all</span>`)}</td>
    <td>${t.used && html`<${Limits} allowance=${t.allowance} used=${t.used} />`}</td>
    <td><${Ago} at=${t.created_at} /></td>
    <td>${t.last_used_at ? html`<${Ago} at=${t.last_used_at} />` : html`<span class="quiet">never</span>`}
      ${t.joins && html` <span class="quiet">${t.uses}${t.uses_max != null && ` of ${t.uses_max}`} joined</span>`}</td>
    <td>${t.expired ? html`<span class="error-text">ended</span>` : t.expires_at ? new Date(t.expires_at).toLocaleDateString() : html`<span class="quiet">never</span>`}</td>
    <td>${t.used && html`<button onClick=${() => edit(t)}>Limits</button> `}<${Act} label="Revoke" question="Refuse ${t.name} from now on?" yes="Revoke it" no="No" danger=${true} onSure=${async () => {
      await request(`/api/v1/tokens/${encodeURIComponent(t.id)}`, { method: "DELETE" });
      await look();
    }} /></td>
  </tr>`;
}

export function AccessPage() {
  useEffect(() => {
    look();
    return () => {
      made.value = null;
      edited.value = null;
    };
  }, []);
  return html`<div class="access-page"><header class="heading"><h2>Tokens</h2></header>
    ${trouble.value && html`<p class="error-text" role="alert">${trouble.value}</p>`}
    ${tokens.value && html`<${Form} /><${Made} /><${Allowing} />
      ${tokens.value.length === 0 ? html`<p class="empty">None was made yet.</p>` : html`<div class="table-box"><table>
        <thead><tr><th scope="col">Name</th><th scope="col">Role</th><th scope="col">Models</th><th scope="col">Limits</th><th scope="col">Made</th><th scope="col">Used</th><th scope="col">Ends</th>
          <th scope="col"><span class="for-readers">Actions</span></th></tr></thead>
        <tbody>${tokens.value.map((token) => html`<${Row} key=${token.id} token=${token} />`)}</tbody></table></div>`}`}
  </div>`;
}
