/** The citation: how to cite the software, the method and this very view. */

import { byId } from "../core/elements.js";

/** @import { Page } from "../types" */

/** @param {Page} page */
export function citation(page) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("cite"));
  const text = byId("cite-text");
  const entries = text.textContent ?? "";
  byId("cite-open").addEventListener("click", () => {
    text.textContent = `${entries.trimEnd()}\n${online(page)}`;
    byId("cite-said").textContent = "";
    dialog.showModal();
  });
  byId("cite-copy").addEventListener("click", () => void copy(text));
}

/**
 * The address of this view, for pages that others can open.
 * @param {Page} page
 */
function online(page) {
  if (page.source.kind !== "files" || !location.protocol.startsWith("http")) return "";
  const title = document.title.replace(/[{}\\]/g, "").replace(/ · steerlens$/, "");
  const day = new Date().toISOString().slice(0, 10);
  return `\n@misc{steerlensview,\n  title        = {{${title}}},\n  howpublished = {\\url{${location.href}}},\n  note         = {accessed ${day}}\n}\n`;
}

/** @param {HTMLElement} text */
async function copy(text) {
  const said = byId("cite-said");
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    said.textContent = "Copied.";
  } catch {
    // Pages opened from a file may not write to the clipboard.
    getSelection()?.selectAllChildren(text);
    said.textContent = "Selected: copy it with the keyboard.";
  }
}
