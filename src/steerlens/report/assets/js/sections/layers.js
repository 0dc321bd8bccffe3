/** The residual stream layer by layer, under the Diffusion Lens. */

import { byId } from "../core/elements.js";
import { fixed } from "../core/format.js";
import { bar, card, line, markChosen, strip } from "../core/pictures.js";

/** @import { Page } from "../types" */

/** @param {Page} page */
export function layers(page) {
  page.draw(["data", "seed"], () => {
    const { sites } = page.data;
    const keys = Object.keys(sites).filter((key) => sites[key].kind === "resid_post" && sites[key].diffusion);
    keys.sort((a, b) => sites[a].layer - sites[b].layer);
    // A single layer is the clean reconstruction, which is shown above.
    byId("strip-section").hidden = keys.length < 2;
    byId("strip").replaceChildren(strip(keys.map((key) => layerCard(page, key))));
    markChosen(page);
  });
}

/**
 * @param {Page} page
 * @param {string} key
 */
function layerCard(page, key) {
  const site = page.data.sites[key];
  const score = site.diffusion;
  return card(page, key, "diffusion",
    line(`${site.layer}`, "name"),
    bar(score?.similarity),
    line(fixed(score?.similarity), "number"),
    line(`${page.meta.words.fid} ${fixed(score?.fidelity)}`, "number"),
    site.labels.length ? line(site.labels[0][0], "label") : null);
}
