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
    if (view) store.set({ ...START, ...view }, "none");
  };
  read();
  // A change of the fragment by hand or by a link fires this too.
  window.addEventListener("popstate", read);
  store.watch(/** @type {(keyof View)[]} */ (Object.keys(START)), (view, how) => {
    if (how === "none") return;
    const hash = writeAddress(view, meta);
    if (hash === location.hash) return;
    const address = hash || location.pathname + location.search;
    if (how === "push") history.pushState(null, "", address);
    else history.replaceState(null, "", address);
  });
}
