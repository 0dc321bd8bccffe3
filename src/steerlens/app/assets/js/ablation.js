/** The paper's interventions by hand: heads are taken out of the real forward pass, and everything after them reacts. */

import { el } from "../../../report/assets/js/core/elements.js";
import { fixed } from "../../../report/assets/js/core/format.js";
import { Latest, streamed } from "./api.js";
import { keep } from "./keep.js";
import { emptyPicture, setPicture } from "./live-picture.js";
import { ablatedView, labelOf, listed } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { Ablation, Shown } from "./types" */

/** @param {Page} page @param {HTMLElement} place */
export function ablation(page, place) {
  const said = el("p", { class: "prose", id: "ablation-said", "aria-live": "polite" });
  const [before, after] = [emptyPicture("ablation-before"), emptyPicture("ablation-after")];
  const numbers = [el("p", { class: "small" }, " "), el("p", { class: "small" }, " ")];
  const table = el("tbody", {});
  const labels = el("table", { class: "labels", id: "ablation-labels" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "label"), el("th", { scope: "col" }, "before"), el("th", { scope: "col" }, "after"), el("th", { scope: "col" }, "change"))), table);
  const clear = el("button", { type: "button", id: "restore", onclick: () => page.store.set({ without: null }) }, "Restore all");
  const ablated = () => ({ ...ablatedView(page.meta, page.store.view, page.data.id), lens: "ablation" });
  const kept = keep(page, { view: ablated, saved: () => [ablated()], ids: "ablation-", more: [clear] });
  const section = el("section", { id: "ablation-section", "aria-labelledby": "ablation-title", hidden: true },
    el("h2", { id: "ablation-title" }, "Ablation"), said,
    el("div", { class: "ablation" },
      el("figure", {}, before, el("figcaption", {}, el("b", {}, "Before"), numbers[0])),
      el("figure", {}, after, el("figcaption", {}, el("b", {}, "After"), numbers[1])),
      el("div", { class: "table-scroll" }, labels)), kept.box);
  place.append(section);
  const latest = new Latest();

  /** @param {Ablation} told */
  const tell = (told) => {
    const away = told.sites.map(labelOf).join(", ");
    said.textContent = `Without ${away}, the embedding moves by ${fixed(told.change, 3)} of its length; its cosine with the clean embedding is ${fixed(told.cosine, 3)}.`
      + (told.changeCosine === null ? "" : ` The cosine of this change with the direct effect is ${fixed(told.changeCosine)}; the difference is how later layers react.`);
    labels.hidden = !told.labels.length;
    table.replaceChildren(...told.labels.map(({ name, before: was, after: is }) =>
      el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, fixed(was, 3)), el("td", {}, fixed(is, 3)), el("td", {}, fixed(was === null || is === null ? null : is - was, 3)))));
  };
  /** @param {{ before: Shown, after: Shown }} pair @param {"preview" | "whole"} quality */
  const show = (pair, quality) => {
    [/** @type {const} */ ([before, pair.before]), /** @type {const} */ ([after, pair.after])].forEach(([box, shown], i) => {
      setPicture(box, shown.src, i ? `${page.meta.words.Clean}, after ablation` : page.meta.words.Clean, quality);
      numbers[i].textContent = `similarity ${fixed(shown.similarity)} · ${page.meta.words.fidelity} ${fixed(shown.fidelity)}`;
      box.classList.toggle("waiting", quality === "preview");
      box.classList.remove("stale");
    });
  };

  let seen = "";
  page.draw(["data", "without", "seed", "steps", "guidance"], () => {
    const away = listed(page.store.view.without);
    section.hidden = !away.length;
    const view = ablatedView(page.meta, page.store.view, page.data.id);
    const now = away.length ? JSON.stringify({ ...view, strength: null }) : "";
    if (now === seen) return;
    seen = now;
    const signal = latest.next();
    if (!away.length) return;
    for (const box of [before, after]) box.classList.add("waiting");
    void streamed("/api/ablate", view, {
      ablation: tell,
      "ablation-preview": (pair) => show(pair, "preview"),
      "ablation-pictures": (pair) => show(pair, "whole"),
      error: ({ message }) => {
        said.textContent = message;
        // What is left belongs to another choice.
        for (const box of [before, after]) box.classList.replace("waiting", "stale");
        for (const number of numbers) number.textContent = " ";
        labels.hidden = true;
      },
    }, { signal, slot: "ablate" });
  });
}
