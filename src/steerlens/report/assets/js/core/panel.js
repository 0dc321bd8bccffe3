/** The panel of the chosen component, as a place: on a narrow page it is a sheet over the page. */

import { byId } from "./elements.js";

/**
 * Gives the panel the focus and keeps what was chosen in sight above it.
 * @param {string} component
 */
export function focusPanel(component) {
  const panel = byId("detail");
  panel.focus({ preventScroll: true });
  const nodes = [...document.querySelectorAll(`main [data-site="${CSS.escape(component)}"]`)];
  const chosen = nodes.map((node) => node.getBoundingClientRect()).find((box) => box.bottom > 0);
  const covered = chosen ? chosen.bottom + 12 - panel.getBoundingClientRect().top : 0;
  if (covered > 0 && covered < window.innerHeight) window.scrollBy(0, covered);
}
