/**
 * The page: one front end for the static report, a published site and the live explorer.
 *
 *     source -> page.data --\
 *                            renderers -> elements
 *     address <-> store ----/
 *
 * - The **store** (`core/store.js`) holds the view: input, component, map, strength, seed, target, pins. The address
 *   (`core/address.js`) states all of it. Controls never draw; they call `page.store.set(change, history)`.
 * - A **source** (`sources/`) gives the data of the run and of each input. A live source is another implementation; after
 *   each new result it hands `page.update(data)` a new object, and what draws from "data" draws again.
 * - A **renderer** (`sections/`) draws one part of the page: `(page) => page.draw(["data", "component"], () => ...)`.
 *   Live parts are more renderers, given to `startPage(source, [...sections, ...live])`. They fill the empty elements
 *   `[data-slot]` of the template, or sections of their own.
 *
 * To add a part of the view: a key in `View` (`types.d.ts`), its start in `core/store.js`, and its form in the address in
 * `FIELDS` of `core/address.js`. After any change run `npm run build`, which writes the bundles that pages embed.
 */

import { missingInput } from "./address.js";
import { byId } from "./elements.js";
import { followAddress } from "./history.js";
import { focusPanel } from "./panel.js";
import { bestComponent, siteOf } from "./sites.js";
import { createStore } from "./store.js";

/** @import { InputData, Meta, Page, Renderer, Source, View } from "../types" */

/**
 * Draws the page and keeps it drawn. Resolves once the first input is on view.
 * @param {Source} source
 * @param {Renderer[]} renderers
 * @returns {Promise<Page | null>} null if the run has no inputs
 */
export async function startPage(source, renderers) {
  try {
    return await drawnPage(source, renderers);
  } finally {
    // Until then the style sheet hides what would jump.
    document.documentElement.dataset.ready = "true";
  }
}

/**
 * @param {Source} source
 * @param {Renderer[]} renderers
 * @returns {Promise<Page | null>}
 */
async function drawnPage(source, renderers) {
  const meta = await source.meta();
  if (!meta.pictures.length) return null;
  const store = createStore();
  followAddress(store, meta);
  const page = createPage(source, meta, store);
  await page.load();
  for (const renderer of renderers) renderer(page);
  store.watch(["input"], () => void page.load());
  return page;
}

/**
 * Says what went wrong, where everybody sees and hears it; nothing for an empty text.
 * @param {string} text
 */
export function tell(text) {
  const place = byId("trouble");
  place.textContent = text;
  place.hidden = !text;
}

/**
 * @param {Source} source
 * @param {Meta} meta
 * @param {ReturnType<typeof createStore>} store
 */
function createPage(source, meta, store) {
  const wide = window.matchMedia("(min-width: 1180px)");
  /** @type {Set<() => void>} */
  const drawers = new Set();
  /** @type {InputData | null} */
  let data = null;
  let loading = new AbortController();
  let previewing = false;
  const inputOf = (/** @type {Readonly<View>} */ view) => view.input ?? meta.pictures[0].id;

  const page = {
    meta,
    source,
    store,
    get data() {
      if (!data) throw new Error("no input is loaded yet");
      return data;
    },
    get wide() {
      return wide.matches;
    },
    get component() {
      const chosen = store.view.component;
      if (chosen !== null && siteOf(page.data, meta, chosen)) return chosen;
      return wide.matches ? bestComponent(page.data) : null;
    },
    get seed() {
      const seed = store.view.seed;
      return seed !== null && meta.seeds.includes(seed) ? seed : meta.seeds[0];
    },
    /** @type {Page["choose"]} */
    choose(component, { history = "push", focus = false } = {}) {
      if (component !== null && !siteOf(page.data, meta, component)) return;
      store.set({ component }, history);
      if (focus && !wide.matches && component !== null) focusPanel(component);
    },
    /** @type {Page["update"]} */
    update(fresh) {
      data = fresh;
      for (const draw of drawers) draw();
    },
    /** @type {Page["preview"]} */
    preview(other) {
      previewing = true;
      page.update(other);
      previewing = false;
    },
    /** @type {Page["draw"]} */
    draw(keys, draw) {
      // While another input is loading, the page shows the last one whole, not half of each.
      const drawCurrent = () => void (data && (previewing || data.id === inputOf(store.view)) && draw());
      if (keys.includes("data")) drawers.add(drawCurrent);
      store.watch(/** @type {(keyof View)[]} */ (keys.filter((key) => key !== "data")), drawCurrent);
      drawCurrent();
    },
    /** @type {Page["say"]} */
    say(text) {
      byId("live-region").textContent = text;
    },
    async load() {
      loading.abort();
      loading = new AbortController();
      const { signal } = loading;
      try {
        const fresh = await source.input(inputOf(store.view), signal);
        if (signal.aborted) return;
        const missing = missingInput(location.hash, meta);
        tell(missing && `There is no picture “${missing}” here, so another is shown.${source.kind === "live" ? " Drop the picture on this page to see the view of the link." : ""}`);
        page.update(fresh);
      } catch (error) {
        if (!signal.aborted) tell(error instanceof Error ? error.message : String(error));
      }
    },
  };
  // On a wide page the panel of the best head is open without a choice.
  wide.addEventListener("change", () => data && page.update(data));
  return page;
}
