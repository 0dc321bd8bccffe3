/** The script of the explorer: the page of a report, whose data come from the server, and its live parts. */

import { startPage, tell } from "../../../report/assets/js/core/page.js";
import { SECTIONS } from "../../../report/assets/js/sections/index.js";
import { switcher } from "../../../report/assets/js/sections/switcher.js";
import { ablation } from "./ablation.js";
import { bench } from "./bench.js";
import { clean } from "./clean.js";
import { headAblations } from "./head-ablations.js";
import { inputs } from "./inputs.js";
import { pins } from "./pins.js";
import { liveSource } from "./source.js";
import { target } from "./target.js";
import { tools } from "./tools.js";
import { unitList } from "./unit-list.js";
import { writes } from "./writes.js";

/** @import { Page, Renderer } from "../../../report/assets/js/types" */

/**
 * A renderer for an empty place of the page.
 * @param {string} name
 * @param {(page: Page, place: HTMLElement) => void} draw
 * @returns {Renderer}
 */
const inSlot = (name, draw) => (page) => draw(page, /** @type {HTMLElement} */ (document.querySelector(`[data-slot="${name}"]`)));

/** @type {Renderer[]} */
const LIVE = [
  inSlot("input", inputs), inSlot("controls", target), writes, headAblations, inSlot("controls", tools), inSlot("after-map", ablation), inSlot("after-map", pins),
  inSlot("after-map", unitList), bench, clean,
];

document.documentElement.classList.add("live");
startPage(liveSource(), [...SECTIONS.filter((section) => section !== switcher), ...LIVE])
  .catch((error) => tell(String(error.message ?? error)));
