/** Sections of the static page, in their order. */

import { best } from "./best.js";
import { citation } from "./citation.js";
import { components } from "./components.js";
import { detail } from "./detail.js";
import { effects } from "./effects.js";
import { keys } from "./keys.js";
import { labels } from "./labels.js";
import { layers } from "./layers.js";
import { map } from "./map.js";
import { opening } from "./opening.js";
import { printing } from "./printing.js";
import { switcher } from "./switcher.js";
import { title } from "./title.js";
import { units } from "./units.js";

/** @import { Renderer } from "../types" */

/** @type {Renderer[]} */
export const SECTIONS = [switcher, opening, layers, map, best, units, effects, components, labels, detail, title, keys, citation, printing];
