/** The clean reconstruction beside the input, decoded when an input is opened. */

import { Latest, streamed } from "./api.js";
import { cleanView } from "./view.js";

/** @import { Cell, Page } from "../../../report/assets/js/types" */
/** @import { Shown } from "./types" */

/** @param {Page} page */
export function clean(page) {
  const latest = new Latest();
  /** @type {Map<string, Cell>} */
  const known = new Map();
  let asked = "";
  page.draw(["data", "seed", "steps", "guidance"], () => {
    const { data, meta, store } = page;
    const view = cleanView(meta, store.view, data.id);
    const key = JSON.stringify({ ...view, strength: null });
    const cell = known.get(key);
    if (cell) {
      if (data.clean[0]?.src !== cell.src || data.clean[0].similarity !== cell.similarity) queueMicrotask(() => { if (page.data === data) page.update({ ...data, clean: [cell] }); });
      return;
    }
    if (asked === key || (data.clean.length && store.view.seed === null && !store.view.steps && !store.view.guidance)) return;
    asked = key;
    const whole = (/** @type {Shown} */ { src, seed, similarity, fidelity }) => {
      known.set(key, { src, seed, draw: 0, similarity, fidelity });
      if (page.data.id === data.id) page.update({ ...page.data, clean: [/** @type {Cell} */ (known.get(key))] });
    };
    void streamed("/api/look", { view, refine: true }, { picture: whole, error: () => { asked = ""; } }, { signal: latest.next(), slot: "clean" });
  });
}
