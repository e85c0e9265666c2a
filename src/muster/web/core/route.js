// Which page is open. Addresses are hashes, so that the server has one page to serve: #/nodes/atlas, #/jobs/job-1.

import { followed } from "./hand.js";
import { computed, signal } from "./view.js";

/**
 * @typedef {"fleet" | "node" | "jobs" | "models" | "gateway" | "queues" | "system" | "usage" | "access" | "missing"} PageName
 * @typedef {{page: PageName, id: string | null}} Route
 */

/** @type {Record<string, PageName>} */
const PAGES = { "": "fleet", nodes: "node", jobs: "jobs", models: "models", gateway: "gateway", queues: "queues", system: "system", usage: "usage", access: "access" };

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

/** Ids are made of letters, digits and ._:- and need no encoding. @param {string} address */
const partsOf = (address) => address.replace(/^#\/?/, "").split("?", 1)[0]?.split("/") ?? [];
const drawn = followed(hash);
const parts = computed(() => partsOf(drawn.value));

/** The job that is looked at, over whatever page was open before. */
export const openJobId = computed(() => (parts.value[0] === "jobs" && parts.value[1]) || null);

/** @param {string[]} parts @returns {Route} */
function routeOf([first = "", id]) {
  if (first === "nodes" && !id) return { page: "fleet", id: null };
  return { page: PAGES[first] ?? "missing", id: id ?? null };
}

/** @type {Route} */
let below = { page: "jobs", id: null };

export const route = computed(() => {
  if (openJobId.value !== null) return below;
  below = routeOf(parts.value);
  return below;
});

/** Where the hand wants to go: the page itself follows. */
export const heading = computed(() => {
  const wanted = partsOf(hash.value);
  return wanted[0] === "jobs" && wanted[1] ? below.page : routeOf(wanted).page;
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
