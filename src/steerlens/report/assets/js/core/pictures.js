/** Pictures, captions and cards: the pieces that sections are made of. */

import { el } from "./elements.js";
import { cellOf } from "./sites.js";

/** @import { Lens, Page } from "../types" */

const PIXEL_SIDE = 64;

/**
 * A picture, or a note that it is in the run's files only. Small pictures keep their pixels sharp.
 * @param {string | null | undefined} src
 * @param {string} alt empty for a picture that the text beside it names
 * @param {string} [extra] classes
 */
export function picture(src, alt, extra = "") {
  if (!src) {
    const name = alt ? `${alt}: in the run's files only` : "in the run's files only";
    return el("span", { class: `missing ${extra}`, role: "img", "aria-label": name }, "in the run's files");
  }
  const image = el("img", { src, alt, class: extra || null, decoding: "async", loading: src.startsWith("data:") ? null : "lazy" });
  image.addEventListener("load", () =>
    image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= PIXEL_SIDE));
  return image;
}

/**
 * @param {Node} image
 * @param {...(Node | string | null)} lines
 */
export function figure(image, ...lines) {
  const caption = lines.filter((text) => text !== null).map((text) => (typeof text === "string" ? el("span", {}, text) : text));
  return el("figure", {}, image, el("figcaption", {}, ...caption));
}

/**
 * @param {string} text
 * @param {string} [kind]
 */
export const line = (text, kind = "") => el("span", { class: `line ${kind}` }, text);

/** @param {number | null | undefined} value a share in [0,1] */
export function bar(value) {
  const inner = el("i");
  inner.style.width = `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

/**
 * A site's picture under a lens, as a button that opens its panel.
 * @param {Page} page
 * @param {string} key
 * @param {Lens} lens
 * @param {...(Node | null)} lines
 */
export function card(page, key, lens, ...lines) {
  const site = page.data.sites[key];
  const score = site[lens];
  const choose = () => page.choose(key, { focus: true });
  const name = el("span", { class: "sr" }, `${site.label}, ${page.meta.lenses[lens] ?? lens}: `);
  return el("button", { class: "card", type: "button", "data-site": key, onclick: choose },
    name, picture(cellOf(page, score?.pictures)?.src, ""), ...lines);
}

/**
 * A picture beside cards that is no button.
 * @param {...(Node | null)} content
 */
export const still = (...content) => el("div", { class: "card still" }, ...content);

/** @param {Node[]} cards */
export function strip(cards) {
  const box = el("div", { class: "strip" }, ...cards);
  box.style.setProperty("--n", String(Math.min(12, cards.length)));
  return box;
}

/**
 * Marks whatever stands for the chosen component, everywhere on the page; nothing while a group is on view in its place.
 * @param {Page} page
 */
export function markChosen(page) {
  const component = page.source.kind === "live" && page.store.view.group ? null : page.component;
  const cells = /** @type {HTMLElement[]} */ ([...document.querySelectorAll('[role="gridcell"][data-site]')]);
  // One cell of the map is in the tab order: the chosen one, if it is a head.
  if (cells.some((cell) => cell.dataset.site === component))
    for (const cell of cells) cell.tabIndex = cell.dataset.site === component ? 0 : -1;
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-site]"))) {
    const chosen = node.dataset.site === component;
    node.classList.toggle("chosen", chosen);
    if (node.getAttribute("role") === "gridcell") node.setAttribute("aria-selected", String(chosen));
    else if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", String(chosen));
  }
}
