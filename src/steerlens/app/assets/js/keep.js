/** Keeping what is on view: as a pin, as a run on disk, as a command, as Python code. */

import { el } from "../../../report/assets/js/core/elements.js";
import { addKeys } from "../../../report/assets/js/sections/keys.js";
import { Latest, postJson, streamed } from "./api.js";
import { liveOf, pinOf, serverView, viewOf } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { ServerView } from "./types" */

const MOST_PINS = 8;

/**
 * What is kept of a part of the page.
 * @typedef {object} Keeping
 * @property {() => ServerView} view what is copied
 * @property {() => ServerView[]} saved what is saved
 * @property {string} ids beginning of the ids of its elements
 * @property {HTMLElement[]} [more] further buttons, which come first
 */

/**
 * Buttons that save views and copy one, and what they say. It goes when the view changes: it is of no other.
 * @param {Page} page
 * @param {Keeping} keeping
 */
export function keep(page, { view, saved, ids, more = [] }) {
  const said = el("p", { class: "small kept", id: `${ids}kept`, role: "status" });
  const text = el("textarea", { class: "copied", id: `${ids}copied`, rows: 4, readonly: true, hidden: true, "aria-label": "What was copied" });
  const saving = new Latest();
  let shown = "";

  /** @param {string} code */
  const show = (code) => {
    text.value = code;
    text.rows = Math.min(Math.max(4, code.split("\n").length), 16);
    text.hidden = false;
  };

  /** @param {"command" | "python"} form */
  const copy = async (form) => {
    try {
      const recipe = await postJson("/api/recipe", view(), { slot: `${ids}recipe` });
      show(recipe[form]);
      const copied = await navigator.clipboard?.writeText(recipe[form]).then(() => true, () => false);
      if (!copied) text.select();
      said.textContent = `${copied ? "Copied." : "Press Ctrl+C to copy."} ${recipe.note}`;
    } catch (error) {
      said.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  const save = () => {
    /** @type {string[]} */
    const folders = [];
    said.textContent = "Saving …";
    return streamed("/api/save", { views: saved() }, {
      saved: ({ folder, command }) => { folders.push(folder); show(command); said.textContent = `Saved in ${folders.join(", ")}.`; },
      error: ({ message }) => { said.textContent = message; },
    }, { signal: saving.next(), slot: `${ids}save` });
  };
  page.draw(["data", "component", "strength", "seed", "lens", "group", "patches", "steps", "guidance", "target", "without"], () => {
    const now = JSON.stringify(view());
    if (now === shown) return;
    shown = now;
    text.hidden = true;
    said.textContent = "";
  });
  const buttons = el("div", { class: "keep-buttons" }, ...more, liveOf(page).writes ? button(`${ids}save`, "Save as run", save) : null,
    button(`${ids}copy-command`, "Copy as command", () => copy("command")), button(`${ids}copy-python`, "Copy as Python", () => copy("python")));
  return { box: el("div", { class: "keep" }, buttons, said, text), said };
}

/** @param {string} id @param {string} name @param {() => unknown} act */
const button = (id, name, act) => el("button", { type: "button", id, onclick: act }, name);

/**
 * Keeps the picture on view, and pins it.
 * @param {Page} page
 */
export function keepButtons(page) {
  const view = () => serverView(page.meta, page.store.view, page.data.id, page.component);
  const saved = () => [view(), ...page.store.view.pins.map((pin) => {
    const pinned = viewOf(pin, page.meta);
    return serverView(page.meta, pinned, pinned.input ?? page.data.id, pinned.component);
  })];
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
  const { box, said } = keep(page, { view, saved, ids: "", more: [button("pin", "Pin", pin)] });
  addKeys(page, [["+", "Pin what is on view", pin]]);
  return box;
}
