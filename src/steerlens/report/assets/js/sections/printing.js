/** Printing: a copy of every other input's sections, since the page shows one input at a time. */

import { byId, el } from "../core/elements.js";

/** @import { InputData, Page } from "../types" */

const TITLES = ["input-title", "strip-title", "map-title", "top-title", "effects-title", "other-title", "labels-title"];

/** @param {Page} page */
export function printing(page) {
  const { inputNow } = page.source;
  if (!inputNow) return;
  window.addEventListener("beforeprint", () => copyInputs(page, inputNow));
  window.addEventListener("afterprint", () => document.getElementById("printed")?.remove());
}

/**
 * @param {Page} page
 * @param {(id: string) => InputData} inputNow
 */
function copyInputs(page, inputNow) {
  document.getElementById("printed")?.remove();
  const current = page.data;
  const box = el("div", { id: "printed", class: "printed" });
  for (const { id, name } of page.meta.pictures) {
    if (id === current.id) continue;
    page.preview(inputNow(id));
    const copies = TITLES.flatMap((id) => byId(id).closest("section")?.cloneNode(true) ?? []);
    for (const copy of /** @type {HTMLElement[]} */ (copies))
      for (const node of [copy, ...copy.querySelectorAll("[id]")]) node.removeAttribute("id");
    box.append(el("div", { class: "printed-input" }, el("h2", { class: "printed-name" }, name), ...copies));
  }
  page.preview(current);
  byId("main").append(box);
}
