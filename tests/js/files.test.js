import assert from "node:assert/strict";
import { test } from "node:test";
import { completed } from "../../src/steerlens/report/assets/js/sources/files.js";
import { dataOf } from "./fixtures.js";

test("data of a file is completed: pictures get their place, and scores what is not known", () => {
  const steering = { similarity: 0.5, pictures: [{ src: "12.webp", seed: 0, draw: 0 }] };
  const stored = {
    ...dataOf(), input: "input.webp", view: "view.webp", attention: "a cat.attention", units: [{ key: "x", activation: null }],
    clean: [{ src: null, seed: 0, draw: 0, similarity: null, fidelity: 1 }],
    sites: { "head.1.1": { label: "L1H1", kind: "head", layer: 1, head: 1, steering }, __proto__: { label: "odd" } },
  };
  const data = completed(stored, "a%20cat");
  assert.equal(data.input, "pictures/a%20cat/input.webp");
  assert.equal(data.attention, "data/a%20cat.attention");
  const score = data.sites["head.1.1"].steering;
  assert.equal(score.pictures[0].src, "pictures/a%20cat/12.webp");
  assert.deepEqual([score.control, score.beats, score.controls, score.pictures[0].fidelity], [null, null, [], null]);
  assert.deepEqual(data.sites["head.1.1"].labels, []);
  assert.equal(data.clean[0].src, null);
  assert.equal(data.units[0].activation, null, "what is not of sites stays as it was");
  assert.equal(Object.getPrototypeOf(data.sites), null);
});
