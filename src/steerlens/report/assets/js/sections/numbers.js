/** Numbers and labels of the chosen component. */

import { el } from "../core/elements.js";
import { fixed, percent } from "../core/format.js";
import { MODES } from "./modes.js";

/** @import { Lens, Page, Score, Site } from "../types" */

const ORDER = /** @type {Lens[]} */ (["steering", "total", "ablation", "diffusion"]);

/** Numbers that only some lenses have, with the key of the score. */
const SOME = /** @type {[name: string, key: keyof Score, format: (value: number) => string][]} */ ([
  ["Strength ρ", "rho", fixed],
  ["Control's similarity", "control", fixed],
  ["With its write for another input", "foil", fixed],
  ["Share of controls it beats", "share", percent],
  ["Cosine with the direct effect", "directCosine", fixed],
  ["Cosine of the changes", "changeCosine", fixed],
]);

/**
 * @param {Page} page
 * @param {Site} site
 */
export function detailNumbers(page, site) {
  const shown = ORDER.filter((lens) => site[lens]);
  return el("table", { class: "numbers" },
    shown.length ? el("thead", {}, el("tr", {}, el("td", {}), ...shown.map((lens) => el("th", { scope: "col" }, columnName(site, lens))))) : null,
    el("tbody", {}, ...(shown.length ? scoreRows(page, site, shown) : []), ...someRows(site, shown), ...headRows(page, site, shown)));
}

/**
 * @param {Site} site
 * @param {Lens} lens
 */
function columnName(site, lens) {
  return { steering: site.total ? "Direct" : "Steering", total: "Total", ablation: "Without", diffusion: "Diffusion" }[lens];
}

/**
 * @param {string} name
 * @param {...string} cells
 */
const row = (name, ...cells) => el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));

/**
 * @param {Page} page
 * @param {Site} site
 * @param {Lens[]} shown
 */
function scoreRows({ meta }, site, shown) {
  const { words } = meta;
  /** @type {[string, "similarity" | "steered" | "fidelity" | "agreement"][]} */
  const rows = [
    ["Similarity", "similarity"],
    [words.without, "steered"],
    [words.fidelity[0].toUpperCase() + words.fidelity.slice(1), "fidelity"],
  ];
  if (meta.seeds.length > 1) rows.push([`Agreement of ${words.seed}s`, "agreement"]);
  return rows.map(([name, key]) => row(name, ...shown.map((lens) => fixed(site[lens]?.[key]))));
}

/**
 * Rows of what only some lenses have; blank for the others.
 * @param {Site} site
 * @param {Lens[]} shown
 */
function someRows(site, shown) {
  const known = (/** @type {Lens} */ lens, /** @type {keyof Score} */ key) => lens !== "diffusion" && (site[lens]?.[key] ?? null) !== null;
  return SOME.filter(([, key]) => shown.some((lens) => known(lens, key))).map(([name, key, format]) =>
    row(name, ...shown.map((lens) => (known(lens, key) ? format(/** @type {number} */ (site[lens]?.[key])) : ""))));
}

/**
 * @param {Page} page
 * @param {Site} site
 * @param {Lens[]} shown
 */
function headRows({ data, meta, source }, site, shown) {
  if (site.kind !== "head") return [];
  const index = site.layer * meta.heads + site.head;
  const blank = shown.slice(1).map(() => "");
  // Every head is steered before decoding, also those of which the run decoded no picture.
  const steered = !shown.length && data.undecoded && source.kind !== "live" ? [row(MODES.undecoded.name, fixed(data.undecoded[index]))] : [];
  const without = data.withoutHead ? [row("Without it, 1 − cosine", fixed(data.withoutHead[index], 3), ...blank)] : [];
  return [
    ...steered,
    ...without,
    row("Write norm / final residual", fixed(data.writeNorms[index], 3), ...blank),
    row("Direct similarity", fixed(data.direct[index]), ...blank),
  ];
}

/** @param {Site} site */
export function detailLabels(site) {
  if (!site.labels.length) return [];
  const residual = site.kind === "embed" || site.kind.startsWith("resid");
  return [
    el("h3", {}, `${site.decomposed ? "Texts that add up to" : "Nearest labels of"} ${residual ? "the residual" : "the write itself"}`),
    el("ol", { class: "label-list" },
      ...site.labels.map(([text, score]) => el("li", {}, text, " ", el("span", { class: "quiet" }, fixed(score))))),
  ];
}
