// Of long lists only what is on the screen or soon will be is drawn in full.

import { useEffect, useLayoutEffect, useRef, useState } from "../core/view.js";

/** Beyond the screen, of its height: who scrolls finds it drawn. */
const MARGIN = "60% 0px";

/**
 * Which of the children of `list`, each with its key in `data-node`, are near the screen. Nobody knows before the first
 * frame: until then the first few are taken to be.
 * @param {string[]} keys @param {number} atFirst @returns {{list: {current: HTMLElement | null}, near: string[]}}
 */
export function useNear(keys, atFirst) {
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const observer = useRef(/** @type {IntersectionObserver | null} */ (null));
  const watched = useRef(/** @type {Map<Element, boolean | null>} */ (new Map()));
  const [, drawAgain] = useState(0);
  useLayoutEffect(() => {
    observer.current ??= new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) if (watched.current.has(target)) watched.current.set(target, isIntersecting);
      drawAgain((count) => count + 1);
    }, { rootMargin: MARGIN });
    const there = new Set(list.current?.children);
    for (const element of watched.current.keys())
      if (!there.has(element)) {
        observer.current.unobserve(element);
        watched.current.delete(element);
      }
    for (const element of there)
      if (!watched.current.has(element)) {
        watched.current.set(element, null);
        observer.current.observe(element);
      }
  }, [keys]);
  useEffect(() => () => observer.current?.disconnect(), []);
  /** @type {Map<string | undefined, boolean | null>} */
  const known = new Map([...watched.current].map(([element, near]) => [/** @type {HTMLElement} */ (element).dataset.node, near]));
  return { list, near: keys.filter((key, index) => known.get(key) ?? index < atFirst) };
}

/** Whether an element has been near the screen. @returns {{box: {current: HTMLElement | null}, seen: boolean}} */
export function useSeen() {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen || !box.current) return undefined;
    const observer = new IntersectionObserver((entries) => setSeen(entries.some((entry) => entry.isIntersecting)), { rootMargin: MARGIN });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [seen]);
  return { box, seen };
}
