import assert from "node:assert/strict";
import { test } from "node:test";
import { createStore } from "../../src/steerlens/report/assets/js/core/store.js";

test("watchers hear of changes of their keys alone, once for each change", () => {
  const store = createStore();
  const heard = [];
  const stop = store.watch(["input", "map"], (view, history) => heard.push([view.input, view.map, history]));
  store.set({ component: "head.0.0" });
  store.set({ input: "a", map: "write" }, "replace");
  store.set({ input: "a" });
  stop();
  store.set({ input: "b" });
  assert.deepEqual(heard, [["a", "write", "replace"]]);
});

test("equal lists are no change, and the view cannot be changed past the store", () => {
  const store = createStore({ pins: ["x"] });
  let heard = 0;
  store.watch(["pins"], () => (heard += 1));
  store.set({ pins: ["x"] });
  assert.equal(heard, 0);
  store.set({ pins: ["x", "y"] });
  assert.equal(heard, 1);
  assert.throws(() => (store.view.input = "b"), TypeError);
});

test("a watcher may set the view: those that follow see the newest", () => {
  const store = createStore();
  const seen = [];
  store.watch(["input"], () => store.set({ component: null, seed: 3 }));
  store.watch(["input"], (view) => seen.push(view.seed));
  store.set({ input: "a" });
  assert.deepEqual(seen, [3]);
});
