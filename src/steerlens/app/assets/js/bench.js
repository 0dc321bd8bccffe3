/**
 * The bench: the picture of what is on view, with its strength, lens, control and strip of strengths.
 *
 * While the slider moves, one preview is computed at a time: when it has come, the newest strength is asked for, and
 * what lay between is dropped. When the hand stops, the picture is computed whole.
 */

import { byId, el, radios, redraw } from "../../../report/assets/js/core/elements.js";
import { fixed } from "../../../report/assets/js/core/format.js";
import { addKeys } from "../../../report/assets/js/sections/keys.js";
import { Latest, streamed } from "./api.js";
import { decoderControls } from "./decoder-controls.js";
import { emptyPicture, setPicture } from "./live-picture.js";
import { keepButtons } from "./keep.js";
import { regionEditor } from "./region.js";
import { labelOf, lensOf, listed, serverView, strengthWords, viewWords } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { Numbers, ServerView, Shown } from "./types" */

const SETTLED = 160;
const RANGE = { rho: { min: -3, max: 10, step: 0.1 }, s: { min: -3, max: 10, step: 0.1 } };
const STRIP = [-3, -1, 0, 1, 2, 4, 7, 10];

/** @param {Page} page */
export function bench(page) {
  const slot = /** @type {HTMLElement} */ (byId("detail").querySelector('[data-slot="detail"]'));
  const picture = emptyPicture("bench-picture");
  const control = emptyPicture("bench-control");
  const lenses = el("div", { class: "controls bench-lenses" });
  const slider = el("input", { type: "range", id: "strength", "aria-describedby": "bench-numbers" });
  const number = el("input", { type: "number", id: "strength-number", "aria-label": "Strength as a number", step: "any", min: -999999, max: 999999 });
  const kind = el("button", { type: "button", class: "link", id: "strength-kind" });
  const strengthRow = el("div", { class: "strength" }, el("label", { for: "strength" }, "Strength"), slider, number, kind);
  const numbers = el("dl", { id: "bench-numbers", class: "bench-numbers", "aria-live": "off" });
  const labels = el("ol", { class: "label-list bench-labels", "aria-label": "Nearest labels of the steered embedding" });
  const strip = el("div", { class: "bench-strip", role: "group", "aria-label": "A strip of strengths" });
  const withControl = el("input", { type: "checkbox", id: "with-control" });
  const what = el("p", { class: "bench-what" });
  const message = el("p", { class: "notice bench-message", role: "alert", hidden: true });
  const controlBox = el("div", { class: "bench-second", hidden: true }, control, el("p", { class: "small", id: "control-said" }, ""));
  slot.replaceChildren(
    el("section", { class: "bench", "aria-label": "Steer" }, what, lenses,
      el("div", { class: "bench-pictures" }, el("div", {}, picture, el("p", { class: "small", id: "picture-said" }, " ")), controlBox),
      message, strengthRow, strip, numbers, labels,
      el("label", { class: "check" }, withControl, " Random control beside it"),
      decoderControls(page), regionEditor(page), keepButtons(page)));

  const looking = new Latest();
  const controlling = new Latest();
  /** @type {string | null} */
  let dragged = null;
  let busy = false;
  let drawnStrip = "";
  let byKeys = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const strength = () => dragged ?? page.store.view.strength ?? page.meta.strength;
  const parts = () => /** @type {["rho" | "s", number]} */ (((text) => [text.split("=")[0], Number(text.split("=")[1])])(strength()));
  const view = (/** @type {ServerView} */ change = {}) =>
    ({ ...serverView(page.meta, page.store.view, page.data.id, page.component), strength: strength(), ...change });

  function drawStrength() {
    const [name, value] = parts();
    const { min, max, step } = RANGE[name] ?? RANGE.rho;
    Object.assign(slider, { min, max, step });
    if (Number(slider.value) !== value) slider.value = String(value);
    if (document.activeElement !== number) number.value = String(value);
    slider.setAttribute("aria-valuetext", strengthWords(strength()));
    kind.textContent = name === "rho" ? "ρ" : "s";
    kind.title = name === "rho"
      ? "ρ: length of what is added, as a share of the final residual. Press to give a factor s instead."
      : "s: the write is multiplied by it. Press to give a relative strength ρ instead.";
    kind.setAttribute("aria-label", kind.title);
    const off = lensOf(page.store.view, page.component) === "diffusion";
    for (const input of [slider, number, kind]) input.disabled = off;
  }

  /** @param {boolean} refine */
  function look(refine) {
    if (!slot.isConnected || page.component === null && !page.store.view.group) return;
    busy = true;
    picture.classList.add("waiting");
    // The strip is the same for all strengths.
    const ofStrip = lensOf(page.store.view, page.component) === "diffusion" ? "" : JSON.stringify(view({ strength: parts()[0] }));
    const strengths = refine && ofStrip !== drawnStrip && ofStrip ? STRIP.map((value) => `${parts()[0]}=${value}`) : [];
    strip.classList.toggle("stale", ofStrip !== drawnStrip);
    if (!ofStrip) drawStrip([]);
    const asked = strength();
    const react = {
      numbers: drawNumbers,
      preview: (/** @type {Shown} */ shown) => { show(shown, "preview"); again(refine, asked); },
      picture: (/** @type {Shown} */ shown) => { show(shown, "whole"); picture.classList.remove("waiting"); again(refine, asked); },
      progress: (/** @type {{ done: number, total: number }} */ { done, total }) => picture.style.setProperty("--done", String(done / Math.max(total, 1))),
      strip: (/** @type {{ strengths: Shown[] }} */ { strengths: shown }) => { drawnStrip = ofStrip; drawStrip(shown); },
      superseded: () => {},
      error: complain,
    };
    void streamed("/api/look", { view: view(), refine, strengths }, react, { signal: looking.next(), slot: "look" })
      .then((ended) => { if (ended) { busy = false; picture.classList.remove("waiting"); } });
  }

  /**
   * Asks for the newest strength, if it has changed since the one that has come.
   * @param {boolean} refine
   * @param {string} asked
   */
  function again(refine, asked) {
    if (refine) return;
    busy = false;
    if (dragged !== null && dragged !== asked) look(false);
  }

  /** @param {Numbers} told */
  function drawNumbers(told) {
    message.hidden = true;
    const rows = [
      ["not decoded", fixed(told.undecoded)],
      ...(lensOf(page.store.view, page.component) === "diffusion" ? [] : [["strength ρ", fixed(told.rho)]]),
      ...(told.directCosine === null ? [] : [["cosine with the direct effect", fixed(told.directCosine)]]),
      ...(told.changeCosine === null ? [] : [["cosine of the changes", fixed(told.changeCosine)]]),
    ];
    numbers.replaceChildren(...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    labels.replaceChildren(...told.labels.map(([text, score]) => el("li", {}, text, " ", el("span", { class: "quiet" }, fixed(score)))));
  }

  /**
   * @param {Shown} shown
   * @param {"preview" | "whole"} quality
   */
  function show(shown, quality) {
    const words = viewWords(page.meta, { ...page.store.view, strength: strength() }, page.component);
    picture.classList.remove("stale");
    setPicture(picture, shown.src, `${words}${quality === "preview" ? ", preview" : ""}`, quality);
    byId("picture-said").textContent = `similarity ${fixed(shown.similarity)} · ${page.meta.words.fidelity} ${fixed(shown.fidelity)}${quality === "preview" ? " · preview" : ""}`;
    if (quality === "whole") page.say(`${words}: similarity ${fixed(shown.similarity)}`);
  }

  /** @param {{ message: string }} error */
  function complain(error) {
    busy = false;
    picture.classList.remove("waiting");
    // What is left on the page belongs to another view.
    picture.classList.add("stale");
    numbers.replaceChildren();
    labels.replaceChildren();
    byId("picture-said").textContent = "";
    message.textContent = error.message;
    message.hidden = false;
  }

  /** @param {Shown[]} shown */
  function drawStrip(shown) {
    const focused = document.activeElement instanceof HTMLElement && strip.contains(document.activeElement) ? document.activeElement.dataset.strength : null;
    strip.classList.remove("stale");
    if (!shown.length) drawnStrip = "";
    strip.replaceChildren(...shown.map((entry) => {
      const text = entry.strength ?? "";
      return el("button", {
        type: "button", "data-strength": text, "aria-pressed": String(text === strength()),
        "aria-label": `${strengthWords(text)}, similarity ${fixed(entry.similarity)}`, onclick: () => settle(text),
      }, el("img", { src: entry.src, alt: "", class: "pixels" }), el("span", {}, strengthWords(text).replace(/^\S+ /, "")));
    }));
    if (focused) /** @type {HTMLElement | null} */ (strip.querySelector(`[data-strength="${focused}"]`))?.focus();
  }

  function markStrip() {
    for (const button of strip.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset.strength === strength()));
  }

  function lookAtControl() {
    withControl.checked = page.store.view.control !== null;
    controlBox.hidden = !withControl.checked;
    if (!withControl.checked) return controlling.next();
    control.classList.add("waiting");
    const said = (/** @type {Shown} */ { src, similarity }) => {
      setPicture(control, src, "Random control", "whole");
      byId("control-said").textContent = `random control at ${strengthWords(strength())} · similarity ${fixed(similarity)}`;
      control.classList.remove("waiting");
    };
    const react = { preview: said, picture: said, error: (/** @type {{ message: string }} */ { message: text }) => { byId("control-said").textContent = text; } };
    return void streamed("/api/look", { view: view({ lens: "control" }) }, react, { signal: controlling.next(), slot: "control" });
  }

  /** @param {string} text */
  function settle(text) {
    dragged = null;
    clearTimeout(timer);
    if (text === (page.store.view.strength ?? page.meta.strength)) draw();
    else page.store.set({ strength: text === page.meta.strength ? null : text });
  }

  /** @param {number} value */
  function drag(value) {
    dragged = `${parts()[0]}=${value}`;
    drawStrength();
    markStrip();
    if (!busy) look(false);
    clearTimeout(timer);
    timer = setTimeout(() => { if (dragged !== null) look(true); }, SETTLED);
  }

  function draw() {
    what.textContent = viewWords(page.meta, { ...page.store.view, strength: strength() }, page.component);
    const members = listed(page.store.view.group);
    if (members.length) what.textContent = what.textContent.replace(/^\d+ parts/, members.map(labelOf).join(" + "));
    redraw(lenses, [radios("lens", [["steering", "Steering"], ["diffusion", "Diffusion"], ["total", "Total"], ["control", "Random"]],
      lensOf(page.store.view, page.component), (lens) => page.store.set({ lens: lens === "steering" ? null : lens }))]);
    drawStrength();
    markStrip();
    look(true);
    lookAtControl();
  }

  slider.addEventListener("input", () => drag(Number(slider.value)));
  slider.addEventListener("pointerdown", () => { byKeys = false; });
  slider.addEventListener("keydown", () => { byKeys = true; });
  slider.addEventListener("change", () => {
    const text = `${parts()[0]}=${Number(slider.value)}`;
    if (!byKeys) return settle(text);
    // Each press of an arrow key is a change of its own: wait for the last, as for a hand that stops.
    clearTimeout(timer);
    timer = setTimeout(() => settle(text), SETTLED);
  });
  number.addEventListener("change", () => {
    // The server takes six digits before and after the point.
    if (number.value.trim() !== "" && number.reportValidity()) settle(`${parts()[0]}=${Number(Number(number.value).toFixed(6))}`);
  });
  kind.addEventListener("click", () => settle(parts()[0] === "rho" ? "s=5" : "rho=1"));
  const compare = (/** @type {boolean} */ beside) => page.store.set({ control: beside ? "beside" : null });
  withControl.addEventListener("change", () => compare(withControl.checked));
  page.store.watch(["control"], lookAtControl);
  addKeys(page, [
    ["s", "Go to the strength", () => slider.focus()],
    ["c", "Random control beside the picture", () => compare(!withControl.checked)],
  ]);

  let seen = "";
  page.draw(["data", "component", "strength", "seed", "lens", "group", "patches", "steps", "guidance"], () => {
    // Data changes when scores have come, too: the picture is the same then.
    const now = JSON.stringify(view({ strength: page.store.view.strength }));
    if (now === seen) return;
    seen = now;
    dragged = null;
    draw();
  });
}
