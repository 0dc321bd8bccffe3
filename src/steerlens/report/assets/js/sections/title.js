/** The title of the window: what is on view, so that bookmarks and the history tell views apart. */

/** @import { Page } from "../types" */
import { siteOf } from "../core/sites.js";

/** @param {Page} page */
export function title(page) {
  const start = document.title;
  page.draw(["data", "component"], () => {
    const { data, meta, store } = page;
    const chosen = store.view.component === null ? null : siteOf(data, meta, store.view.component);
    const named = chosen ? `${data.name}, ${chosen.label}` : data.name;
    document.title = chosen || store.view.input !== null ? `${named} · steerlens` : start;
  });
}
