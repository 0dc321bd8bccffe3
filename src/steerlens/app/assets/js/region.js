/** A region painted on the picture: what heads read from there. By mouse or finger, and by keyboard. */

import { el } from "../../../report/assets/js/core/elements.js";
import { liveOf, listed } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */

/** @param {Page} page */
export function regionEditor(page) {
  if (liveOf(page).readsTokens || !liveOf(page).geometry) return null;
  const grid = el("div", { class: "patches", role: "group", "aria-label": "Patches of the picture; arrow keys move, Space paints" });
  const image = el("img", { alt: "" });
  const clear = el("button", { type: "button", id: "clear-region" }, "Whole picture");
  const box = el("div", { class: "region-picture" }, image, grid);
  const details = el("details", { id: "region" },
    el("summary", {}, "Paint a region of the picture"),
    el("p", { class: "small quiet" }, "The head is then steered by what it reads there alone."),
    box, clear);
  /** @type {Set<number>} */
  let painted = new Set();
  let painting = /** @type {boolean | null} */ (null);

  const keep = () => {
    const patches = [...painted].sort((a, b) => a - b).join(",") || null;
    page.store.set({ patches });
  };
  /** @param {HTMLElement} cell @param {boolean} on */
  const paint = (cell, on) => {
    const patch = Number(cell.dataset.patch);
    if (on) painted.add(patch);
    else painted.delete(patch);
    cell.setAttribute("aria-pressed", String(on));
  };
  /** @param {Event} event */
  const cellAt = (event) => {
    const point = /** @type {PointerEvent} */ (event);
    return /** @type {HTMLElement | null} */ (document.elementFromPoint(point.clientX, point.clientY)?.closest("[data-patch]") ?? null);
  };
  grid.addEventListener("pointerdown", (event) => {
    const cell = cellAt(event);
    if (!cell || event.button) return;
    painting = !painted.has(Number(cell.dataset.patch));
    grid.setPointerCapture(event.pointerId);
    paint(cell, painting);
    event.preventDefault();
  });
  grid.addEventListener("pointermove", (event) => {
    const cell = painting === null ? null : cellAt(event);
    if (cell && painting !== null && grid.contains(cell)) paint(cell, painting);
  });
  const stop = () => {
    if (painting === null) return;
    painting = null;
    keep();
  };
  grid.addEventListener("pointerup", stop);
  grid.addEventListener("pointercancel", stop);
  grid.addEventListener("keydown", (event) => {
    const cell = /** @type {HTMLElement} */ (event.target);
    const patch = Number(cell.dataset.patch);
    const [rows, columns] = page.meta.grid;
    const steps = /** @type {Record<string, number>} */ ({ ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns });
    if (event.key === " " || event.key === "Enter") {
      paint(cell, !painted.has(patch));
      keep();
    } else if (event.key in steps) {
      const next = patch + steps[event.key];
      if (next >= 0 && next < rows * columns) focus(next);
    } else return;
    event.preventDefault();
  });
  /** @param {number} patch */
  const focus = (patch) => {
    for (const cell of /** @type {NodeListOf<HTMLElement>} */ (grid.querySelectorAll("[data-patch]"))) cell.tabIndex = Number(cell.dataset.patch) === patch ? 0 : -1;
    /** @type {HTMLElement} */ (grid.children[patch]).focus();
  };
  clear.addEventListener("click", () => page.store.set({ patches: null }));
  page.draw(["data", "patches"], () => {
    const { data, meta } = page;
    const [rows, columns] = meta.grid;
    const seen = data.seen ?? [0, 0, 1, 1];
    image.src = data.input;
    ["left", "top", "width", "height"].forEach((side, i) => { grid.style.setProperty(side, `${100 * seen[i]}%`); });
    grid.style.setProperty("--columns", String(columns));
    painted = new Set(listed(page.store.view.patches).map(Number).filter((patch) => patch >= 0 && patch < rows * columns));
    if (grid.children.length !== rows * columns)
      grid.replaceChildren(...Array.from({ length: rows * columns }, (_, patch) =>
        el("button", { type: "button", "data-patch": patch, tabindex: patch ? -1 : 0, "aria-label": `row ${Math.floor(patch / columns)}, column ${patch % columns}` })));
    for (const cell of /** @type {HTMLCollectionOf<HTMLElement>} */ (grid.children)) cell.setAttribute("aria-pressed", String(painted.has(Number(cell.dataset.patch))));
    clear.disabled = !painted.size;
    if (painted.size) details.open = true;
  });
  return details;
}
