import assert from "node:assert/strict";
import { test } from "node:test";
import { missingInput, readAddress, writeAddress } from "../../src/steerlens/report/assets/js/core/address.js";
import { START } from "../../src/steerlens/report/assets/js/core/store.js";
import { metaOf } from "./fixtures.js";

const meta = metaOf();
const view = (change) => ({ ...START, ...change });

test("an address states the whole view, and is read back", () => {
  const views = [
    {},
    { input: "aa11", component: "head.3.1" },
    { input: "bb22", component: "mlp_out.2", map: "write" },
    { input: "dd44", component: "vector.smile-b", strength: "s=-2.5", seed: 7, show: "pictures" },
    { input: "aa11", target: "a text: “ü” & more? #1/2", pins: ["/input/cat/head/L1H1?rho=2", "/head/L0H0"] },
  ];
  for (const change of views) {
    const address = writeAddress(view(change), meta);
    assert.deepEqual(view(readAddress(address, meta)), view(change), address);
  }
});

test("the form of an address", () => {
  const named = metaOf({ run: "4f1c" });
  assert.equal(writeAddress(view({ input: "aa11", component: "head.3.1" }), named), "#/run/4f1c/input/cat/head/L3H1?rho=1&seed=0");
  assert.equal(writeAddress(view({ input: "bb22", map: "write" }), meta), "#/input/a%20boat%2F1?map=write");
  assert.equal(writeAddress(view({}), named), "", "the view with which a page opens has no address of its own");
});

test("inputs of the same name are told apart by their ids", () => {
  assert.equal(writeAddress(view({ input: "dd44" }), meta), "#/input/dd44");
});

test("addresses of version 0.1.0 open as before", () => {
  assert.deepEqual(readAddress("#picture=bb22&site=head.2.1&map=margin", meta), { input: "bb22", component: "head.2.1", map: "margin" });
});

test("anchors of the page are no views", () => {
  assert.equal(readAddress("#map", meta), null);
  assert.deepEqual(readAddress("", meta), {});
});

test("odd addresses are read without harm", () => {
  for (const odd of ["#/", "#/input", "#/input/%%%/head/L1", "#/head/LxH1?rho=abc&seed=-1&s=", "#/site/__proto__?map=constructor", "#%%%=", "#/?&&=&pin"])
    assert.ok(readAddress(odd, meta), odd);
  assert.equal(readAddress("#/input/nobody", meta).input, null);
  assert.equal(missingInput("#/run/x/input/no%20body/head/L1H1?rho=1", meta), "no body");
  for (const hash of [`#/input/${meta.pictures[0].id}`, `#/input/${encodeURIComponent(meta.pictures[0].name)}?rho=1`, "#/head/L1H1?target=/input/x", ""])
    assert.equal(missingInput(hash, meta), "");
  assert.equal(readAddress("#/head/L1H1?rho=abc", meta).strength, undefined);
  assert.equal(readAddress("#/head/L1H1?seed=1e9", meta).seed, null);
});
