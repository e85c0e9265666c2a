// Long lists are drawn a few at a time, a frame each, so that a hand never waits for what is off the screen.

import { useEffect, useRef, useState } from "../core/view.js";

/**
 * Whose turn to be drawn has come: those that were drawn before and, in order, a few more with each frame.
 * @param {string[]} keys @param {number} perFrame @returns {Set<string>}
 */
export function useTurns(keys, perFrame) {
  const drawn = useRef(/** @type {Set<string>} */ (new Set()));
  const [, drawAgain] = useState(0);
  let left = perFrame;
  const turns = new Set(keys.filter((key) => drawn.current.has(key) || left-- > 0));
  drawn.current = turns;
  useEffect(() => {
    if (turns.size < keys.length) drawAgain((count) => count + 1);
  });
  return turns;
}
