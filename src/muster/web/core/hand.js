// The hand comes first. What it touched is drawn at once; what follows from that is drawn in tasks of their own, and what
// is heard from the server waits for a moment.

import { batch, effect, signal } from "./view.js";

const BUSY_MS = 120;
/** So long a busy hand may put off what is heard. */
const PATIENCE_MS = 400;

/** @type {Set<() => void>} */
const following = new Set();
/** Whether what is shown is still to follow the hand. */
export const behind = signal(false);

/**
 * The same value a frame later, for all that takes long to draw. Those that changed together follow together.
 * @template T @param {Signal<T>} source @returns {Signal<T>}
 */
export function followed(source) {
  const follower = signal(source.peek());
  const follow = () => {
    follower.value = source.peek();
  };
  effect(() => {
    if (source.value === follower.peek()) return;
    if (!following.size) afterPaint(followAll);
    following.add(follow);
    behind.value = true;
  });
  return follower;
}

function followAll() {
  const all = [...following];
  following.clear();
  batch(() => {
    for (const follow of all) follow();
    behind.value = false;
  });
}

/** A hidden page draws no frame. @param {() => void} act */
function afterPaint(act) {
  if (document.hidden) setTimeout(act);
  else requestAnimationFrame(() => setTimeout(act));
}

let touchedAt = -Infinity;
for (const kind of ["pointerdown", "pointerup", "keydown", "keyup"])
  addEventListener(kind, () => (touchedAt = performance.now()), { capture: true, passive: true });

/** With the next frame in which the hand rests, or soon anyway. @param {() => void} act */
export function whenCalm(act) {
  const latest = performance.now() + PATIENCE_MS;
  const look = () => {
    const now = performance.now();
    const calmAt = Math.min(touchedAt + BUSY_MS, latest);
    if (now < calmAt) setTimeout(look, calmAt - now);
    else requestAnimationFrame(act);
  };
  look();
}
