import assert from "node:assert/strict";
import { test } from "node:test";
import { siteOf } from "../../src/steerlens/report/assets/js/core/sites.js";
import { availableModes, modeOf, MODES } from "../../src/steerlens/report/assets/js/sections/modes.js";
import { dataOf, metaOf } from "./fixtures.js";

const score = (similarity, control = null) => ({ similarity, control, beats: control === null ? null : similarity > control });

test("a map offers what the input has values for", () => {
  const data = dataOf();
  const page = { data, meta: metaOf() };
  assert.deepEqual(availableModes(page), ["write", "direct"]);
  data.sites["head.1.1"] = { label: "L1H1", kind: "head", layer: 1, head: 1, labels: [], steering: score(0.7, 0.5) };
  assert.deepEqual(availableModes(page), ["steering", "margin", "write", "direct"]);
  data.undecoded = Array(12).fill(0.4);
  assert.ok(availableModes(page).includes("undecoded"));
  assert.equal(MODES.margin.value(page, data.sites["head.1.1"], 4).toFixed(2), "0.20");
});

test("the address chooses a mode only if the input has it", () => {
  const page = (map, selection = false) => ({ store: { view: { map } }, meta: metaOf({ selection }) });
  const available = ["steering", "undecoded", "write"];
  assert.equal(modeOf(page("write"), available), "write");
  assert.equal(modeOf(page("__proto__"), available), "steering");
  assert.equal(modeOf(page(null, true), available), "undecoded", "where few heads were decoded, the map shows all");
});

test("heads the run did not look at are sites too; those the model lacks are not", () => {
  const [data, meta] = [dataOf(), metaOf()];
  assert.equal(siteOf(data, meta, "head.3.2").label, "L3H2");
  for (const key of ["head.4.0", "head.0.3", "constructor", "__proto__", "head.1", "mlp_out.1"]) assert.equal(siteOf(data, meta, key), null);
});
