/** What the cells of the map can show. Every mode has one fixed scale for the whole run, so that maps compare; readers may stretch it. */

import { headKey, lensesOf, steeredScore, targetWords } from "../core/sites.js";

/** @import { InputData, Meta, Page, Lens, Site } from "../types" */

/**
 * @typedef {object} Mode
 * @property {string} name
 * @property {Lens} [lens] lens whose pictures the map can show in place of colours
 * @property {string} scale name of the scale in `meta.scales`
 * @property {"sequential" | "diverging"} ramp
 * @property {number} [digits]
 * @property {(page: { data: InputData, meta: Meta }, site: Site | undefined, index: number) => number | null | undefined} value
 *   `index`: place of the head in arrays of L x H
 * @property {(page: { data: InputData, meta: Meta }) => string} about
 */

/**
 * @param {Lens} lens
 * @param {string} name
 * @returns {Mode}
 */
const similarity = (lens, name) => ({
  name,
  lens,
  scale: "similarity",
  ramp: "sequential",
  value: (page, site) => site?.[lens]?.similarity,
  about: ({ data }) => `similarity of each head's ${name} picture with ${targetWords(data)}`,
});

/** @type {Record<string, Mode>} */
const TABLE = {
  steering: similarity("steering", "Steering Lens"),
  diffusion: similarity("diffusion", "Diffusion Lens"),
  total: similarity("total", "Total Lens"),
  effect: {
    name: "Direct against total",
    scale: "effect",
    ramp: "diverging",
    value: (page, site) => site?.total?.changeCosine,
    about: () =>
      "cosine between the direct and the total change of the embedding, before decoding; 1: the direct effect is all there is",
  },
  undecoded: {
    name: "Steering, not decoded",
    scale: "similarity",
    ramp: "sequential",
    value: ({ data }, site, index) => data.undecoded?.[index],
    about: ({ data }) =>
      `similarity of each head's steered embedding with ${targetWords(data)}, before decoding; known for all heads`,
  },
  without: {
    name: "Without it",
    scale: "ablation",
    ramp: "sequential",
    digits: 3,
    value: ({ data }, site, index) => data.withoutHead?.[index],
    about: () =>
      "how far the embedding moves without the head, everything after it reacting: 1 − cosine with the clean embedding, before decoding; known for all heads",
  },
  margin: {
    name: "Above control",
    scale: "margin",
    ramp: "diverging",
    value: ({ meta }, site) => {
      const score = steeredScore(meta, site);
      return score === undefined || score.control === null || score.similarity === null ? null : score.similarity - score.control;
    },
    about: ({ meta }) =>
      `${meta.lenses.steering ? "Steering Lens" : "Total Lens"} similarity minus that of the head's own control`,
  },
  write: {
    name: "Write norm",
    scale: "write",
    ramp: "sequential",
    digits: 3,
    value: ({ data }, site, index) => data.writeNorms[index],
    about: () => "norm of the head's write as a share of the final residual's (means over width removed)",
  },
  direct: {
    name: "Direct similarity",
    scale: "direct",
    ramp: "diverging",
    value: ({ data }, site, index) => data.direct[index],
    about: () => "cosine of the head's write with the final residual (means over width removed)",
  },
};

/** Modes by the key that addresses name. Has no prototype: an address may name what every object inherits. */
export const MODES = /** @type {Record<string, Mode>} */ (Object.assign(Object.create(null), TABLE));

/**
 * Modes for which this input has values.
 * @param {{ data: InputData, meta: Meta }} page
 */
export function availableModes(page) {
  const { data, meta } = page;
  const heads = Object.values(data.sites).filter((site) => site.kind === "head");
  return Object.keys(MODES).filter((key) => {
    if (key === "write" || key === "direct") return true;
    if (key === "undecoded") return Boolean(data.undecoded) && (meta.steers || lensesOf(meta).includes("steering"));
    if (key === "without") return Boolean(data.withoutHead) || meta.ablatesHeads === true;
    return heads.some((site) => (MODES[key].value(page, site, 0) ?? null) !== null);
  });
}

/**
 * Ends of the colour scale: the run's, or those of the values on the map.
 * @param {{ data: InputData, meta: Meta, store: Page["store"] }} page
 * @param {Mode} mode
 * @returns {[number, number]}
 */
export function scaleOf(page, mode) {
  const { data, meta, store } = page;
  const common = data.scales?.[mode.scale] ?? meta.scales[mode.scale];
  if (store.view.scale !== "values") return common;
  const keys = Array.from({ length: meta.layers * meta.heads }, (_, i) => headKey(Math.floor(i / meta.heads), i % meta.heads));
  const values = keys.map((key, i) => mode.value(page, data.sites[key], i) ?? NaN).filter(Number.isFinite);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  if (!(high - low > 1e-6)) return common;
  const most = Math.max(-low, high);
  return mode.ramp === "diverging" ? [-most, most] : [low, high];
}

/**
 * The mode on view. Where only some heads were decoded, the map opens with the scores of all of them.
 * @param {Page} page
 * @param {string[]} available
 */
export function modeOf(page, available) {
  const chosen = page.store.view.map;
  if (chosen !== null && available.includes(chosen)) return chosen;
  return page.meta.selection && available.includes("undecoded") ? "undecoded" : available[0];
}
