// A line over time, small enough for a card: drawn as a path, said as words.

import { html } from "../core/view.js";
import { clockTime } from "../core/format.js";

const WIDTH = 320;
const HEIGHT = 56;

/** Through all places; where there is none the line has a gap. @param {({x: number, y: number} | null)[]} places */
export function linePath(places) {
  let path = "";
  let drawing = false;
  for (const place of places) {
    if (place) path += `${drawing ? "L" : "M"}${place.x.toFixed(1)} ${place.y.toFixed(1)}`;
    drawing = place !== null;
  }
  return path;
}

/**
 * Points without a value are gaps: unknown is not zero.
 * @param {{title: string, points: {at: number, value: number | null}[], text: (value: number) => string, max?: number, tone?: string, since?: string}} props
 */
export function Chart({ title, points, text, max, tone = "", since }) {
  const known = points.flatMap((point) => (point.value === null ? [] : [point.value]));
  const last = points.at(-1)?.value ?? null;
  const now = last === null ? "unknown" : text(last);
  const top = max ?? Math.max(...known, 0);
  const x = (/** @type {number} */ index) => (points.length < 2 ? 0 : (index * WIDTH) / (points.length - 1));
  const y = (/** @type {number} */ value) => HEIGHT - 2 - (top ? (Math.min(value, top) / top) * (HEIGHT - 6) : 0);
  const path = linePath(points.map(({ value }, index) => (value === null ? null : { x: x(index), y: y(value) })));
  const range = since ?? (points[0] ? `since ${clockTime(points[0].at)}` : "no figures yet");
  return html`<figure class="chart ${tone}">
    <figcaption><span>${title}</span> <b>${now}</b> <span class="quiet end">${known.length ? `max ${text(Math.max(...known))}` : ""}</span></figcaption>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label="${title}: ${now}, ${range}">
      <path d=${path} vector-effect="non-scaling-stroke" />
    </svg>
  </figure>`;
}
