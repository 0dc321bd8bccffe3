/** Direct and total effects: the same components under the direct lens, under the total lens, and without them. */

import { byId, el } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { card, line, markChosen, picture, still } from "../core/pictures.js";
import { cellOf } from "../core/sites.js";

/** @import { Lens, Page } from "../types" */

const KINDS = {
  head: "Heads",
  attn_out: "Attention outputs",
  mlp_out: "MLP outputs",
  vector: "Your own directions",
  group: "Groups",
  region: "What heads read from regions",
  feature: "Features of sparse autoencoders",
  neuron: "Neurons",
};

const ROWS = /** @type {[Lens, string][]} */ ([
  ["steering", "Direct: everything after it frozen"],
  ["total", "Total: everything after it reacts"],
  ["ablation", "Without it"],
]);

/** @param {Page} page */
export function effects(page) {
  page.draw(["data", "seed"], () => {
    const blocks = Object.entries(KINDS).flatMap(([kind, title]) => kindBlocks(page, kind, title));
    byId("effects-section").hidden = blocks.length === 0;
    byId("effects").replaceChildren(...blocks);
    markChosen(page);
  });
}

/**
 * @param {Page} page
 * @param {string} kind
 * @param {string} title
 */
function kindBlocks(page, kind, title) {
  const { data, meta } = page;
  const all = kind === "head"
    ? data.top.total ?? []
    : Object.keys(data.sites).filter((key) => data.sites[key].kind === kind && data.sites[key].total);
  const keys = all.slice(0, meta.k);
  if (!keys.length) return [];
  const rows = ROWS.filter(([lens]) => keys.some((key) => data.sites[key][lens]));
  return [el("h3", {}, title), ...rows.map(([lens, name]) => effectRow(page, keys, lens, name))];
}

/**
 * @param {Page} page
 * @param {string[]} keys
 * @param {Lens} lens
 * @param {string} name
 */
function effectRow(page, keys, lens, name) {
  const { words } = page.meta;
  const clean = cellOf(page, page.data.clean);
  const reference = clean
    ? still(picture(clean.src, words.Clean), line(words.short, "name"), line(`similarity ${fixed(clean.similarity)}`, "number"))
    : null;
  return el("div", { class: "lens-row" }, el("p", { class: "row-name" }, name),
    el("div", { class: "cards effects" }, reference, ...keys.map((key) => effectCard(page, key, lens))));
}

/**
 * @param {Page} page
 * @param {string} key
 * @param {Lens} lens
 */
function effectCard(page, key, lens) {
  const site = page.data.sites[key];
  const score = site[lens];
  if (!score) return still(line(site.label, "name"), line(`not ${page.meta.words.decoded}`, "number"));
  const direct = lens === "steering";
  return card(page, key, lens,
    line(site.label, "name"),
    line(`similarity ${fixed(score.similarity)}`, "number"),
    score.control === null ? null : line(`control ${fixed(score.control)}`, "number"),
    direct ? null : line(`cosine ${fixed(score.directCosine)}`, "number"),
    direct ? null : line(`changes ${fixed(score.changeCosine)}`, "number"));
}
