// A node's use of late, as a line on its card: read once from what the server keeps, then drawn on as the node reports.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { percent } from "../core/format.js";
import { whenCalm } from "../core/hand.js";
import { mean } from "../core/state.js";
import { linePath } from "./chart.js";

const WIDTH = 320;
const HEIGHT = 20;
const SHOWN_MS = 15 * 60_000;
/** The server's points are ten seconds apart; a report that is a little early is not left out for it. */
const EVERY_MS = 9_000;
const POINTS_MAX = SHOWN_MS / EVERY_MS;
/** So long without a report is unknown, or the server knows more: a page that was hidden or cut off heard nothing. */
const HOLE_MS = 60_000;
/** Who scrolls back within this finds the line as it was. */
const KEPT_MS = 60_000;
const READ_TIMEOUT_MS = 10_000;

/** @typedef {{at: number, gpu: number | null, cpu: number | null}} Point */

class Course {
  /** @type {Point[]} */
  points = [];
  /** How often the server was read. */
  read = signal(0);
  /** @type {Machine | null} */
  #noted = null;
  #asked = false;
  #forgetting = 0;

  /** @param {string} id */
  constructor(id) {
    this.id = id;
  }

  look() {
    clearTimeout(this.#forgetting);
    if (!this.#asked) this.#ask();
  }

  leave() {
    if (waiting.delete(this)) this.#asked = false;
    this.#forgetting = setTimeout(() => courses.delete(this.id), KEPT_MS);
  }

  /** @param {Machine} machine */
  note(machine) {
    const at = machine.last_seen;
    if (document.hidden || at === null || machine === this.#noted) return;
    this.#noted = machine;
    const last = this.points.at(-1);
    const step = last ? at - last.at : EVERY_MS;
    const soon = last && Math.abs(step) < EVERY_MS;
    const figures = { gpu: mean(machine.gpus.map((gpu) => gpu.utilization_percent)), cpu: machine.resources?.cpu_percent ?? null };
    this.#keep(soon ? [...this.points.slice(0, -1), { at: last.at, ...figures }] : [...this.points, { at, ...figures }]);
    if (Math.abs(step) > HOLE_MS) this.#ask();
  }

  async take() {
    const path = `/api/v1/nodes/${encodeURIComponent(this.id)}/history`;
    /** @type {import("./history.js").History} */
    const known = await request(path, { signal: AbortSignal.timeout(READ_TIMEOUT_MS) });
    const points = known.at.map((at, index) => ({
      at, gpu: mean(known.gpus.map((gpu) => gpu.utilization_percent[index])), cpu: known.cpu_percent[index] ?? null,
    }));
    const end = points.at(-1)?.at ?? -Infinity;
    this.#keep([...points, ...this.points.filter((point) => point.at > end)]);
    this.read.value += 1;
  }

  #ask() {
    this.#asked = true;
    waiting.add(this);
    if (!reading) readAll();
  }

  /** Nothing of before the time that is shown, nor of after it: the server's clock may be set back. @param {Point[]} points */
  #keep(points) {
    const end = points.at(-1)?.at ?? 0;
    this.points = points.filter(({ at }) => end - SHOWN_MS <= at && at <= end).slice(-POINTS_MAX);
  }
}

/** @type {Map<string, Course>} */
const courses = new Map();
/** Those to be read, one after the other. @type {Set<Course>} */
const waiting = new Set();
let reading = false;

/** Each with a frame in which the hand rests; a hidden page has no frames. */
async function readAll() {
  reading = true;
  for (const course of waiting) {
    await new Promise((go) => whenCalm(() => go(null)));
    if (waiting.delete(course)) // it may be out of sight by now
      await course.take().catch((error) => console.info(`muster: history not read (${error.message})`));
  }
  reading = false;
}

/** @param {Point[]} points @param {"gpu" | "cpu"} kind */
function pathOf(points, kind) {
  const end = points.at(-1)?.at ?? 0;
  return linePath(points.flatMap((point, index) => {
    const value = point[kind];
    const place = value === null ? null : { x: WIDTH * (1 - (end - point.at) / SHOWN_MS), y: HEIGHT - 1 - (value / 100) * (HEIGHT - 2) };
    return point.at - (points[index - 1]?.at ?? point.at) > HOLE_MS ? [null, place] : [place];
  }));
}

/** Of the GPUs; of the CPU where there are none or theirs is unknown. @param {{machine: Machine}} props */
export function Spark({ machine }) {
  const id = machine.machine_id;
  const course = courses.get(id) ?? new Course(id);
  courses.set(id, course);
  useEffect(() => {
    course.look();
    return () => course.leave();
  }, [course]);
  course.note(machine);
  course.read.value; // draws anew
  const { points } = course;
  const kind = points.some((point) => point.gpu !== null) ? "gpu" : "cpu";
  const name = kind.toUpperCase();
  const uses = points.flatMap((point) => point[kind] ?? []);
  const most = uses.length ? `, at most ${percent(Math.max(...uses))}` : "";
  const when = machine.late || !machine.connected ? "last" : "now";
  const words = `${name} use in the last 15 minutes, ${when} ${percent(points.at(-1)?.[kind])}${most}`;
  return html`<div class="spark" title=${words}>
    <span class="quiet" aria-hidden="true">${name}, 15 min</span>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${words}>
      <path d=${pathOf(points, kind)} vector-effect="non-scaling-stroke" />
    </svg>
  </div>`;
}
