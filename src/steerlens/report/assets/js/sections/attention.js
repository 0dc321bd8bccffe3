/** Attention of the readout token, laid over the input. */

import { el } from "../core/elements.js";
import { fixed, percent } from "../core/format.js";
import { picture } from "../core/pictures.js";

/** @import { InputData, Meta, Page, Site } from "../types" */

/** The map is fully clear at this many times an even share, the same for all heads. */
const CLEAR = 4;

/** Attention of an input is read once, when a head of it is first opened. */
/** @type {WeakMap<InputData, Promise<DataView | null>>} */
const read = new WeakMap();

/**
 * A box that fills once the attention is there; empty for what has none.
 * @param {Page} page
 * @param {Site} site
 */
export function attention(page, site) {
  const box = el("div", { class: "attention-box" });
  const { data, meta } = page;
  if (site.kind !== "head" || !data.seen || !data.attention) return box;
  const known = read.get(data) ?? page.source.attention(data, new AbortController().signal);
  read.set(data, known);
  known.then((values) => values && box.replaceChildren(...content(data, meta, site, sharesOf(values, meta, site))), () => {
    read.delete(data);
    box.replaceChildren(el("p", { class: "quiet small" }, "The attention could not be loaded."));
  });
  return box;
}

/**
 * @param {DataView} values
 * @param {Meta} meta
 * @param {Site} site
 */
function sharesOf(values, meta, site) {
  const start = (site.layer * meta.heads + site.head) * meta.tokens;
  return Array.from({ length: meta.tokens }, (_, i) => values.getUint16(2 * (start + i), true) / 65535);
}

/**
 * @param {InputData} data
 * @param {Meta} meta
 * @param {Site} site
 * @param {number[]} shares
 */
function content(data, meta, site, shares) {
  const [rows, columns] = meta.grid;
  const patches = shares.slice(meta.firstPatch, meta.firstPatch + rows * columns);
  const most = Math.max(...patches);
  const at = patches.indexOf(most);
  const own = shares.slice(0, meta.firstPatch).reduce((sum, share) => sum + share, 0);
  const [left, top, width, height] = data.seen ?? [0, 0, 1, 1];
  const cropped = left > 0 || top > 0 || left + width < 1 || top + height < 1;
  const name =
    `Attention of ${site.label} over the input: strongest patch at row ${Math.floor(at / columns)}, ` +
    `column ${at % columns}, with ${percent(most, 1)}`;
  const words =
    `${percent(own, 1)} stays on ${meta.firstPatch === 1 ? "the CLS token itself" : "CLS and register tokens"}; ` +
    `the strongest patch gets ${percent(most, 1)} (${fixed(most * meta.tokens, 1)} times an even share). ` +
    `Clear: at least four times an even share; dark: none.${cropped ? " Faded: outside the encoder's view." : ""} The same scale for every head.`;
  return [
    el("h3", {}, "Attention of the readout token"),
    el("div", { class: "attention-row" },
      el("div", { class: "attention", role: "img", "aria-label": name }, picture(data.input, ""), veil(data, meta, patches)),
      el("p", { class: "small" }, words)),
  ];
}

/**
 * A dark veil that clears where the head looks. It lies on what the encoder saw of the picture, which preprocessing may
 * crop, squash or pad.
 * @param {InputData} data
 * @param {Meta} meta
 * @param {number[]} patches
 */
function veil(data, meta, patches) {
  const [rows, columns] = meta.grid;
  const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  if (context) {
    const pixels = context.createImageData(columns, rows);
    patches.forEach((share, i) => pixels.data.set([12, 14, 24, Math.round(225 * (1 - Math.min((share * meta.tokens) / CLEAR, 1)))], 4 * i));
    context.putImageData(pixels, 0, 0);
  }
  const sides = /** @type {const} */ (["left", "top", "width", "height"]);
  sides.forEach((side, i) => { canvas.style[side] = `${100 * (data.seen ?? [0, 0, 1, 1])[i]}%`; });
  return canvas;
}
