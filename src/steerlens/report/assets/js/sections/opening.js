/** The input, its clean reconstruction and what the page says about them. */

import { byId, el } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { figure, picture } from "../core/pictures.js";
import { seedNumber, targetWords } from "../core/sites.js";

/** @import { Page } from "../types" */

const MOST_CLEAN = 3;

/** @param {Page} page */
export function opening(page) {
  page.draw(["data"], () => {
    byId("pair").replaceChildren(inputFigure(page), ...cleanFigures(page));
    byId("said").replaceChildren(...sentences(page));
    for (const node of document.querySelectorAll(".target")) node.textContent = targetWords(page.data);
  });
}

/** @param {Page} page */
function inputFigure({ data }) {
  const label = `${data.name}, ${data.size[0]} × ${data.size[1]}`;
  const image = picture(data.input, `Input picture ${data.name}`, "large");
  return figure(image, el("b", {}, "Input"), label, data.note || null);
}

/** @param {Page} page */
function cleanFigures({ data, meta }) {
  const { words } = meta;
  return data.clean.slice(0, MOST_CLEAN).map((cell) => {
    const seed = `${words.seed} ${seedNumber(meta, cell.seed)}`;
    return figure(
      picture(cell.src, `${words.Clean} of ${data.name}, ${seed}`, "large"),
      el("b", {}, words.Clean),
      `${words.fidelity} ${fixed(cell.fidelity)}${data.clean.length > 1 ? ` · ${seed}` : ""}`,
      data.target === "the input itself" ? null : `similarity ${fixed(cell.similarity)}`);
  });
}

/** @param {Page} page */
function sentences({ data, meta }) {
  const said = data.sentences.map((sentence) => el("p", {}, sentence));
  if (data.target !== "the input itself")
    said.unshift(el("p", {},
      `Similarities on this page are with ${data.target}. That of the input itself is ${fixed(data.targetSimilarity)}.`));
  if (data.leftOut)
    said.push(el("p", { class: "quiet" },
      `${data.leftOut} ${meta.words.pictures} of this input are left out to keep the page small; the run's parquet files contain them.`));
  return said;
}
