/** What a click or a drag on the map does: steer a head, gather a group, or ablate. */

import { byId, el, radios, redraw } from "../../../report/assets/js/core/elements.js";
import { addKeys } from "../../../report/assets/js/sections/keys.js";
import { isUnit, labelOf, listed } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */

/** @typedef {"look" | "group" | "ablate"} Tool */

const ABOUT = {
  look: "Select a head, an MLP or an attention output to steer it.",
  group: "Drag over the map, or select parts one by one, to steer them as one.",
  ablate: "Select what to remove from the forward pass; drag to remove several.",
};

/** @param {Page} page @param {HTMLElement} place */
export function tools(page, place) {
  /** @type {Tool} */
  let tool = page.store.view.without ? "ablate" : "look";
  const box = el("div", { class: "controls" });
  const about = el("p", { class: "small quiet", id: "tool-about" });
  const clear = el("button", { type: "button", class: "link", id: "clear-group" }, "Clear the group");
  // On a narrow page the panel would cover the map while a group is gathered: it opens on request.
  const steer = el("button", { type: "button", id: "steer-group", onclick: () => page.choose(listed(page.store.view.group)[0] ?? null, { focus: true }) }, "Steer the group");
  place.append(el("div", { class: "tools" }, box, about, steer, clear));
  clear.addEventListener("click", () => page.store.set({ group: null }));

  const choose = (/** @type {Tool} */ next) => {
    tool = next;
    redraw(box, [radios("tool", [["look", "Steer"], ["group", "Group"], ["ablate", "Ablate"]], tool, (key) => choose(/** @type {Tool} */ (key)))]);
    about.textContent = ABOUT[tool];
    byId("map-section").dataset.tool = tool;
  };
  const key = () => (tool === "ablate" ? "without" : "group");

  /** @param {string[]} sites */
  const toggle = (sites) => {
    const units = sites.filter(isUnit);
    if (units.length && tool === "group") {
      about.textContent = "Features and neurons cannot be in a group: steer or ablate them one at a time.";
      return;
    }
    // A feature or neuron is taken out alone.
    const now = listed(page.store.view[key()]).filter((site) => sites.includes(site) || (!units.length && !isUnit(site)));
    const off = sites.every((site) => now.includes(site));
    const next = off ? now.filter((site) => !sites.includes(site)) : [...new Set([...now, ...sites])];
    page.store.set({ [key()]: next.join(",") || null });
  };
  const siteAt = (/** @type {EventTarget | null} */ target) =>
    /** @type {HTMLElement | null} */ (target instanceof Element ? target.closest("#map [data-site], #writes [data-site], #units [data-site]") : null);

  // Before the map's own listeners, which would choose the head.
  const section = byId("map-section");
  const click = (/** @type {MouseEvent} */ event) => {
    const cell = siteAt(event.target);
    if (tool === "look") {
      if (cell && page.store.view.group) page.store.set({ group: null }, "none");
      return;
    }
    if (!cell) return;
    event.stopPropagation();
    if (!justDragged && cell.dataset.site) toggle([cell.dataset.site]);
    justDragged = false;
  };
  for (const part of [section, byId("units-section")]) part.addEventListener("click", click, true);

  /** @type {Set<string> | null} */
  let over = null;
  let justDragged = false;
  section.addEventListener("pointerdown", (event) => {
    const cell = tool === "look" ? null : siteAt(event.target);
    justDragged = false;
    if (cell?.dataset.site && event.button === 0) over = new Set([cell.dataset.site]);
    if (cell && event.pointerType !== "mouse" && cell.hasPointerCapture(event.pointerId)) cell.releasePointerCapture(event.pointerId);
  });
  section.addEventListener("pointerover", (event) => {
    const cell = over ? siteAt(event.target) : null;
    if (!cell?.dataset.site || !over) return;
    over.add(cell.dataset.site);
    cell.classList.add("gathering");
  });
  document.addEventListener("pointerup", () => {
    if (over && over.size > 1) {
      justDragged = true;
      setTimeout(() => { justDragged = false; });
      toggle([...over]);
    }
    for (const cell of document.querySelectorAll(".gathering")) cell.classList.remove("gathering");
    over = null;
  });

  page.draw(["data", "group", "without", "map", "show", "seed", "component"], () => {
    const [members, away] = [listed(page.store.view.group), listed(page.store.view.without)];
    for (const cell of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#map [data-site], #writes [data-site], #units [data-site]"))) {
      const site = cell.dataset.site ?? "";
      cell.classList.toggle("member", members.includes(site));
      cell.classList.toggle("away", away.includes(site));
    }
    clear.hidden = steer.hidden = !members.length;
    clear.textContent = `Clear the group of ${members.length} (${members.slice(0, 3).map(labelOf).join(", ")}${members.length > 3 ? ", …" : ""})`;
  });
  addKeys(page, [
    ["l", "Tool: steer", () => choose("look")],
    ["g", "Tool: group", () => choose("group")],
    ["a", "Tool: ablate", () => choose("ablate")],
  ]);
  choose(tool);
}
