/** Up to eight pinned views side by side: heads, strengths, inputs and models. */

import { byId, el } from "../../../report/assets/js/core/elements.js";
import { fixed } from "../../../report/assets/js/core/format.js";
import { streamed } from "./api.js";
import { emptyPicture, setPicture } from "./live-picture.js";
import { liveOf, serverView, viewOf, viewWords } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { Shown } from "./types" */

/** @param {Page} page @param {HTMLElement} place */
export function pins(page, place) {
  const tray = el("div", { class: "pins" });
  const section = el("section", { id: "pins-section", "aria-labelledby": "pins-title", hidden: true },
    el("h2", { id: "pins-title" }, "Side by side"), el("p", { class: "prose" }, "Views as you pinned them. Select one to return to it."), tray);
  place.append(section);
  /** @type {Map<string, { card: HTMLElement, ending: AbortController }>} */
  const shown = new Map();
  page.draw(["data", "pins"], () => {
    const wanted = page.store.view.pins;
    section.hidden = !wanted.length;
    for (const [address, { card, ending }] of shown) {
      if (wanted.includes(address)) continue;
      ending.abort();
      card.remove();
      shown.delete(address);
    }
    for (const address of wanted) {
      if (shown.has(address)) continue;
      const entry = pinned(page, address);
      shown.set(address, entry);
      tray.append(entry.card);
    }
  });
}

/**
 * @param {Page} page
 * @param {string} address
 */
function pinned(page, address) {
  const { meta, store } = page;
  const view = viewOf(address, meta);
  const input = view.input ?? page.data.id;
  const words = viewWords(meta, view, view.component);
  const picture = emptyPicture(`pin-${Math.random().toString(36).slice(2, 8)}`);
  const numbers = el("span", { class: "line number" }, " ");
  const name = meta.pictures.find(({ id }) => id === input)?.name ?? input;
  const model = liveOf(page).models.length > 1 ? ` · ${view.model ?? liveOf(page).models[0]}` : "";
  const go = () => store.set({ ...view, pins: store.view.pins, control: store.view.control });
  const remove = () => {
    store.set({ pins: store.view.pins.filter((pin) => pin !== address) });
    byId("pin").focus();
  };
  const card = el("div", { class: "pin" },
    el("button", { type: "button", class: "card", title: "Go to this view", onclick: go }, picture,
      el("span", { class: "line name" }, words), el("span", { class: "line label" }, `${name}${model}`), numbers),
    el("button", { type: "button", class: "icon", "aria-label": `Remove ${words}`, title: "Remove", onclick: remove }, "×"));
  const ending = new AbortController();
  const show = (/** @type {Shown} */ { src, similarity }) => {
    setPicture(picture, src, "", "whole");
    numbers.textContent = `similarity ${fixed(similarity)}`;
  };
  void streamed("/api/look", { view: serverView(meta, view, input, view.component) }, {
    preview: show,
    picture: (/** @type {Shown} */ whole) => { show(whole); picture.classList.remove("waiting"); },
    error: ({ message }) => { numbers.textContent = message; picture.classList.remove("waiting"); },
  }, { signal: ending.signal, slot: `pin ${address.slice(0, 40)}${address.length}` });
  return { card, ending };
}
