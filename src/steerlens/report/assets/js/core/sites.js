/** Sites of an input: looking them up, and what their scores say. */

/** @import { Cell, InputData, Lens, Meta, Page, Score, Site } from "../types" */

/**
 * @param {number} layer
 * @param {number} head
 */
export const headKey = (layer, head) => `head.${layer}.${head}`;

/**
 * A feature or neuron of an open model that is not in the data; null if it has none of that name.
 * @param {Meta} meta
 * @param {string} key
 * @returns {Site | null}
 */
function openUnit({ openUnits }, key) {
  const neuron = /^neuron\.(\d{1,9})\.(\d{1,9})$/.exec(key);
  const feature = /^feature\.(.+)\.(\d{1,9})$/.exec(key);
  const rest = /^(error|bias)\.(.+)$/.exec(key);
  const name = feature?.[1] ?? rest?.[2] ?? "";
  if (!openUnits) return null;
  const unit = (/** @type {string} */ label, /** @type {string} */ kind, layer = -1) => ({ label, kind, layer, head: -1, labels: [] });
  if (neuron) return Number(neuron[2]) < (openUnits.neurons[Number(neuron[1])] ?? 0) ? unit(`L${neuron[1]}N${neuron[2]}`, "neuron", Number(neuron[1])) : null;
  if (!Object.hasOwn(openUnits.features, name)) return null;
  if (feature) return Number(feature[2]) < openUnits.features[name] ? unit(`${name} ${feature[2]}`, "feature") : null;
  return rest ? unit(`${name} ${rest[1]}`, rest[1]) : null;
}

/**
 * The site of a key: from the data, or a head or open unit that the run did not look at; null if there is none.
 * @param {InputData} data
 * @param {Meta} meta
 * @param {string} key
 * @returns {Site | null}
 */
export function siteOf(data, meta, key) {
  if (data.sites[key]) return data.sites[key];
  const match = /^head\.(\d{1,9})\.(\d{1,9})$/.exec(key);
  if (!match) return openUnit(meta, key);
  const [layer, head] = [Number(match[1]), Number(match[2])];
  if (layer >= meta.layers || head >= meta.heads) return null;
  return { label: `L${layer}H${head}`, kind: "head", layer, head, labels: [] };
}

/**
 * Key of the best head of the first lens that ranks heads; before anything was decoded, by its score without decoding.
 * @param {InputData} data
 */
export function bestHead(data) {
  return (data.top.steering || data.top.total || data.top.diffusion || data.ranking || [])[0] ?? headKey(0, 0);
}

/**
 * Key of the component whose panel is open without a choice: the best head, or in a run without heads the first feature.
 * @param {InputData} data
 */
export const bestComponent = (data) => (data.ranking || Object.values(data.top).some((keys) => keys?.length) ? bestHead(data) : data.units?.[0]?.key ?? bestHead(data));

/**
 * The score whose control the marks refer to: the Steering Lens's, or the Total Lens's in a run without it.
 * @param {Meta} meta
 * @param {Site | null | undefined} site
 * @returns {Score | undefined}
 */
export const steeredScore = (meta, site) => (meta.lenses.steering ? site?.steering : site?.total);

/**
 * Lenses of the run, in the order of the page.
 * @param {Meta} meta
 */
export const lensesOf = (meta) => /** @type {Lens[]} */ (Object.keys(meta.lenses));

/**
 * Target of similarities, as worded in a sentence.
 * @param {InputData} data
 */
export const targetWords = (data) => (data.target === "the input itself" ? "the input" : data.target);

/**
 * The picture of the seed on view, or the first if it has none of this seed.
 * @param {Page} page
 * @param {Cell[] | undefined} cells
 * @returns {Cell | undefined}
 */
export const cellOf = (page, cells) => cells?.find((cell) => cell.seed === page.seed) ?? cells?.[0];

/**
 * Number of a seed or neighbour as the page counts it.
 * @param {Meta} meta
 * @param {number} seed
 */
export const seedNumber = (meta, seed) => seed + Number(meta.words.first);
