/** The live source: data of the run and of each input from the server. */

import { unpacked, withSafeKeys } from "../../../report/assets/js/sources/embedded.js";
import { headKey } from "../../../report/assets/js/core/sites.js";
import { getJson, postJson } from "./api.js";
import { common, targetOf, viewOf } from "./view.js";

/** @import { Meta, Site, Source } from "../../../report/assets/js/types" */
/** @import { LiveData, LiveMeta, Scores } from "./types" */

const OWN = "steerlens-inputs";

/** @returns {Source} */
export function liveSource() {
  /** @type {Promise<LiveMeta> | null} */
  let known = null;
  const meta = () => (known ??= fetchMeta());
  return {
    kind: "live",
    meta,
    async input(id, signal) {
      // The address holds the view before data is fetched for it.
      const view = viewOf(location.hash, await meta());
      const query = new URLSearchParams({ ...(view.model ? { model: view.model } : {}), ...targetOf(view, id) });
      let unscored = "";
      const [data, scores] = await Promise.all([
        getJson(`/api/input/${encodeURIComponent(id)}?${query}`, signal),
        fetchScores(common(await meta(), view, id), signal).catch((error) => {
          unscored = `No scores before decoding: ${error instanceof Error ? error.message : error}`;
          return null;
        }),
      ]);
      return withParts(await meta(), { ...data, unscored }, scores);
    },
    attention: (data) => Promise.resolve(unpacked(data.attention)),
  };
}

/** @returns {Promise<LiveMeta>} */
async function fetchMeta() {
  const model = new URLSearchParams(location.hash.split("?")[1] ?? "").get("model") ?? "";
  const [meta, state] = await Promise.all([
    getJson(`/api/page?${new URLSearchParams({ model, inputs: ownInputs().join(",") })}`),
    getJson("/api/state"),
  ]);
  return { ...meta, live: { ...meta.live, writes: state.writes, uploadBytes: state.uploadBytes } };
}

/**
 * Scores of all parts.
 * @param {import("./types").ServerView} view
 * @param {AbortSignal} signal
 * @returns {Promise<Scores>}
 */
export function fetchScores(view, signal) {
  return postJson("/api/scores", { ...view, lens: "steering" }, { signal, slot: "scores" });
}

/**
 * Data with the parts that have no picture yet, so that they can be chosen.
 * @param {Meta} meta
 * @param {LiveData} data
 * @param {Scores | null} scores
 * @returns {LiveData}
 */
export function withParts(meta, data, scores) {
  const whole = /** @type {LiveData} */ (withSafeKeys(data));
  for (const kind of ["mlp_out", "attn_out", "resid_post"])
    for (let layer = 0; layer < meta.layers; layer += 1) addSite(whole.sites, kind, layer, `${kind}.${layer}`);
  for (const vector of /** @type {LiveMeta} */ (meta).live.vectors) addSite(whole.sites, "vector", -1, vector);
  return withScores(whole, scores);
}

/**
 * @param {LiveData} data
 * @param {Scores | null} scores
 * @returns {LiveData}
 */
export function withScores(data, scores) {
  if (!scores) return { ...data, scores };
  const ranked = scores.heads.flatMap((row, layer) => row.map((value, head) => /** @type {const} */ ([headKey(layer, head), value ?? -2])));
  return {
    ...data, scores, unscored: "", undecoded: scores.heads.flat(), targetSimilarity: scores.input ?? data.targetSimilarity,
    ranking: ranked.sort((a, b) => b[1] - a[1]).map(([key]) => key), scales: { ...data.scales, similarity: similarityScale(scores) },
  };
}

/**
 * From 0 to 1, unless similarities lie elsewhere: those with a text may all be close to 0 or below it.
 * @param {Scores} scores
 * @returns {[number, number]}
 */
export function similarityScale({ heads, mlps, attention, residual }) {
  const values = [...heads.flat(), ...mlps, ...attention, ...residual].filter((value) => value !== null);
  const [low, high] = [Math.min(0, ...values), Math.max(0.01, ...values)];
  return [low < -0.005 ? -niceCeiling(-low) : 0, high > 0.5 ? 1 : niceCeiling(high)];
}

/**
 * The smallest 1, 2 or 5 times a power of ten that is not below a positive value.
 * @param {number} value
 */
export function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9)) ?? 10;
  return Number((step * power).toPrecision(2));
}

/**
 * @param {Record<string, Site>} sites
 * @param {string} kind
 * @param {number} layer
 * @param {string} key
 */
function addSite(sites, kind, layer, key) {
  sites[key] ??= { label: key, kind, layer, head: -1, labels: [] };
}

/** Ids of the pictures that this browser has sent. @returns {string[]} */
export function ownInputs() {
  try {
    const ids = JSON.parse(localStorage.getItem(OWN) ?? "[]");
    return Array.isArray(ids) ? ids.filter((id) => /^[0-9a-f]{12}$/.test(id)).slice(-16) : [];
  } catch {
    return [];
  }
}

/** @param {string} id */
export function rememberInput(id) {
  try {
    localStorage.setItem(OWN, JSON.stringify([...ownInputs().filter((other) => other !== id), id].slice(-16)));
  } catch {
    // A browser may refuse storage; the picture is then gone after a reload.
  }
}

