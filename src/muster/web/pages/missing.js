// An address that leads nowhere: mistyped, or of a page that a newer or older server has.

import { html } from "../core/view.js";

export const MissingPage = () => html`<div class="empty">
  <h2>No such page</h2>
  <p>Nothing of this monitor is at <code>${location.hash}</code>.</p>
  <p><a class="button" href="#/">To the fleet</a></p>
</div>`;
