/** The card of the chosen head: a contrast pair, real pictures along the change, and names, beside what was measured. */

import { el } from "../core/elements.js";
import { figure, picture } from "../core/pictures.js";

/** @import { CardEnd, Cards, HeadCard, Page } from "../types" */

const ENDS = ["Along its write: gains", "Against it: loses"];

/** Cards in files are folded away until one is opened; then those of other heads are open too. */
let opened = false;

/** Cards that were loaded, by address. */
/** @type {Map<string, Promise<HeadCard>>} */
const loaded = new Map();

/**
 * Nothing for a component without a card.
 * @param {Page} page
 * @param {string} key
 */
export function headCard(page, key) {
  const cards = page.data.cards;
  const card = cards && Object.hasOwn(cards.heads, key) ? cards.heads[key] : null;
  if (!cards || !card) return [];
  const label = page.data.sites[key]?.label ?? key;
  const about = { class: "card-of-head", "aria-label": `Card of ${label}` };
  const title = el("h3", {}, "What it adds to this input");
  return [typeof card === "string" ? el("section", about, folded(page, cards, card, label, title)) : el("section", about, title, ...parts(cards, card, label))];
}

/**
 * A card in a file, which is loaded when it is opened.
 * @param {Page} page
 * @param {Cards} cards
 * @param {string} address
 * @param {string} label
 * @param {HTMLElement} title
 */
function folded(page, cards, address, label, title) {
  const body = el("div", {}, el("p", { class: "quiet small", role: "status" }, "Loading …"));
  const box = el("details", { open: opened }, el("summary", {}, title), body);
  const load = () => {
    const card = loaded.get(address) ?? page.source.card?.(address);
    if (!card) return;
    loaded.set(address, card);
    card.then((content) => body.replaceChildren(...parts(cards, content, label)), (error) => {
      loaded.delete(address);
      body.replaceChildren(el("p", { class: "notice", role: "alert" }, error instanceof Error ? error.message : String(error)));
    });
  };
  // Fires too for a box that is open from the start.
  box.addEventListener("toggle", () => {
    opened = box.open;
    if (box.open) load();
  });
  return box;
}

/**
 * @param {Cards} cards
 * @param {HeadCard} card
 * @param {string} label
 */
function parts(cards, card, label) {
  const said = `The input steered by ${cards.strength} along this head’s write and against it, with the head’s mean write taken out, and decoded. ` +
    `Beside it: real pictures (from ${cards.bank}) near only that end. Grey names are no better than chance.`;
  return [
    el("div", { class: "ends" }, ...card.ends.map((end, place) => side(end, ENDS[place]))),
    card.faithful.length ? faithful(card.faithful, label) : null,
    cards.missing ? el("p", { class: "quiet small" }, cards.missing) : null,
    el("p", { class: "quiet small" }, said)].filter((node) => node !== null);
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
    el("tbody", {}, ...rows.flatMap(([of, all, own, measure]) => [
      el("tr", {}, el("th", { scope: "row" }, of), el("td", {}, all), el("td", {}, own)),
      el("tr", { class: "measure" }, el("td", { colspan: 3 }, measure))])));
}
