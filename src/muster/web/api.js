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

/** The server's own words for what went wrong. @param {Response} response */
export async function problem(response) {
  const body = await response.json().catch(() => null);
  return /** @type {string} */ (body?.message ?? `the server answered ${response.status} ${response.statusText}`);
}

/** @param {string} path @param {RequestInit} [options] */
export async function request(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { Accept: "application/json", ...authorization() } });
  if (!response.ok) throw new Error(await problem(response));
  return response.json();
}

/** A file's content: an address in the page cannot show the token. @param {string} path */
export async function fileAt(path) {
  const response = await fetch(path, { headers: authorization() });
  if (!response.ok) throw new Error(await problem(response));
  return response.blob();
}
