/** The map *Without it*: the real ablation of every head, measured layer by layer when the map is to show it. */

import { headKey } from "../../../report/assets/js/core/sites.js";
import { availableModes, modeOf } from "../../../report/assets/js/sections/modes.js";
import { Latest, streamed } from "./api.js";
import { niceCeiling } from "./source.js";
import { cleanView, labelOf } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { LiveData } from "./types" */

const MOST_KNOWN = 32;

/** @param {Page} page */
export function headAblations(page) {
  const latest = new Latest();
  /** Effects by input, L x H; null where they are still to come. @type {Map<string, (number | null)[]>} */
  const known = new Map();
  let asked = "";

  /** @param {string} id @param {(number | null)[]} effects @param {string} ablating */
  const show = (id, effects, ablating) => {
    if (page.data.id !== id) return;
    const scale = /** @type {[number, number]} */ ([0, niceCeiling(Math.max(1e-3, ...effects.map((value) => value ?? 0)))]);
    const data = /** @type {LiveData} */ (page.data);
    page.update(/** @type {LiveData} */ ({ ...data, withoutHead: effects, ablating, scales: { ...data.scales, ablation: scale } }));
  };

  page.draw(["data", "map"], () => {
    const { meta, store } = page;
    const data = /** @type {LiveData} */ (page.data);
    const id = data.id;
    const effects = known.get(id);
    if (effects) {
      // Data of another target come without them. Not while others still draw these data.
      if (!data.withoutHead) queueMicrotask(() => { if (page.data === data) show(id, effects, furthest(effects, meta.heads)); });
      return;
    }
    if (modeOf(page, availableModes(page)) !== "without") {
      if (asked) latest.next();
      asked = "";
      return;
    }
    // A run may have measured them.
    if (asked === id || (data.withoutHead && data.ablating === undefined)) return;
    asked = id;
    /** @type {(number | null)[]} */
    const coming = Array.from({ length: meta.layers * meta.heads }, () => null);
    const { input, model } = cleanView(meta, store.view, id);
    void streamed("/api/ablate-all", { input, ...(model ? { model } : {}) }, {
      /** @param {{ layer: number, effects: (number | null)[] }} told */
      layer: ({ layer, effects: row }) => {
        coming.splice(layer * meta.heads, meta.heads, ...row);
        if (layer + 1 < meta.layers) return show(id, [...coming], `Ablating every head: ${layer + 1} of ${meta.layers} layers.`);
        if (known.size >= MOST_KNOWN) known.clear();
        known.set(id, [...coming]);
        asked = "";
        page.say(`Every head is ablated. ${furthest(coming, meta.heads)}`);
        show(id, [...coming], furthest(coming, meta.heads));
      },
      error: ({ message }) => show(id, coming, `Not every head could be ablated: ${message}`),
    }, { signal: latest.next(), slot: "ablate-all" });
  });
}

/**
 * @param {(number | null)[]} effects
 * @param {number} heads
 */
function furthest(effects, heads) {
  const best = effects.map((value, i) => /** @type {const} */ ([value ?? -1, labelOf(headKey(Math.floor(i / heads), i % heads))]))
    .sort((a, b) => b[0] - a[0]).slice(0, 5);
  return `The embedding moves furthest without ${best.map(([value, name]) => `${name} (${value.toFixed(3)})`).join(", ")}.`;
}
