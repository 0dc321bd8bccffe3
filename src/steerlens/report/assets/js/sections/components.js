/** Components other than heads: whole sublayers, groups, the user's own directions, what heads read from regions. */

import { byId, el } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { bar, card, line, markChosen, strip } from "../core/pictures.js";
import { lensesOf } from "../core/sites.js";

/** @import { Lens, Page, Site } from "../types" */

const KINDS = {
  attn_out: "Attention output",
  mlp_out: "MLP output",
  vector: "Your own directions",
  group: "Groups",
  region: "What heads read from regions",
  resid_pre: "Residual before each layer",
  resid_mid: "Residual between attention and MLP",
  embed: "Token embedding",
};

/** @param {Page} page */
export function components(page) {
  page.draw(["data", "seed"], () => {
    const blocks = Object.entries(KINDS).flatMap(([kind, title]) =>
      lensesOf(page.meta).flatMap((lens) => kindRow(page, kind, title, lens) ?? []));
    byId("other-section").hidden = blocks.length === 0;
    byId("other").replaceChildren(...blocks);
    markChosen(page);
  });
}

/**
 * @param {Page} page
 * @param {string} kind
 * @param {string} title
 * @param {Lens} lens
 */
function kindRow(page, kind, title, lens) {
  const { sites } = page.data;
  const keys = Object.keys(sites).filter((key) => sites[key].kind === kind && sites[key][lens]);
  if (!keys.length) return null;
  const controlled = keys.some((key) => (sites[key][lens]?.control ?? null) !== null);
  return el("div", { class: "lens-row" },
    el("h3", {}, `${title}, ${page.meta.lenses[lens]}`),
    strip(keys.map((key) => componentCard(page, key, lens))),
    controlled ? el("p", { class: "quiet small" }, "Similarity / that of the control.") : null);
}

/**
 * @param {Page} page
 * @param {string} key
 * @param {Lens} lens
 */
function componentCard(page, key, lens) {
  const site = page.data.sites[key];
  const score = site[lens];
  const control = (score?.control ?? null) === null ? "" : ` / ${fixed(score?.control)}`;
  return card(page, key, lens,
    line(shortName(site), "name"),
    bar(score?.similarity),
    line(`${fixed(score?.similarity)}${control}`, "number"),
    line(`${page.meta.words.fid} ${fixed(score?.fidelity)}`, "number"));
}

/** @param {Site} site */
function shortName(site) {
  if (site.kind === "vector") return site.label.slice("vector.".length);
  return site.layer < 0 ? site.label : `${site.layer}`;
}
