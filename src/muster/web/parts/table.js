// A table that may be wider than the screen: it is scrolled sideways, by the keyboard as well.

import { html } from "../core/view.js";

/** @param {{label: string, children?: unknown}} props */
export const TableBox = ({ label, children }) =>
  html`<div class="table-box" tabindex="0" role="region" aria-label=${label}>${children}</div>`;
