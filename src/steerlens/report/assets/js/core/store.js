/**
 * The store: what is on view, in one place. Controls call `set`, renderers `watch`, and nothing else holds state, so that
 * an address, the Back button and a click all take the same way.
 */

/** @import { View, Store, History } from "../types" */

/** @type {Readonly<View>} */
export const START = Object.freeze({
  input: null, component: null, map: null, show: "colours", scale: null, strength: null, seed: null, target: null, pins: [],
  model: null, lens: null, group: null, patches: null, without: null, steps: null, guidance: null, list: null, control: null,
});

/**
 * @param {Partial<View>} [initial]
 * @returns {Store}
 */
export function createStore(initial = {}) {
  /** @type {Readonly<View>} */
  let view = Object.freeze({ ...START, ...initial });
  /** @type {Set<{ keys: (keyof View)[], react: (view: Readonly<View>, history: History) => void }>} */
  const watchers = new Set();
  return {
    get view() {
      return view;
    },
    set(change, history = "push") {
      const keys = /** @type {(keyof View)[]} */ (Object.keys(change));
      const changed = keys.filter((key) => !same(view[key], change[key]));
      if (!changed.length) return;
      view = Object.freeze({ ...view, ...change });
      for (const watcher of [...watchers]) if (watcher.keys.some((key) => changed.includes(key))) watcher.react(view, history);
    },
    watch(keys, react) {
      const watcher = { keys, react };
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },
  };
}

/**
 * @param {unknown} a
 * @param {unknown} b
 */
function same(a, b) {
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, i) => item === b[i]);
  return a === b;
}
