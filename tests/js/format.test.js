import assert from "node:assert/strict";
import { test } from "node:test";
import { colour, fixed, ordinal, percent } from "../../src/steerlens/report/assets/js/core/format.js";

test("numbers have a true minus sign and no negative zero", () => {
  assert.deepEqual([fixed(-0.004), fixed(-1.236), fixed(null), fixed(undefined, 1), fixed(0.5, 0)], ["0.00", "−1.24", "–", "–", "1"]);
  assert.deepEqual([percent(0.955), percent(null), percent(0.123, 1)], ["96 %", "–", "12.3 %"]);
});

test("ordinals", () => {
  assert.deepEqual([1, 2, 3, 4, 11, 12, 13, 21, 112, 122].map(ordinal), ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th", "122nd"]);
});

test("colours run along the ramp and stop at its ends", () => {
  const ramp = ["#000000", "#646464", "#ff0000"];
  assert.equal(colour(0.25, [0, 1], ramp), "rgb(50,50,50)");
  assert.equal(colour(-9, [0, 1], ramp), "rgb(0,0,0)");
  assert.equal(colour(9, [0, 1], ramp), "rgb(255,0,0)");
});
