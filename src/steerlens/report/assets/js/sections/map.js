/** The map of layers x heads. */

import { byId, el, radios, redraw } from "../core/elements.js";
import { colour, fixed } from "../core/format.js";
import { markChosen, picture } from "../core/pictures.js";
import { bestHead, cellOf, headKey, seedNumber, siteOf, steeredScore } from "../core/sites.js";
import { legend } from "./legend.js";
import { availableModes, modeOf, MODES, scaleOf } from "./modes.js";

/** @import { Page, Score } from "../types" */
/** @import { Mode } from "./modes.js" */

/** Most labels of layers along the map. */
const MOST_TICKS = 24;

/** @param {Page} page */
export function map(page) {
  page.draw(["data", "map", "show", "scale", "seed"], () => {
    const available = availableModes(page);
    const key = modeOf(page, available);
    const mode = MODES[key];
    const pictures = page.store.view.show === "pictures" && mode.lens !== undefined;
    redraw(byId("map-controls"), controls(page, available, key));
    const focused = document.activeElement?.closest("#map") ? document.activeElement.getAttribute("data-site") : null;
    byId("map").replaceChildren(grid(page, mode, pictures));
    markChosen(page);
    if (focused) cell(focused)?.focus();
    legend(page, mode, pictures);
  });
}

/** @param {string} key @returns {HTMLElement | null} */
const cell = (key) => byId("map").querySelector(`[data-site="${CSS.escape(key)}"]`);

/**
 * @param {Page} page
 * @param {string[]} available
 * @param {string} key
 */
function controls(page, available, key) {
  const { store, meta } = page;
  const shown = /** @type {[string, string][]} */ ([["colours", "Colours"], ["pictures", "Pictures"]]);
  return [
    radios("map", available.map((mode) => [mode, MODES[mode].name]), key, (map) => store.set({ map })),
    MODES[key].lens
      ? radios("show", shown, store.view.show, (show) => store.set({ show: show === "pictures" ? "pictures" : "colours" }))
      : null,
    meta.seeds.length > 1
      ? radios("seed", meta.seeds.map((seed) => [String(seed), `${meta.words.seed} ${seedNumber(meta, seed)}`]), String(page.seed),
          (seed) => store.set({ seed: Number(seed) }))
      : null,
  ];
}

/**
 * @param {Page} page
 * @param {Mode} mode
 * @param {boolean} pictures
 */
function grid(page, mode, pictures) {
  const { meta } = page;
  const box = el("div", {
    class: `grid${pictures ? " pictures" : ""}`, role: "grid", "aria-label": `Map of heads: ${mode.about(page)}`,
    "aria-rowcount": meta.heads, "aria-colcount": meta.layers + 1, onkeydown: (/** @type {KeyboardEvent} */ event) => move(page, event),
  });
  const chosen = page.component !== null && siteOf(page.data, meta, page.component)?.kind === "head" ? page.component : null;
  const inTabOrder = chosen ?? bestHead(page.data);
  const scale = scaleOf(page, mode);
  for (let head = 0; head < meta.heads; head += 1) {
    const row = el("div", { class: "row", role: "row" }, el("span", { class: "tick", role: "rowheader", "aria-label": `Head ${head}` }, `H${head}`));
    for (let layer = 0; layer < meta.layers; layer += 1) row.append(mapCell(page, layer, head, mode, scale, pictures, inTabOrder));
    box.append(row);
  }
  // Under the grid and not in it: a grid holds rows of cells alone.
  const rows = el("div", { class: `map-rows${pictures ? " pictures" : ""}` }, box, ticks(page), page.data.counts ? countsRow(page) : null);
  rows.style.setProperty("--layers", String(meta.layers));
  return rows;
}

/** @param {Page} page */
function ticks({ meta }) {
  const every = Math.ceil(meta.layers / MOST_TICKS);
  const labels = Array.from({ length: meta.layers }, (_, layer) =>
    el("span", { class: "tick below" }, layer % every ? "" : `${layer ? "" : "L"}${layer}`));
  return el("div", { class: "row", "aria-hidden": "true" }, el("span", { class: "tick" }), ...labels);
}

