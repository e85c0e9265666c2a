// Long lists are drawn a few at a time, some with each frame, so that a hand never waits for all of them.

import { useEffect, useRef, useState } from "../core/view.js";

/**
 * Whose turn to be drawn has come: those that were drawn before and, in order, a few more with each frame.
 * @param {string[]} keys @param {number} perFrame @returns {Set<string>}
 */
export function useTurns(keys, perFrame) {
  const drawn = useRef(/** @type {Set<string>} */ (new Set()));
  const frame = useRef(/** @type {CSSNumberish | null} */ (null));
  const [, drawAgain] = useState(0);
  const now = document.timeline.currentTime; // stands still within a frame
  let left = frame.current === now && !document.hidden ? 0 : perFrame;
  const turns = new Set(keys.filter((key) => drawn.current.has(key) || left-- > 0));
  drawn.current = turns;
  frame.current = now;
  useEffect(() => {
    if (turns.size === keys.length) return undefined;
    const next = () => drawAgain((count) => count + 1);
    if (document.hidden) return void setTimeout(next); // no frame comes
    const due = requestAnimationFrame(next);
    return () => cancelAnimationFrame(due);
  });
  return turns;
}
