/** Features and neurons: the strongest of an autoencoder or of a layer on the input, each to be steered or ablated. */

import { byId, el } from "../../../report/assets/js/core/elements.js";
import { Latest, postJson } from "./api.js";
import { cleanView } from "./view.js";

/** @import { Meta, Page, Site, View } from "../../../report/assets/js/types" */
/** @import { LiveData, UnitList } from "./types" */

const NEURONS = "neurons.";
const MOST_KNOWN = 32;
const SETTLED = 250;

/** @param {Page} page @param {HTMLElement} place */
export function unitList(page, place) {
  const { openUnits } = page.meta;
  const section = byId("units-section");
  if (!openUnits) return;
  place.append(section);
  byId("units-title").textContent = "Features and neurons";
  for (const text of section.querySelectorAll(".prose")) text.remove();
  const select = el("select", { id: "unit-list" },
    el("option", { value: "" }, "…"),
    ...Object.entries(openUnits.features).map(([name, count]) => el("option", { value: name }, `${name}: ${count.toLocaleString("en")} features`)),
    ...openUnits.neurons.map((count, layer) => el("option", { value: NEURONS + layer }, `Layer ${layer}: ${count.toLocaleString("en")} neurons`)));
  const said = el("p", { class: "small", id: "units-said", role: "status" });
  byId("units-title").after(
    el("p", { class: "prose" }, "The strongest on this input, before decoding. Select one to steer it, or with the tool “Ablate” to take it out. “Where” shows its activation on the patches of the input, clear at its own largest value; “effect” is how far the embedding moves without it, relative to the embedding."),
    el("label", { class: "unit-choice" }, "List ", select), said);
  select.addEventListener("change", () => page.store.set({ list: select.value || null }));
  const latest = new Latest();
  /** @type {Map<string, UnitList>} */
  const known = new Map();
  let asked = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  /** @param {string} key @param {UnitList} list */
  const show = (key, { units, sites, active, sae }) => {
    const data = /** @type {LiveData} */ (page.data);
    said.textContent = sae ? `${active ?? units.length} of the ${sae.words} are active here. On these inputs: ${sae.fit}.${sae.poor ? " It fits this input poorly, so its features say little about it." : ""}` : "";
    // Sites of a run keep their pictures.
    const all = /** @type {Record<string, Site>} */ (Object.assign(Object.create(null), sites, data.sites));
    page.update(/** @type {LiveData} */ ({ ...data, units, sites: all, unitsOf: key, ownUnits: data.ownUnits ?? data.units }));
  };

  page.draw(["data", "list", "component", "strength"], () => {
    const data = /** @type {LiveData} */ (page.data);
    const list = listOf(page.meta, page.store.view);
    select.value = list;
    const body = { view: cleanView(page.meta, page.store.view, data.id), units: list };
    const key = list ? JSON.stringify(body) : "";
    if ((data.unitsOf ?? "") === key) return;
    const answer = known.get(key);
    if (answer || !key) {
      // Not while others still draw this data.
      queueMicrotask(() => { if (page.data === data) show(key, answer ?? { units: data.ownUnits ?? [], sites: {}, active: null, sae: null }); });
      return;
    }
    if (asked === key) return;
    asked = key;
    const signal = latest.next();
    clearTimeout(timer);
    const arrived = (/** @type {UnitList} */ found) => {
      if (known.size >= MOST_KNOWN) known.clear();
      known.set(key, found);
      if (!signal.aborted && page.data.id === data.id) show(key, found);
    };
    const failed = (/** @type {unknown} */ error) => {
      asked = "";
      if (signal.aborted) return;
      show(key, { units: [], sites: {}, active: null, sae: null });
      said.textContent = error instanceof Error ? error.message : String(error);
    };
    // Arrow keys on the slider choose many strengths a second: the list waits for the last.
    timer = setTimeout(() => void postJson("/api/units", body, { signal, slot: "units" }).then(arrived).catch(failed), data.unitsOf ? SETTLED : 0);
  });
}

/**
 * The list on view: the chosen one, the first autoencoder, or what the component is one of.
 * @param {Meta} meta
 * @param {Readonly<View>} view
 */
export function listOf({ openUnits }, { list, component }) {
  const open = openUnits ?? { features: {}, neurons: [] };
  const isOpen = (/** @type {string} */ name) =>
    Object.hasOwn(open.features, name) || (name.startsWith(NEURONS) && open.neurons[Number(name.slice(NEURONS.length))] !== undefined);
  const neuron = /^neuron\.(\d+)\./.exec(component ?? "");
  return [list, ...Object.keys(open.features), neuron ? NEURONS + neuron[1] : null].find((name) => name && isOpen(name)) ?? "";
}
