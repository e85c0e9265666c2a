// Requests to the control plane, with the token of this browser tab when one was asked for.

const TOKEN_KEY = "muster-token";

/** @param {string} token */
export function keepToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

/** @returns {Record<string, string>} */
export function authorization() {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** The server's own words for what went wrong; on the gateway's paths in OpenAI's shape. @param {Response} response */
export async function problem(response) {
  const body = await response.json().catch(() => null);
  return /** @type {string} */ (body?.message ?? body?.error?.message ?? `the server answered ${response.status} ${response.statusText}`);
}

/** What can be shown of an answer that may still be under way or have failed. @template T @typedef {{value?: T, error?: string}} Answer */

/**
 * Ask, and show what comes unless the returned function was called before.
 * @template T @param {() => Promise<T>} ask @param {(answer: Answer<T>) => void} show
 */
export function load(ask, show) {
  let wanted = true;
  ask().then(
    (value) => wanted && show({ value }),
    (error) => wanted && show({ error: error.message }),
  );
  return () => {
    wanted = false;
  };
}

/** @param {string} path @param {{method?: string, json?: unknown, withHeaders?: boolean, signal?: AbortSignal}} [options] @returns {Promise<any>} null of an empty answer */
export async function request(path, { json, withHeaders = false, ...options } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", ...authorization() };
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? null : JSON.stringify(json);
  const response = await fetch(path, { ...options, headers, body });
  if (!response.ok) throw new Error(await problem(response));
  const answer = response.status === 204 ? null : await response.json();
  return withHeaders ? { body: answer, headers: response.headers } : answer;
}

/** A file's content: an address in the page cannot show the token. @param {string} path */
export async function fileAt(path) {
  const response = await fetch(path, { headers: authorization() });
  if (!response.ok) throw new Error(await problem(response));
  return response.blob();
}
