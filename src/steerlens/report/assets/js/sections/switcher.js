/** Switching between inputs: buttons for a few, a list for many. */

import { byId, el } from "../core/elements.js";

/** @import { Page } from "../types" */

const MOST_BUTTONS = 12;

/** @param {Page} page */
export function switcher(page) {
  const { pictures } = page.meta;
  if (pictures.length < 2) return;
  const box = byId("switcher");
  box.hidden = false;
  const show = (/** @type {number} */ index) => page.store.set({ input: pictures[index].id });
  if (pictures.length > MOST_BUTTONS) asList(page, box, show);
  else {
    box.replaceChildren(...pictures.map((picture, i) =>
      el("button", { type: "button", "data-index": i, onclick: () => show(i) }, picture.name)));
    page.draw(["data"], () => {
      for (const button of box.querySelectorAll("button"))
        button.setAttribute("aria-pressed", String(pictures[Number(button.dataset.index)].id === page.data.id));
    });
  }
}

/**
 * @param {Page} page
 * @param {HTMLElement} box
 * @param {(index: number) => void} show
 */
function asList(page, box, show) {
  const { pictures } = page.meta;
  const place = () => pictures.findIndex((picture) => picture.id === page.data.id);
  const step = (/** @type {number} */ by, /** @type {string} */ text, /** @type {string} */ name) =>
    el("button", { type: "button", class: "icon", "aria-label": name, onclick: () => show((place() + by + pictures.length) % pictures.length) }, text);
  const select = el("select", { id: "picture-select", onchange: () => show(Number(select.value)) },
    ...pictures.map((picture, i) => el("option", { value: i }, picture.name)));
  box.replaceChildren(step(-1, "‹", "Previous input"), el("label", { for: "picture-select", class: "sr" }, "Input picture"), select,
    step(1, "›", "Next input"));
  page.draw(["data"], () => { select.value = String(place()); });
}
