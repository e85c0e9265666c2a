// Which page is open. Addresses are hashes, so that the server has one page to serve: #/nodes/atlas, #/jobs/job-1.

import { computed, signal } from "./view.js";

/**
 * @typedef {"fleet" | "node" | "jobs" | "models" | "gateway" | "queues" | "usage" | "access"} PageName
 * @typedef {{page: PageName, id: string | null}} Route
 */

/** @type {Record<string, PageName>} */
const PAGES = { "": "fleet", nodes: "node", jobs: "jobs", models: "models", gateway: "gateway", queues: "queues", usage: "usage", access: "access" };

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

/** Ids are made of letters, digits and ._:- and need no encoding. */
const parts = computed(() => hash.value.replace(/^#\/?/, "").split("?", 1)[0]?.split("/") ?? []);

/** The job that is looked at, over whatever page was open before. */
export const openJobId = computed(() => (parts.value[0] === "jobs" && parts.value[1]) || null);

/** @type {Route} */
let below = { page: "jobs", id: null };

export const route = computed(() => {
  if (openJobId.value !== null) return below;
  const [first = "", id = null] = parts.value;
  const page = (first === "nodes" && !id) || !(first in PAGES) ? "fleet" : /** @type {PageName} */ (PAGES[first]);
  below = { page, id };
  return below;
});

/** @param {Route} to */
const addressOf = ({ page, id }) => {
  const first = Object.keys(PAGES).find((name) => PAGES[name] === page) ?? "";
  return `#/${first}${id === null ? "" : `/${id}`}`;
};

/** @param {string} id */
export const jobHref = (id) => `#/jobs/${id}`;
/** @param {string} id */
export const nodeHref = (id) => `#/nodes/${id}`;

export function closeJob() {
  history.replaceState(null, "", addressOf(route.peek()));
  hash.value = location.hash;
}