/**
 * @param {Page} page
 * @param {number} layer
 * @param {number} head
 * @param {Mode} mode
 * @param {[number, number]} scale
 * @param {boolean} pictures
 * @param {string} inTabOrder
 */
function mapCell(page, layer, head, mode, scale, pictures, inTabOrder) {
  const { meta, data } = page;
  const key = headKey(layer, head);
  const site = data.sites[key];
  const value = mode.value(page, site, layer * meta.heads + head) ?? null;
  const steered = steeredScore(meta, site);
  const said = value === null ? "not looked at" : `${mode.name} ${fixed(value, mode.digits)}`;
  const node = el("button", {
    class: "cell", type: "button", role: "gridcell", "data-site": key, "data-layer": layer, "data-head": head,
    tabindex: key === inTabOrder ? 0 : -1,
    "aria-label": [`Layer ${layer}, head ${head}`, said, controlWords(steered)].filter(Boolean).join("; "),
    title: `L${layer}H${head}: ${value === null ? "not looked at" : fixed(value, mode.digits)}`,
    onclick: () => page.choose(key, { focus: true }),
  });
  if (value === null) node.classList.add("unknown");
  else if (pictures && mode.lens) node.append(picture(cellOf(page, site[mode.lens]?.pictures)?.src, ""));
  else {
    node.style.background = colour(value, scale, meta[mode.ramp]);
    if (value < 0) node.append(el("span", { class: "minus", "aria-hidden": "true" }, "−"));
  }
  if (value !== null && steered?.beats) node.append(el("span", { class: `mark${steered.strong ? " strong" : ""}`, "aria-hidden": "true" }));
  return node;
}

/** @param {Score | undefined} score */
function controlWords(score) {
  if (!score || score.control === null) return null;
  const beats = score.strong ? "beats nearly all controls" : score.beats ? "beats its control" : "does not beat its control";
  return `control ${fixed(score.control)}, ${beats}`;
}

/** @param {Page} page */
function countsRow({ meta, data }) {
  const row = el("div", { class: "row counts", "aria-hidden": "true" }, el("span", { class: "tick", title: "heads that beat their control" }, "beat"));
  for (let layer = 0; layer < meta.layers; layer += 1) {
    const scores = Array.from({ length: meta.heads }, (_, head) => steeredScore(meta, data.sites[headKey(layer, head)]));
    const compared = scores.filter((score) => score && score.beats !== null);
    const beaten = compared.filter((score) => score?.beats).length;
    row.append(el("span", { class: "tick below", title: `layer ${layer}: ${beaten} of ${compared.length} heads beat their control` },
      compared.length ? `${beaten}` : ""));
  }
  return row;
}

/**
 * Arrow keys move between cells. Beside the map the panel follows the focus; over the page it waits for a choice.
 * @param {Page} page
 * @param {KeyboardEvent} event
 */
function move(page, event) {
  const from = /** @type {HTMLElement | null} */ (/** @type {Element} */ (event.target).closest(".cell"));
  if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
  const { layers, heads } = page.meta;
  const [layer, head] = [Number(from.dataset.layer), Number(from.dataset.head)];
  /** @type {Record<string, [number, number]>} */
  const places = {
    ArrowRight: [layer + 1, head], ArrowLeft: [layer - 1, head], ArrowDown: [layer, head + 1], ArrowUp: [layer, head - 1],
    Home: [0, head], End: [layers - 1, head], PageUp: [layer, 0], PageDown: [layer, heads - 1],
  };
  const to = places[event.key];
  if (!to) return;
  event.preventDefault();
  const key = headKey(...to);
  const next = cell(key);
  if (!next) return;
  from.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
  if (page.wide) page.choose(key, { history: "replace" });
}
