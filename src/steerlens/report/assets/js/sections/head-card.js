/** The card of the chosen head: a contrast pair, real pictures along the change, and names, beside what was measured. */

import { el } from "../core/elements.js";
import { figure, picture } from "../core/pictures.js";

/** @import { CardEnd, Page } from "../types" */

const ENDS = ["Along its write: gains", "Against it: loses"];

/**
 * Nothing for a component without a card.
 * @param {Page} page
 * @param {string} key
 */
export function headCard(page, key) {
  const cards = page.data.cards;
  const card = cards && Object.hasOwn(cards.heads, key) ? cards.heads[key] : null;
  if (!cards || !card) return [];
  const said = `The input steered by ${cards.strength} along this head’s write and against it, with the head’s mean write taken out, and decoded. ` +
    `Beside it: real pictures (of ${cards.bank}) near only that end. Grey names are no better than chance.`;
  return [el("section", { class: "card-of-head", "aria-label": `Card of ${page.data.sites[key]?.label ?? key}` },
    el("h3", {}, "What it adds to this input"),
    el("div", { class: "ends" }, ...card.ends.map((end, place) => side(end, ENDS[place]))),
    card.faithful.length ? faithful(card.faithful, page.data.sites[key]?.label ?? key) : null,
    cards.missing ? el("p", { class: "quiet small" }, cards.missing) : null,
    el("p", { class: "quiet small" }, said))];
}

/**
 * @param {CardEnd} end
 * @param {string} title
 */
function side(end, title) {
  const names = end.names.map(([text, out], place) => [place ? ", " : "", el("i", { class: out ? null : "chance" }, text)]);
  return el("div", {},
    el("h4", {}, title),
    el("div", { class: "end" },
      el("div", { class: "decoded" }, figure(picture(end.decoded.src, `${title}, decoded`), "decoded")),
      ...end.real.map((real) => figure(picture(real.src, real.name), real.name))),
    names.length ? el("p", { class: "names" }, ...names.flat()) : null);
}

/**
 * @param {[of: string, figure: string, own: string, measure: string][]} rows
 * @param {string} label
 */
function faithful(rows, label) {
  const head = ["Measured on this model", "all heads", label].map((text) => el("th", { scope: "col" }, text));
  return el("table", { class: "faithful" },
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...rows.map(([of, all, own, measure]) =>
      el("tr", {}, el("th", { scope: "row" }, of, el("small", {}, measure)), el("td", {}, all), el("td", {}, own)))));
}
