/** The title of the window: what is on view, so that bookmarks and the history tell views apart. */

/** @import { Page } from "../types" */
import { siteOf } from "../core/sites.js";

/** @param {Page} page */
export function title(page) {
  const start = document.title;
  page.draw(["data", "component"], () => {
    const { data, meta, store } = page;
    const chosen = store.view.component === null ? null : siteOf(data, meta, store.view.component);
    const parts = [meta.pictures.length > 1 || chosen ? data.name : null, chosen?.label];
    document.title = chosen || store.view.input ? `${parts.filter(Boolean).join(", ")} · steerlens` : start;
  });
}
