/** The address bar: follows the store, and the store follows Back, Forward and links. */

import { readAddress, writeAddress } from "./address.js";
import { START } from "./store.js";

/** @import { Meta, Store, View } from "../types" */

/**
 * @param {Store} store
 * @param {Meta} meta
 */
export function followAddress(store, meta) {
  const read = () => {
    const view = readAddress(location.hash, meta);
    if (view) store.set({ ...START, input: inputOfPath(location.pathname, meta), ...view }, "none");
  };
  read();
  // A change of the fragment by hand or by a link fires this too.
  window.addEventListener("popstate", read);
  store.watch(/** @type {(keyof View)[]} */ (Object.keys(START)), (view, how) => {
    if (how === "none") return;
    // The page of an input needs no address to show it.
    const bare = Boolean(meta.pictures[0].page) && writeAddress({ ...view, input: null }, meta) === "";
    const hash = bare ? "" : writeAddress(view, meta);
    const page = pathOf(view.input, meta);
    if (hash === location.hash && page === null) return;
    const address = `${page ?? location.pathname + location.search}${hash}`;
    try {
      if (how === "push") history.pushState(null, "", address);
      else history.replaceState(null, "", address);
    } catch {
      // A page inside a notebook has no address of its own: nothing to keep.
    }
  });
}

/**
 * The input whose own page this is, on a site that has a page for each; null for the first.
 * @param {string} path
 * @param {Meta} meta
 */
export function inputOfPath(path, meta) {
  const name = path.slice(path.lastIndexOf("/") + 1);
  // Some servers show pages without their suffix.
  const known = meta.pictures.find((picture) => picture.page && (picture.page === name || picture.page === `${name}.html`));
  return known?.id ?? null;
}

/**
 * The page of an input, on a site that has a page for each; null elsewhere, and where it is the page already.
 * @param {string | null} input
 * @param {Meta} meta
 */
function pathOf(input, meta) {
  const picture = meta.pictures.find(({ id }) => id === (input ?? meta.pictures[0]?.id));
  if (!picture?.page || (inputOfPath(location.pathname, meta) ?? meta.pictures[0].id) === picture.id) return null;
  return picture.page;
}
