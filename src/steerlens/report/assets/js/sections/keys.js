/** The keys of the page: `?` shows them. Renderers of live parts add theirs with `addKeys`. */

import { byId, el } from "../core/elements.js";

/** @import { Page } from "../types" */

/** @typedef {[key: string, what: string, act?: (page: Page) => void]} Key */

/** @type {Key[]} */
const KEYS = [
  ["?", "Show these keys"],
  ["m", "Go to the map", (page) => focusMap(page)],
  ["← → ↑ ↓", "In the map: move between heads"],
  ["Home End", "In the map: first and last layer"],
  ["PageUp PageDown", "In the map: first and last head"],
  ["Enter", "In the map: open the head"],
  ["j", "Next head in rank", () => step("1")],
  ["k", "Better-ranked head", () => step("-1")],
  ["[", "Previous input", (page) => switchInput(page, -1)],
  ["]", "Next input", (page) => switchInput(page, 1)],
  ["p", "In the map: colours or pictures", ({ store }) => store.set({ show: store.view.show === "pictures" ? "colours" : "pictures" })],
  ["Esc", "Close the panel of a head"],
];

/** @param {Page} page */
export function keys(page) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("keys"));
  byId("keys-open").addEventListener("click", () => open(page, dialog));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    if (dialog.open) return;
    if (event.key === "?") open(page, dialog);
    else {
      const key = keysOf(page).find(([name, , act]) => act && name === event.key);
      if (!key?.[2]) return;
      key[2](page);
    }
    event.preventDefault();
  });
}

/** @type {WeakMap<Page, Key[]>} */
const added = new WeakMap();

/**
 * Adds keys of a renderer.
 * @param {Page} page
 * @param {Key[]} more
 */
export function addKeys(page, more) {
  added.set(page, [...(added.get(page) ?? []), ...more]);
}

/** @param {Page} page */
function keysOf(page) {
  const several = page.meta.pictures.length > 1;
  return [...KEYS.filter(([key]) => several || (key !== "[" && key !== "]")), ...(added.get(page) ?? [])];
}

/** @param {EventTarget | null} target */
const isTyping = (target) => target instanceof Element && target.closest("input:not([type=radio], [type=checkbox], [type=range]), select, textarea, [contenteditable]") !== null;

/**
 * @param {Page} page
 * @param {HTMLDialogElement} dialog
 */
function open(page, dialog) {
  byId("keys-list").replaceChildren(...keysOf(page).map(([key, what]) =>
    el("tr", {}, el("th", { scope: "row" }, ...key.split(" ").flatMap((part) => [el("kbd", {}, part), " "])), el("td", {}, what))));
  dialog.showModal();
}

/** @param {Page} page */
function focusMap(page) {
  const cell = /** @type {HTMLElement | null} */ (byId("map").querySelector('.cell[tabindex="0"]'));
  cell?.focus();
  if (cell?.dataset.site && page.wide) page.choose(cell.dataset.site, { history: "replace" });
}

/** @param {string} by */
function step(by) {
  /** @type {HTMLElement | null} */ (byId("detail").querySelector(`[data-step="${by}"]:not(:disabled)`))?.click();
}

/**
 * @param {Page} page
 * @param {number} by
 */
function switchInput({ meta, data, store }, by) {
  const at = meta.pictures.findIndex((picture) => picture.id === data.id);
  store.set({ input: meta.pictures[(at + by + meta.pictures.length) % meta.pictures.length].id });
}
