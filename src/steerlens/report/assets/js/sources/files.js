/** The source of a published site: data and pictures in files beside the page. */

/** @import { Cell, InputData, Meta, Score, Site, Source } from "../types" */

/** @returns {Source} */
export function filesSource() {
  /** @type {Meta} */
  const meta = JSON.parse(document.getElementById("steerlens-meta")?.textContent ?? "null");
  return {
    kind: "files",
    meta: () => Promise.resolve(meta),
    async input(id, signal) {
      const stem = stemOf(meta, id);
      const answer = await fetched(`data/${stem}.json`, signal);
      return completed(await answer.json(), stem);
    },
    card: async (address) => (await fetched(address)).json(),
    async attention(data, signal) {
      if (!data.attention) return null;
      return new DataView(await (await fetched(data.attention, signal)).arrayBuffer());
    },
  };
}

/**
 * @param {string} address
 * @param {AbortSignal} [signal]
 */
async function fetched(address, signal) {
  const answer = await fetch(address, { signal });
  if (!answer.ok) throw new Error(`The server did not send ${address} (${answer.status}). Reload the page to try again.`);
  return answer;
}

/**
 * Name of an input's files, as part of an address.
 * @param {Meta} meta
 * @param {string} id
 */
const stemOf = (meta, id) => (meta.pictures.find((picture) => picture.id === id)?.page ?? "").replace(/\.html$/, "");

/**
 * Data as the page needs it: sites of a file lack what is not known, and pictures are named without their folder.
 * @param {any} data
 * @param {string} stem
 * @returns {InputData}
 */
export function completed(data, stem) {
  const place = (/** @type {string | undefined} */ name) => (name ? `pictures/${stem}/${name}` : null);
  const cells = (/** @type {any[] | undefined} */ list) =>
    (list ?? []).map((cell) => /** @type {Cell} */ ({ similarity: null, fidelity: null, ...cell, src: place(cell.src) }));
  const score = (/** @type {any} */ value) => /** @type {Score} */ ({
    similarity: null, steered: null, fidelity: null, agreement: null, rho: null, directCosine: null, changeCosine: null,
    control: null, beats: null, share: null, foil: null, beatsFoil: null, ...value,
    pictures: cells(value.pictures), controls: cells(value.controls), foils: cells(value.foils),
  });
  /** @type {Record<string, Site>} */
  const sites = Object.create(null);
  for (const [key, site] of Object.entries(data.sites ?? {})) {
    const scores = ["steering", "total", "diffusion", "ablation"].filter((lens) => lens in site).map((lens) => [lens, score(site[lens])]);
    sites[key] = { labels: [], ...site, ...Object.fromEntries(scores) };
  }
  const inFiles = (/** @type {Record<string, string>} */ heads) =>
    Object.fromEntries(Object.entries(heads).map(([key, name]) => [key, `cards/${stem}/${encodeURIComponent(name)}`]));
  return {
    ...data, cards: data.cards ? { ...data.cards, heads: inFiles(data.cards.heads) } : null, clean: cells(data.clean), sites, input: place(data.input), view: place(data.view),
    attention: data.attention ? `data/${encodeURIComponent(data.attention)}` : null,
  };
}
