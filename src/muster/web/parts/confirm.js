// What cannot be taken back is asked for twice, at the same place.

import { html, useState } from "../core/view.js";

/**
 * @param {{label: string, question?: string, yes?: string, no?: string, danger?: boolean, disabled?: boolean,
 *   onSure: () => Promise<unknown> | void}} props without a question it is done at once
 */
export function Act({ label, question, yes = "Yes", no = "No", danger = false, disabled = false, onSure }) {
  const [asking, setAsking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const act = async () => {
    setAsking(false);
    setError("");
    setBusy(true);
    try {
      await onSure();
    } catch (problem) {
      setError(/** @type {Error} */ (problem).message);
    }
    setBusy(false);
  };
  const failure = error && html`<p class="error-text" role="alert">${error}</p>`;
  if (!asking)
    return html`<button disabled=${disabled || busy} onClick=${question ? () => setAsking(true) : act}>${label}</button>${failure}`;
  return html`<span class="asked"><span>${question}</span>
    <button class=${danger ? "danger" : ""} onClick=${act}>${yes}</button>
    <button onClick=${() => setAsking(false)}>${no}</button></span>`;
}
