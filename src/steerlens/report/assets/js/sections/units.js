/** Features of sparse autoencoders and neurons: a row for each, with its token map, pictures, numbers and labels. */

import { byId, el, radios, redraw } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { card, line, markChosen, picture } from "../core/pictures.js";
import { veil } from "./token-map.js";

/** @import { Lens, Page, Unit } from "../types" */

/** @typedef {"plan" | "activation" | "effect" | "similarity"} Order */

/** @type {[Order, string][]} */
const ORDERS = [["plan", "As chosen"], ["activation", "Activation"], ["effect", "Direct effect"], ["similarity", "Target"]];

/** @param {Page} page */
export function units(page) {
  /** @type {Order} */
  let order = "plan";
  const draw = () => {
    const found = page.data.units ?? [];
    byId("units-section").hidden = found.length === 0 && !page.meta.openUnits;
    const orders = radios("order", ORDERS, order, (key) => { order = /** @type {Order} */ (key); draw(); });
    redraw(byId("units-controls"), found.length > 1 ? [orders] : []);
    const groups = [...new Set(found.map((unit) => unit.group))];
    byId("units").replaceChildren(...groups.flatMap((group) => {
      const own = sorted(found.filter((unit) => unit.group === group), order);
      return [groups.length > 1 ? el("h3", {}, group) : null, el("div", { class: "units", role: "list" }, ...own.map((unit) => row(page, unit)))];
    }).filter((node) => node !== null));
    markChosen(page);
  };
  page.draw(["data", "seed"], draw);
}

/**
 * Units by one number, largest first; an error and a bias stay last.
 * @param {Unit[]} found
 * @param {Order} order
 */
function sorted(found, order) {
  if (order === "plan") return found;
  const rest = found.filter((unit) => isRemainder(unit));
  const value = (/** @type {Unit} */ unit) => unit[order] ?? -Infinity;
  return [...found.filter((unit) => !isRemainder(unit)).sort((a, b) => value(b) - value(a)), ...rest];
}

/** @param {Unit} unit */
const isRemainder = (unit) => unit.activation === null;

/**
 * @param {Page} page
 * @param {Unit} unit
 */
function row(page, unit) {
  const site = page.data.sites[unit.key];
  if (!site) return el("div", { class: "unit", role: "listitem" }, numbers(page, unit, unit.key), where(page, unit, unit.key), line("not decoded", "number"));
  const lenses = /** @type {Lens[]} */ (["diffusion", "steering", "total"]);
  const names = { diffusion: "Alone", steering: "Steered", total: "Total", ablation: "Without" };
  const control = site.steering?.controls[0] ?? site.total?.controls[0];
  const decoded = lenses.some((lens) => site[lens]);
  return el("div", { class: `unit${decoded ? "" : " undecoded"}`, role: "listitem" },
    numbers(page, unit, site.label, labels(site), !decoded),
    where(page, unit, site.label),
    ...lenses.filter((lens) => site[lens]).map((lens) => card(page, unit.key, lens, line(names[lens], "name"), line(`sim. ${fixed(site[lens]?.similarity)}`, "number"))),
    control ? el("div", { class: "card still" }, picture(control.src, `Control of ${site.label}`), line("Control", "name"), line(`sim. ${fixed(control.similarity)}`, "number")) : null);
}

/**
 * @param {Page} page
 * @param {Unit} unit
 * @param {string} label
 * @param {HTMLElement | null} names
 * @param {boolean} selects true for a unit without pictures, by which others are selected
 */
function numbers(page, unit, label, names = null, selects = false) {
  const button = { class: "unit-name card", type: "button", "data-site": unit.key, onclick: () => page.choose(unit.key, { focus: true }) };
  return el(selects ? "button" : "div", selects ? button : { class: "unit-name" },
    el("b", {}, label),
    unit.activation === null ? null : line(`activation ${fixed(unit.activation)}`, "number"),
    line(`effect ${fixed(unit.effect, 3)}`, "number"),
    unit.second === null ? null : line(`second order ${fixed(unit.second, 3)}`, "number"),
    unit.ablated === null ? null : line(`ablated ${fixed(unit.ablated, 3)}`, "number"),
    line(`${page.meta.words.undecoded} ${fixed(unit.similarity)}`, "number"),
    names);
}

/** @param {import("../types").Site} site */
function labels(site) {
  if (!site.labels.length) return null;
  return el("span", { class: "line label" }, site.labels.slice(0, 3).map(([text]) => text).join(", "));
}

/**
 * @param {Page} page
 * @param {Unit} unit
 * @param {string} label
 */
function where(page, unit, label) {
  if (!unit.map || !page.data.seen) return null;
  const name = `Where ${label} is active on the input; largest on the patches ${fixed(unit.peak)}`;
  return el("div", { class: "card still" },
    el("div", { class: "attention", role: "img", "aria-label": name }, picture(page.data.view, ""), veil(page.meta, unit.map)),
    line("Where", "name"), line(unit.peak === 0 ? "silent on patches" : `up to ${fixed(unit.peak)}`, "number"));
}

/**
 * What the panel of a feature or neuron says of it; nothing for other components.
 * @param {Page} page
 * @param {string} key
 */
export function unitDetail(page, key) {
  const unit = page.data.units?.find((other) => other.key === key);
  if (!unit) return [];
  const said = [
    unit.activation === null ? null : `Activation where the embedding is read ${fixed(unit.activation)}.`,
    `Without it, the embedding moves by ${fixed(unit.effect, 3)} of its length.`,
    unit.second === null ? null : `What later attention makes of it moves the embedding by ${fixed(unit.second, 3)}, both together by ${fixed(unit.together, 3)}; zeroing it in the real forward pass, by ${fixed(unit.ablated, 3)}.`,
    !unit.map ? null : unit.peak === 0 ? "It is silent on the patches." : `On the patches it reaches ${fixed(unit.peak)}, where the map is clear; dark: silent. The scale is its own.`,
  ].filter((text) => text !== null).join(" ");
  const text = el("p", { class: "small" }, said);
  if (!unit.map || !page.data.seen) return [el("h3", {}, "On this input"), text];
  const map = el("div", { class: "attention" }, picture(page.data.view, ""), veil(page.meta, unit.map));
  return [el("h3", {}, "Where it is active"), el("div", { class: "unit attention-row" }, map, text)];
}
