// Every page: what it is called, what it needs from the stream, and what draws it. A page is added here and in core/route.js.

import { html } from "../core/view.js";
import { route } from "../core/route.js";
import { AccessPage } from "./access.js";
import { Fleet, inFull } from "./fleet.js";
import { GatewayPage } from "./gateway.js";
import { Jobs, JobsBeside } from "./jobs.js";
import { ModelsPage } from "./models.js";
import { NodePage } from "./node.js";
import { QueuesPage } from "./queues.js";
import { SystemPage } from "./system.js";
import { MissingPage } from "./missing.js";
import { UsagePage } from "./usage.js";

/**
 * `machines` are those needed in full where there are too many for all; `jobs` whether those of all machines matter.
 * @typedef {{machines: string[], jobs: boolean}} Interest
 * @typedef {{title: string, href: string | null, interest: (id: string | null) => Interest, draw: (props: {id: string | null}) => unknown}} Page
 */

/** @returns {Interest} */
export const nothing = () => ({ machines: [], jobs: false });

/** In the order of the navigation; without an address a page is reached from another one. @type {Partial<Record<import("../core/route.js").PageName, Page>>} */
export const PAGES = {
  fleet: {
    title: "Fleet",
    href: "#/",
    interest: () => ({ machines: inFull.value, jobs: true }),
    draw: () => html`<div class="overview"><${Fleet} /><${JobsBeside} /></div>`,
  },
  node: {
    title: "Node",
    href: null,
    interest: (id) => ({ machines: id === null ? [] : [id], jobs: false }),
    draw: NodePage,
  },
  jobs: { title: "Jobs", href: "#/jobs", interest: () => ({ machines: [], jobs: true }), draw: () => html`<${Jobs} />` },
  models: { title: "Models", href: "#/models", interest: nothing, draw: ModelsPage },
  gateway: { title: "Gateway", href: "#/gateway", interest: nothing, draw: GatewayPage },
  queues: { title: "Queues", href: "#/queues", interest: nothing, draw: QueuesPage },
  system: { title: "System", href: "#/system", interest: nothing, draw: SystemPage },
  usage: { title: "Usage", href: "#/usage", interest: nothing, draw: UsagePage },
  access: { title: "Tokens", href: "#/access", interest: nothing, draw: AccessPage },
  missing: { title: "No such page", href: null, interest: nothing, draw: MissingPage },
};

/** @returns {Page} */
export const openPage = () => PAGES[route.value.page] ?? /** @type {Page} */ (PAGES.fleet);
