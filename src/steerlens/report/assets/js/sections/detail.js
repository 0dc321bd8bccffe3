/** The panel of the chosen component: its rank, pictures, numbers, labels and attention. */

import { byId, el } from "../core/elements.js";
import { ordinal } from "../core/format.js";
import { markChosen } from "../core/pictures.js";
import { siteOf, steeredScore } from "../core/sites.js";
import { attention } from "./attention.js";
import { detailLabels, detailNumbers } from "./numbers.js";
import { detailPictures } from "./detail-pictures.js";
import { headCard } from "./head-card.js";
import { unitDetail } from "./units.js";

/** @import { Lens, Page, Site } from "../types" */

/** @param {Page} page */
export function detail(page) {
  /** @type {string | null} */
  let shown = null;
  page.draw(["data", "component", "group"], () => {
    const key = page.component;
    const site = key === null ? null : siteOf(page.data, page.meta, key);
    const panel = byId("detail");
    panel.hidden = !site;
    document.body.classList.toggle("open", Boolean(site));
    if (site && key !== null) {
      // Live parts stand between both and stay: a slider that is being dragged must not be taken out.
      const group = page.source.kind === "live" ? (page.store.view.group ?? "").split(",").filter(Boolean) : [];
      part(panel, "head").replaceChildren(heading(page, key, site, group.length), facts(page, key, site, group.length), ...shared(page, key));
      part(panel, "body").replaceChildren(...(group.length ? [] : [...detailPictures(page, site), ...headCard(page, key), detailNumbers(page, site), ...detailLabels(site),
        ...unitDetail(page, key), attention(page, site)]));
      if (key !== shown) panel.scrollTop = 0;
    }
    shown = key;
    markChosen(page);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !page.wide && !byId("detail").hidden && !document.querySelector("dialog[open]")) close(page);
  });
}

/**
 * @param {HTMLElement} panel
 * @param {string} name
 */
const part = (panel, name) => /** @type {HTMLElement} */ (panel.querySelector(`[data-part="${name}"]`));

/** @param {Page} page */
function close(page) {
  const key = page.component ?? "";
  page.choose(null);
  /** @type {HTMLElement | null} */
  const cell = byId("map").querySelector(`[data-site="${CSS.escape(key)}"]`);
  cell?.focus();
}

/**
 * A link to a head that shows the head's picture where it is posted: only small pages of their own have one.
 * @param {Page} page
 * @param {string} key
 */
function shared({ data }, key) {
  const address = data.shared?.[key];
  if (!address) return [];
  const said = el("span", { class: "quiet", role: "status" });
  const copy = () => {
    const link = new URL(address, location.href).href;
    const written = navigator.clipboard?.writeText(link) ?? Promise.reject(new Error("no clipboard"));
    written.then(() => { said.textContent = "Copied."; }, () => { said.textContent = link; });
  };
  return [el("p", { class: "small share" }, el("button", { type: "button", class: "link", id: "share", onclick: copy }, "Copy a link with preview"), " ", said)];
}

/**
 * The lens by which a component is ranked.
 * @param {Site} site
 */
const rankLens = (site) => /** @type {Lens[]} */ (["steering", "total", "diffusion"]).find((lens) => site[lens]) ?? "diffusion";

/**
 * Heads in the order of the component's lens; on a server, where nothing was decoded, of their scores before decoding.
 * @param {Page} page
 * @param {Site} site
 */
const rankingOf = (page, site) => page.data.top[rankLens(site)] ?? page.data.ranking ?? [];

/**
 * @param {Page} page
 * @param {string} key
 * @param {Site} site
 * @param {number} grouped members of the group that is steered in place of the component
 */
function heading(page, key, site, grouped) {
  const ranking = rankingOf(page, site);
  const rank = grouped ? -1 : ranking.indexOf(key);
  const step = (/** @type {number} */ by, /** @type {string} */ text, /** @type {string} */ name) => {
    const next = rank < 0 ? undefined : ranking[rank + by];
    const go = () => {
      page.choose(next ?? null, { focus: true });
      // The panel was drawn anew: the focus stays on the button that was pressed.
      /** @type {HTMLElement | null} */ (byId("detail").querySelector(`[data-step="${by}"]:not(:disabled)`))?.focus();
    };
    return el("button", { type: "button", class: "icon", "data-step": by, "aria-label": name, title: name, disabled: !next, onclick: go }, text);
  };
  return el("div", { class: "detail-head" }, el("h2", {}, grouped ? `Group of ${grouped}` : site.label),
    el("span", { class: "buttons" },
      rank >= 0 ? step(-1, "‹", "Better-ranked head") : null,
      rank >= 0 ? step(1, "›", "Next head in rank") : null,
      el("button", { type: "button", class: "icon close", "aria-label": "Close details", title: "Close", onclick: () => close(page) }, "×")));
}

/**
 * @param {Page} page
 * @param {string} key
 * @param {Site} site
 * @param {number} grouped
 */
function facts(page, key, site, grouped) {
  if (grouped) return el("p", { class: "facts", "aria-live": "polite" }, "steered as one");
  const lens = rankLens(site);
  const ranking = rankingOf(page, site);
  const rank = ranking.indexOf(key);
  const said = [];
  const by = page.data.top[lens] ? `under the ${page.meta.lenses[lens]}` : "before decoding";
  if (rank >= 0) said.push(`${ordinal(rank + 1)} of ${ranking.length} heads ${by}`);
  const compared = steeredScore(page.meta, site);
  if (compared && compared.beats !== null) said.push(compared.beats ? "beats its control" : "does not beat its control");
  const beatsFoil = site.steering?.beatsFoil ?? null;
  if (beatsFoil !== null) said.push(`${beatsFoil ? "beats" : "does not beat"} its write for another input`);
  return el("p", { class: "facts", "aria-live": "polite" }, said.join(" · ") || key);
}
