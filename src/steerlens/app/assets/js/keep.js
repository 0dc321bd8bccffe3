/** Keeping what is on view: as a pin, as a run on disk, as a command, as Python code. */

import { el } from "../../../report/assets/js/core/elements.js";
import { addKeys } from "../../../report/assets/js/sections/keys.js";
import { Latest, postJson, streamed } from "./api.js";
import { liveOf, pinOf, serverView, viewOf } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */

const MOST_PINS = 8;

/** @param {Page} page */
export function keepButtons(page) {
  const said = el("p", { class: "small kept", id: "kept", role: "status" });
  const text = el("textarea", { class: "copied", id: "copied", rows: 4, readonly: true, hidden: true, "aria-label": "What was copied" });
  const saving = new Latest();
  const view = () => serverView(page.meta, page.store.view, page.data.id, page.component);

  /** @param {string} code */
  const show = (code) => {
    text.value = code;
    text.rows = Math.min(Math.max(4, code.split("\n").length), 16);
    text.hidden = false;
  };

  /** @param {"command" | "python"} form */
  const copy = async (form) => {
    try {
      const recipe = await postJson("/api/recipe", view(), { slot: "recipe" });
      show(recipe[form]);
      const copied = await navigator.clipboard?.writeText(recipe[form]).then(() => true, () => false);
      if (!copied) text.select();
      said.textContent = `${copied ? "Copied." : "Press Ctrl+C to copy."} ${recipe.note}`;
    } catch (error) {
      said.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  const save = () => {
    const views = [view(), ...page.store.view.pins.map((pin) => {
      const pinned = viewOf(pin, page.meta);
      return serverView(page.meta, pinned, pinned.input ?? page.data.id, pinned.component);
    })];
    /** @type {string[]} */
    const folders = [];
    said.textContent = "Saving …";
    return streamed("/api/save", { views }, {
      saved: ({ folder, command }) => { folders.push(folder); show(command); said.textContent = `Saved in ${folders.join(", ")}.`; },
      error: ({ message }) => { said.textContent = message; },
    }, { signal: saving.next(), slot: "save" });
  };
  const pin = () => {
    const { pins } = page.store.view;
    const address = pinOf(page);
    if (pins.includes(address)) said.textContent = "This view is pinned already.";
    else if (pins.length >= MOST_PINS) said.textContent = `${MOST_PINS} views are pinned, the most there can be: remove one first.`;
    else {
      page.store.set({ pins: [...pins, address] });
      said.textContent = `Pinned, ${pins.length + 1} of ${MOST_PINS} at most: “Side by side” under the map shows them.`;
    }
  };
  addKeys(page, [["+", "Pin what is on view", pin]]);
  const button = (/** @type {string} */ id, /** @type {string} */ name, /** @type {() => unknown} */ act) => el("button", { type: "button", id, onclick: act }, name);
  return el("div", { class: "keep" },
    el("div", { class: "keep-buttons" }, button("pin", "Pin", pin), liveOf(page).writes ? button("save", "Save as run", save) : null,
      button("copy-command", "Copy as command", () => copy("command")), button("copy-python", "Copy as Python", () => copy("python"))),
    said, text);
}

