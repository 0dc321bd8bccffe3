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

/** Pixels between the points of a drag that are looked at: no cell is smaller. */
const STRIDE = 6;

/** @param {string} site */
const isWrite = (site) => /^(?:head|attn_out|mlp_out)\./.test(site);

/**
 * Parts without the heads of attention outputs among them, which would count twice.
 * @param {string[]} members
 */
export function withoutParts(members) {
  const whole = new Set(members.filter((site) => site.startsWith("attn_out.")).map((site) => site.split(".")[1]));
  return members.filter((site) => !site.startsWith("head.") || !whole.has(site.split(".")[1]));
}

/** @param {Page} page @param {HTMLElement} place */
export function tools(page, place) {
  /** @type {Tool} */
  let tool = page.store.view.without ? "ablate" : "look";
  const box = el("div", { class: "controls" });
  const about = el("p", { class: "small quiet", id: "tool-about" });
  const clear = el("button", { type: "button", class: "link", id: "clear-group" }, "Clear the group");
  // On a narrow page the panel would cover the map while a group is gathered: it opens on request.
  const steer = el("button", { type: "button", id: "steer-group", onclick: () => page.choose(listed(page.store.view.group)[0] ?? null, { focus: true }) }, "Steer the group");
  place.append(el("div", { class: "tools" }, box, el("div", { class: "tools-said" }, about, steer, clear)));
  clear.addEventListener("click", () => page.store.set({ group: null }));

  const choose = (/** @type {Tool} */ next) => {
    tool = next;
    redraw(box, [radios("tool", [["look", "Steer"], ["group", "Group"], ["ablate", "Ablate"]], tool, (key) => choose(/** @type {Tool} */ (key)))]);
    say();
    byId("map-section").dataset.tool = tool;
  };
  // The hint and the buttons of the group take turns in one place, so that the map stays where it is.
  const say = (trouble = "") => {
    const members = listed(page.store.view.group);
    const grouped = members.length > 0 && tool !== "ablate";
    about.textContent = trouble || ABOUT[tool];
    about.hidden = grouped && !trouble;
    clear.hidden = steer.hidden = !grouped;
    clear.textContent = `Clear the group of ${members.length}`;
    clear.title = members.map(labelOf).join(", ");
  };
  const key = () => (tool === "ablate" ? "without" : "group");

  /** @param {string[]} sites */
  const toggle = (sites) => {
    const units = sites.filter(isUnit);
    if (units.length && tool === "group") {
      say("Features and neurons cannot be in a group: steer them one at a time, with the tool “Steer”.");
      return;
    }
    const taken = sites.filter((site) => isUnit(site) || isWrite(site));
    if (!taken.length) {
      say(tool === "group" ? "Only heads, MLPs and attention outputs can be in a group." : "Only heads, MLPs, attention outputs, features and neurons can be ablated.");
      return;
    }
    const before = listed(page.store.view[key()]);
    // A feature or neuron is taken out alone.
    const now = before.filter((site) => taken.includes(site) || (!units.length && !isUnit(site)));
    const dropped = before.filter((site) => !now.includes(site));
    const off = taken.every((site) => now.includes(site));
    const all = off ? now.filter((site) => !taken.includes(site)) : [...new Set([...now, ...taken])];
    const next = withoutParts(all);
    page.store.set({ [key()]: next.join(",") || null });
    say(dropped.length ? `Features and neurons are ablated alone: ${dropped.map(labelOf).join(", ")} restored.`
      : next.length < all.length ? "Heads within a selected attention output are part of it, and left out." : "");
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
  /** @type {[x: number, y: number]} */
  let last = [0, 0];
  /** @param {HTMLElement | null} cell */
  const gather = (cell) => {
    if (!cell?.dataset.site) return;
    over?.add(cell.dataset.site);
    cell.classList.add("gathering");
  };
  section.addEventListener("pointerdown", (event) => {
    const cell = tool === "look" ? null : siteAt(event.target);
    justDragged = false;
    if (cell?.dataset.site && event.button === 0) {
      over = new Set();
      last = [event.clientX, event.clientY];
      gather(cell);
    }
    if (cell && event.pointerType !== "mouse" && cell.hasPointerCapture(event.pointerId)) cell.releasePointerCapture(event.pointerId);
  });
  section.addEventListener("pointermove", (event) => {
    if (!over) return;
    // A fast hand jumps over cells: all that lie on its way count.
    const [x, y] = last;
    const [right, down] = [event.clientX - x, event.clientY - y];
    const steps = Math.max(1, Math.ceil(Math.hypot(right, down) / STRIDE));
    for (let step = 1; step <= steps; step += 1)
      gather(siteAt(document.elementFromPoint(x + (right * step) / steps, y + (down * step) / steps)));
    last = [event.clientX, event.clientY];
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

  let shownMembers = -1;
  page.draw(["data", "group", "without", "map", "show", "seed", "component"], () => {
    const [members, away] = [listed(page.store.view.group), listed(page.store.view.without)];
    for (const cell of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("#map [data-site], #writes [data-site], #units [data-site]"))) {
      const site = cell.dataset.site ?? "";
      cell.classList.toggle("member", members.includes(site));
      cell.classList.toggle("away", away.includes(site));
    }
    if (members.length !== shownMembers) say();
    shownMembers = members.length;
  });
  addKeys(page, [
    ["l", "Tool: steer", () => choose("look")],
    ["g", "Tool: group", () => choose("group")],
    ["a", "Tool: ablate", () => choose("ablate")],
  ]);
  choose(tool);
}
