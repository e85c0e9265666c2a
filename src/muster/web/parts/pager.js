// Back and forth through a list whose whole length is known.

import { html } from "../core/view.js";

/** @param {{what: string, first: number, shown: number, total: number, page: number, onTurn: (page: number) => void}} props */
export function Pager({ what, first, shown, total, page, onTurn }) {
  if (shown === total) return null;
  return html`<nav class="pager" aria-label="Pages of ${what}">
    <button disabled=${page === 0} onClick=${() => onTurn(page - 1)}>Previous</button>
    <span>${first + 1}–${first + shown} of ${total.toLocaleString()}</span>
    <button disabled=${first + shown >= total} onClick=${() => onTurn(page + 1)}>Next</button>
  </nav>`;
}
