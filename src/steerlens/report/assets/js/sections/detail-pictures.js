/** Pictures of the chosen component: steered, total, without it, its controls, and the clean reconstruction. */

import { el } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { figure, picture } from "../core/pictures.js";
import { seedNumber } from "../core/sites.js";

/** @import { Cell, Page, Site } from "../types" */

/**
 * A row of pictures for each seed.
 * @param {Page} page
 * @param {Site} site
 */
export function detailPictures(page, site) {
  const columns = columnsOf(site);
  // On a server, its picture stands above.
  if (!columns.length && page.source.kind === "live") return [];
  if (!columns.length) return [el("p", { class: "quiet" }, "No picture of this head is in this run.")];
  columns.push(["Clean", page.data.clean]);
  return page.meta.seeds.map((seed) =>
    el("div", { class: "detail-pictures" },
      ...columns.flatMap(([name, cells]) =>
        cells.filter((cell) => cell.seed === seed).map((cell) => cellFigure(page, site, name, cell)))));
}

/**
 * @param {Site} site
 * @returns {[name: string, cells: Cell[]][]}
 */
function columnsOf(site) {
  const { steering, total, ablation, diffusion } = site;
  /** @type {[string, Cell[] | undefined][]} */
  const columns = [
    [total ? "Direct" : "Steered", steering?.pictures],
    ["Total", total?.pictures],
    ["Without it", ablation?.pictures],
    ["Control", steering?.controls],
    ["Other input", steering?.foils],
    [steering ? "Total control" : "Control", total?.controls],
    ["Diffusion", diffusion?.pictures],
  ];
  return columns.flatMap(([name, cells]) => (cells?.length ? [[name, cells]] : []));
}

/**
 * @param {Page} page
 * @param {Site} site
 * @param {string} name
 * @param {Cell} cell
 */
function cellFigure({ meta }, site, name, cell) {
  const seed = `${meta.words.seed} ${seedNumber(meta, cell.seed)}`;
  return figure(
    picture(cell.src, `${site.label}, ${name}, ${seed}`),
    el("b", {}, name),
    `sim. ${fixed(cell.similarity)}`,
    `${meta.words.fid} ${fixed(cell.fidelity)}`,
    meta.seeds.length > 1 ? seed : null,
    cell.of ? `write for ${cell.of}` : cell.draw ? `draw ${cell.draw}` : null);
}
