/** MLPs, attention outputs and the residual stream under the map, by their scores before decoding. */

import { byId, el } from "../../../report/assets/js/core/elements.js";
import { colour, fixed } from "../../../report/assets/js/core/format.js";
import { MODES, modeOf, availableModes, scaleOf } from "../../../report/assets/js/sections/modes.js";
import { markChosen } from "../../../report/assets/js/core/pictures.js";
import { labelOf } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { LiveData, LiveMeta } from "./types" */

/** @param {Page} page */
export function writes(page) {
  const box = el("div", { id: "writes", class: "map writes" });
  byId("map").after(box);
  page.draw(["data", "map", "scale"], () => {
    const { scores, ablating } = /** @type {LiveData} */ (page.data);
    const { vectors } = /** @type {LiveMeta} */ (page.meta).live;
    const focused = document.activeElement instanceof HTMLElement && box.contains(document.activeElement) ? document.activeElement.dataset.site : null;
    const rows = [row(page, "Attn", "attn_out", scores?.attention), row(page, "MLP", "mlp_out", scores?.mlps), row(page, "Resid", "resid_post", scores?.residual)];
    const named = vectors.length
      ? el("div", { class: "vectors", role: "group", "aria-label": "Directions" }, ...vectors.map((key) => cell(page, key, null, key.replace(/^vector\./, ""))))
      : null;
    const grid = el("div", { class: "map-rows" }, ...rows, named);
    grid.style.setProperty("--layers", String(page.meta.layers));
    const key = modeOf(page, availableModes(page));
    const said = [key === "without" ? ablating : "", MODES[key].scale !== "similarity" ? "These rows still show similarities before decoding." : ""];
    box.replaceChildren(grid, el("p", { class: "small quiet" }, said.filter(Boolean).join(" ")));
    markChosen(page);
    if (focused) /** @type {HTMLElement | null} */ (box.querySelector(`[data-site="${CSS.escape(focused)}"]`))?.focus();
  });
}

/**
 * @param {Page} page
 * @param {string} name
 * @param {string} kind
 * @param {(number | null)[] | undefined} values
 */
function row(page, name, kind, values) {
  const cells = Array.from({ length: page.meta.layers }, (_, layer) => cell(page, `${kind}.${layer}`, values?.[layer] ?? null, ""));
  const full = { attn_out: "Attention outputs", mlp_out: "MLPs", resid_post: "Residual stream" }[kind] ?? kind;
  return el("div", { class: "row", role: "group", "aria-label": full }, el("span", { class: "tick", title: full }, name), ...cells);
}

/**
 * @param {Page} page
 * @param {string} key
 * @param {number | null} value
 * @param {string} text
 */
function cell(page, key, value, text) {
  const { meta, choose } = page;
  const node = el("button", {
    class: `cell${text ? " named" : ""}`, type: "button", "data-site": key, title: `${labelOf(key)}${value === null ? "" : `: ${fixed(value)}`}`,
    "aria-label": `${text || labelOf(key)}${value === null ? "" : `; before decoding ${fixed(value)}`}`, onclick: () => choose(key, { focus: true }),
  }, text);
  if (value !== null) node.style.background = colour(value, scaleOf(page, MODES.undecoded), meta.sequential);
  else if (!text) node.classList.add("unknown");
  return node;
}
