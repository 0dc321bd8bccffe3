/** The Logit Lens: nearest labels after each layer, as a table. */

import { byId, el } from "../core/elements.js";
import { fixed, ordinal } from "../core/format.js";

/** @import { Label, Page } from "../types" */

/** @param {Page} page */
export function labels(page) {
  page.draw(["data"], () => {
    const { layerLabels, embedLabels } = page.data;
    const width = Math.max(...layerLabels.map((row) => row.length), embedLabels.length);
    byId("labels-section").hidden = width <= 0;
    if (width <= 0) return;
    const places = Array.from({ length: width }, (_, i) => el("th", { scope: "col" }, ordinal(i + 1)));
    byId("labels").replaceChildren(
      el("table", { class: "labels" },
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), ...places)),
        el("tbody", {},
          embedLabels.length ? labelRow("embedding", embedLabels) : null,
          ...layerLabels.map((row, layer) => labelRow(`layer ${layer}`, row)))));
  });
}

/**
 * @param {string} name
 * @param {Label[]} row
 */
function labelRow(name, row) {
  const cells = row.map(([text, score]) => el("td", {}, text, " ", el("span", { class: "quiet" }, fixed(score))));
  return el("tr", {}, el("th", { scope: "row" }, name), ...cells);
}
