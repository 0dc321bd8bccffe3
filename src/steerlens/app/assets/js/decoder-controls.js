/** Seed, steps and guidance of the decoder. */

import { el } from "../../../report/assets/js/core/elements.js";
import { liveOf } from "./view.js";

/** @import { Page, View } from "../../../report/assets/js/types" */

/** @param {Page} page */
export function decoderControls(page) {
  const { steps, guidance, denoises } = liveOf(page);
  if (!denoises) return null;
  const seed = field("Seed", "decoder-seed", { min: 0, max: 2 ** 31, step: 1 });
  const count = field("Steps", "decoder-steps", { min: 1, max: 200, step: 1 });
  const scale = field("Guidance", "decoder-guidance", { min: 0, max: 30, step: "any" });
  const other = el("button", { type: "button", class: "link", id: "another-seed", onclick: () => set({ seed: Number(seed.input.value) + 1 }) }, "new seed");
  const set = (/** @type {Partial<View>} */ change) => page.store.set(change);
  seed.input.addEventListener("change", () => { if (valid(seed.input)) set({ seed: Number(seed.input.value) }); });
  count.input.addEventListener("change", () => { if (valid(count.input)) set({ steps: same(count.input, steps) }); });
  scale.input.addEventListener("change", () => { if (valid(scale.input)) set({ guidance: same(scale.input, guidance) }); });
  page.draw(["data", "seed", "steps", "guidance"], () => {
    const { view } = page.store;
    put(seed.input, view.seed ?? page.meta.seeds[0] ?? 0);
    put(count.input, view.steps ?? steps);
    put(scale.input, view.guidance ?? guidance);
  });
  return el("div", { class: "decoder", role: "group", "aria-label": "Decoder" }, seed.label, count.label, scale.label, other);
}

/**
 * @param {string} name
 * @param {string} id
 * @param {Record<string, string | number>} limits
 */
function field(name, id, limits) {
  const input = el("input", { type: "number", id, ...limits });
  return { input, label: el("label", { for: id }, name, input) };
}

/** @param {HTMLInputElement} input */
const valid = (input) => input.value !== "" && input.reportValidity();

/**
 * @param {HTMLInputElement} input
 * @param {number} own
 */
const same = (input, own) => (Number(input.value) === own ? null : input.value);

/**
 * @param {HTMLInputElement} input
 * @param {string | number} value
 */
function put(input, value) {
  if (document.activeElement !== input || input.value === "") input.value = String(value);
}
