/** Data of a small run, as `page_meta` and `picture_data` write it. */

/** @import { InputData, Meta } from "../../src/steerlens/report/assets/js/types" */

/**
 * @param {Partial<Meta>} [other]
 * @returns {Meta}
 */
export const metaOf = (other = {}) => ({
  run: null, layers: 4, heads: 3, grid: [2, 2], firstPatch: 1, tokens: 5,
  lenses: { diffusion: "Diffusion Lens", steering: "Diffusion Steering Lens" },
  words: { first: "0", seed: "seed" }, strength: "rho=1", seeds: [0, 7], strong: 0.95, selection: false, k: 6,
  sequential: ["#000000", "#ffffff"], diverging: ["#000000", "#ffffff"], scales: { similarity: [0, 1] },
  pictures: [{ id: "aa11", name: "cat" }, { id: "bb22", name: "a boat/1" }, { id: "cc33", name: "twin" }, { id: "dd44", name: "twin" }],
  ...other,
});

/** @returns {InputData} */
export const dataOf = () => ({
  id: "aa11", name: "cat", note: "", size: [8, 8], input: "data:", view: "data:", seen: null, target: "the input itself",
  targetSimilarity: 1, sentences: [], counts: null, clean: [], sites: Object.create(null), top: {}, layerLabels: [], embedLabels: [],
  writeNorms: Array(12).fill(0.1), direct: Array(12).fill(0), undecoded: null, attention: null, leftOut: 0,
});
