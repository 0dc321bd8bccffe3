/** The legend of the map, and the sentence above it. */

import { byId, el } from "../core/elements.js";
import { fixed, percent } from "../core/format.js";
import { scaleOf } from "./modes.js";

/** @import { Counts, Page } from "../types" */
/** @import { Mode } from "./modes.js" */

/**
 * @param {Page} page
 * @param {Mode} mode
 * @param {boolean} pictures
 */
export function legend(page, mode, pictures) {
  const { counts } = page.data;
  const parts = pictures ? [el("span", {}, "Decoded picture of every head, unchanged.")] : scaleParts(page, mode);
  if (counts) parts.push(marks(counts, page.meta.strong));
  parts.push(el("span", { class: "quiet keys" }, "Arrow keys move, Enter selects, ? shows all keys."));
  byId("legend").replaceChildren(...parts);
  byId("map-said").textContent = counts
    ? sentence(counts, page.meta.strong)
    : "Each square is one attention head. Select a head to see its pictures, numbers and attention.";
}

/**
 * @param {Page} page
 * @param {Mode} mode
 */
function scaleParts(page, mode) {
  const [low, high] = scaleOf(page, mode);
  const stretched = page.store.view.scale === "values";
  const ramp = el("span", { class: "ramp", "aria-hidden": "true" });
  ramp.style.background = `linear-gradient(to right, ${page.meta[mode.ramp].join(",")})`;
  const end = (/** @type {number} */ value) => fixed(value, low % 1 || high % 1 ? (mode.digits ?? 2) : 0);
  const about = mode.about(page);
  const common = page.data.scales?.[mode.scale] ? "." : `; one scale for all inputs${mode.scale === "similarity" ? " and lenses" : ""}.`;
  const toggle = el("button", {
    type: "button", class: "link", id: "stretch", onclick: () => {
      page.store.set({ scale: stretched ? null : "values" });
      byId("stretch").focus();
    },
  }, stretched ? "Use the common scale" : "Stretch over these values");
  return [
    el("span", { class: "ramp-box" }, end(low), ramp, end(high)),
    toggle,
    el("span", { class: "about" }, `${about[0].toUpperCase()}${about.slice(1)}${stretched ? "; colours run over the values of this map alone." : common}`),
  ];
}

/**
 * @param {Counts} counts
 * @param {number} strong
 */
function marks(counts, strong) {
  const nearlyAll = counts.strong === null ? [] : [el("span", { class: "mark strong inline" }), ` beats at least ${percent(strong)} of all controls`];
  return el("span", {}, el("span", { class: "mark inline" }), ` ${counts.lens} beats the head's own control `, ...nearlyAll);
}

/**
 * @param {Counts} counts
 * @param {number} strong
 */
function sentence(counts, strong) {
  const chance = counts.chance === null ? "" : ` (about ${counts.chance} would by chance)`;
  const strongChance = counts.strongChance === null ? "" : ` (about ${fixed(counts.strongChance, 1)} by chance)`;
  const strongly = counts.strong === null ? "" : `; ${counts.strong} beat at least ${percent(strong)} of all controls${strongChance}`;
  return (
    `${counts.beats} of ${counts.heads} heads beat their own control, a random direction steered equally hard${chance}${strongly}. ` +
    "The row under the map counts heads that beat their own control, layer by layer."
  );
}
