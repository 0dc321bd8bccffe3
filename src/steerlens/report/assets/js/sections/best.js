/** The best heads of each lens, beside the input and its clean reconstruction. */

import { byId, el } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { card, line, markChosen, picture, still } from "../core/pictures.js";
import { cellOf, lensesOf } from "../core/sites.js";

/** @import { Lens, Page } from "../types" */

/** @param {Page} page */
export function best(page) {
  page.draw(["data", "seed"], () => {
    const shown = lensesOf(page.meta).filter((lens) => page.data.top[lens]?.length);
    byId("top-section").hidden = shown.length === 0;
    byId("top").replaceChildren(...shown.map((lens) => lensRow(page, lens)));
    markChosen(page);
  });
}

/**
 * @param {Page} page
 * @param {Lens} lens
 */
function lensRow(page, lens) {
  const heads = (page.data.top[lens] ?? []).slice(0, page.meta.k);
  return el("div", { class: "lens-row" }, el("h3", {}, page.meta.lenses[lens]),
    el("div", { class: "cards" }, ...references(page), ...heads.map((key) => headCard(page, key, lens))));
}

/** @param {Page} page */
function references(page) {
  const { data, meta } = page;
  const { words } = meta;
  const clean = cellOf(page, data.clean);
  if (!clean) return [];
  return [
    still(picture(data.view, `Input ${data.name}, as the encoder saw it`), line("input", "name")),
    still(picture(clean.src, words.Clean), line(words.short, "name"), line(`similarity ${fixed(clean.similarity)}`, "number"),
      line(`${words.caption} ${fixed(clean.fidelity)}`, "number")),
  ];
}

/**
 * @param {Page} page
 * @param {string} key
 * @param {Lens} lens
 */
function headCard(page, key, lens) {
  const { words, seeds } = page.meta;
  const site = page.data.sites[key];
  const score = site[lens];
  if (!score) return null;
  return card(page, key, lens,
    line(site.label, "name"),
    line(`similarity ${fixed(score.similarity)}`, "number"),
    line(`${words.undecoded} ${fixed(score.steered)}`, "number"),
    line(`${words.caption} ${fixed(score.fidelity)}`, "number"),
    score.control === null ? null : line(`control ${fixed(score.control)}`, "number"),
    seeds.length > 1 ? line(`agreement ${fixed(score.agreement)}`, "number") : null);
}
