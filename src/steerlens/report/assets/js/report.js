/** The script of a self-contained report. */

import { startPage } from "./core/page.js";
import { SECTIONS } from "./sections/index.js";
import { embeddedSource } from "./sources/embedded.js";

void startPage(embeddedSource(), SECTIONS);
