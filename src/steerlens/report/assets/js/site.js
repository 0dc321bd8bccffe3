/** The script of a page of a published site. */

import { startPage } from "./core/page.js";
import { SECTIONS } from "./sections/index.js";
import { filesSource } from "./sources/files.js";

void startPage(filesSource(), SECTIONS);
