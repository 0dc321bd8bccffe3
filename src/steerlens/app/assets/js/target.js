/** The target of similarities: the input itself, a text, or another picture. Scores and ranking follow it. */

import { el } from "../../../report/assets/js/core/elements.js";
import { Latest } from "./api.js";
import { asTarget, common, ITSELF, liveOf, runTargetOf, targetOf } from "./view.js";
import { fetchScores, withScores } from "./source.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { LiveData } from "./types" */

/** @param {Page} page @param {HTMLElement} place */
export function target(page, place) {
  const text = el("input", { type: "text", id: "target-text", maxlength: 300, placeholder: "grinning face", "aria-label": "Target as a text" });
  const pictures = el("select", { id: "target-picture", "aria-label": "Target as a picture" });
  const itself = el("button", { type: "button", id: "target-itself" }, "The input itself");
  const said = el("p", { class: "small", id: "target-said", role: "status" });
  const ranking = el("p", { class: "small", id: "ranking" });
  const form = el("form", { class: "target-form" }, el("span", { class: "form-name" }, "Compare with"), itself,
    liveOf(page).labels ? text : null, pictures);
  const models = modelChoice(page);
  place.append(el("div", { class: "targets" }, ...(models ? [models] : []), form, said, ranking));
  const latest = new Latest();

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    page.store.set({ target: text.value.trim() || null });
  });
  text.addEventListener("change", () => { if (text.value.trim()) page.store.set({ target: text.value.trim() }); });
  const ofRun = () => runTargetOf(page.meta, page.data.id);
  itself.addEventListener("click", () => page.store.set({ target: Object.keys(ofRun()).length ? ITSELF : null }));
  pictures.addEventListener("change", () => { if (pictures.value) page.store.set({ target: asTarget(pictures.value) }); });

  // A target changes all data; a strength changes the scores of the map.
  page.store.watch(["target"], () => {
    const signal = latest.next();
    said.textContent = "";
    const id = page.data.id;
    page.source.input(id, signal).then((data) => { if (!signal.aborted && page.data.id === id) page.update({ ...data, clean: page.data.clean.map((cell) => ({ ...cell, similarity: null })) }); })
      .catch((error) => { if (!signal.aborted) said.textContent = error instanceof Error ? error.message : String(error); });
  });
  page.store.watch(["strength"], () => {
    const signal = latest.next();
    said.textContent = "";
    const id = page.data.id;
    fetchScores(common(page.meta, page.store.view, id), signal)
      .then((scores) => { if (!signal.aborted && page.data.id === id) page.update(withScores(/** @type {LiveData} */ (page.data), scores)); })
      .catch((error) => { if (!signal.aborted) said.textContent = `The map still shows the strength before: ${error instanceof Error ? error.message : error}`; });
  });

  page.draw(["data", "target"], () => {
    const chosen = page.store.view.target ? targetOf(page.store.view, page.data.id) : ofRun();
    const own = !chosen.target && (!chosen.target_input || chosen.target_input === page.data.id);
    itself.setAttribute("aria-pressed", String(own));
    if (document.activeElement !== text) text.value = chosen.target ?? "";
    pictures.replaceChildren(el("option", { value: "" }, "a picture …"),
      ...page.meta.pictures.map(({ id, name }) => el("option", { value: id, selected: id === chosen.target_input }, name)));
    pictures.hidden = page.meta.pictures.length < 2;
    ranking.textContent = rankingWords(/** @type {LiveData} */ (page.data), page.meta.heads, liveOf(page).readsTokens);
  });
}

/**
 * @param {LiveData} data
 * @param {number} heads
 * @param {boolean} readsTokens
 */
function rankingWords({ scores, unscored }, heads, readsTokens) {
  if (!scores) return unscored;
  if (readsTokens && scores.heads.flat().every((value) => value === null)) return "This decoder reads image tokens, which cannot be compared with a text: choose a picture.";
  const flat = scores.heads.flat().map((value, i) => /** @type {const} */ ([value ?? -2, `L${Math.floor(i / heads)}H${i % heads}`]));
  const best = flat.sort((a, b) => b[0] - a[0]).slice(0, 5);
  return `Closest before decoding: ${best.map(([value, name]) => `${name} ${value.toFixed(2)}`).join(", ")}.`;
}

/** @param {Page} page */
function modelChoice(page) {
  const { models, model } = liveOf(page);
  if (models.length < 2) return null;
  const named = document.querySelector("h1 .model");
  if (named) named.textContent = model;
  const select = el("select", { id: "model", "aria-label": "Model" }, ...models.map((name) => el("option", { value: name, selected: name === model }, name)));
  select.addEventListener("change", () => {
    // Another model has other layers and heads: the page begins anew, and pins stay.
    page.store.set({ model: select.value === models[0] ? null : select.value, component: null, group: null, without: null, patches: null });
    location.reload();
  });
  return el("label", { class: "model-choice" }, "Model ", select);
}
