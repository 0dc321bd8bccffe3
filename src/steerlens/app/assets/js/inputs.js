/** Input pictures: dropped, pasted, chosen, or taken by the camera, and the switch between them. */

import { byId, el } from "../../../report/assets/js/core/elements.js";
import { postFile } from "./api.js";
import { camera } from "./camera.js";
import { rememberInput } from "./source.js";
import { liveOf } from "./view.js";

/** @import { Page } from "../../../report/assets/js/types" */
/** @import { LiveData } from "./types" */

const MOST_FILES = 16;

/** @param {Page} page @param {HTMLElement} place */
export function inputs(page, place) {
  const said = el("p", { class: "small", id: "input-said", role: "status" });
  const file = el("input", { type: "file", accept: "image/*", multiple: true, id: "choose-file", class: "sr" });
  const warning = el("p", { class: "notice", id: "outside", hidden: true });
  const hint = el("span", { class: "quiet small" }, "or drop or paste them anywhere on this page");
  const box = el("div", { class: "adding" }, file, el("label", { for: "choose-file", class: "button" }, "Choose pictures"),
    camera((blob) => send([new File([blob], "camera.png", { type: "image/png" })])), hint);
  place.append(box, said, warning);

  /** @type {string | null} */
  let about = null;
  /** @param {string} text @param {boolean} [failed] */
  const tell = (text, failed = false) => {
    said.textContent = text;
    said.classList.toggle("failed", failed);
  };

  /** @param {File[]} files */
  async function send(files) {
    const pictures = files.filter((one) => one.type.startsWith("image/") || one.type === "").slice(0, MOST_FILES);
    /** @type {string[]} */
    const refused = files.filter((one) => one.type && !one.type.startsWith("image/")).map(({ name }) => `${name} is not a picture.`);
    if (files.length - refused.length > MOST_FILES) refused.push(`Only the first ${MOST_FILES} pictures were taken.`);
    let [last, note] = /** @type {[string | null, string]} */ ([null, ""]);
    for (const one of pictures) {
      const most = liveOf(page).uploadBytes;
      if (one.size > most) {
        refused.push(`${one.name} is ${(one.size / 1e6).toFixed(1)} MB; the limit is ${most / 1e6} MB.`);
        continue;
      }
      tell(`Sending ${one.name} …`);
      try {
        const sent = await postFile(`/api/inputs?${new URLSearchParams({ name: one.name.slice(-200) || "pasted.png" })}`, one);
        if (!page.meta.pictures.some(({ id }) => id === sent.id)) page.meta.pictures.push({ id: sent.id, name: sent.name });
        rememberInput(sent.id);
        last = sent.id;
        note = sent.note ? `${sent.name}: ${sent.note}.` : "";
      } catch (error) {
        refused.push(`${one.name}: ${error instanceof Error ? error.message : error}`);
      }
    }
    tell(refused.join(" ") || note, refused.length > 0);
    drawSwitcher(page);
    if (last !== null) page.store.set({ input: last, patches: null });
    about = last ?? page.data.id;
  }

  file.addEventListener("change", () => {
    void send([...(file.files ?? [])]).then(() => { file.value = ""; });
  });
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) {
      event.preventDefault();
      void send(files);
    }
  });
  for (const kind of ["dragover", "drop"])
    document.addEventListener(kind, (event) => {
      const { dataTransfer } = /** @type {DragEvent} */ (event);
      if (!dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop") void send([...dataTransfer.files]);
    });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });

  page.draw(["data"], () => {
    drawSwitcher(page);
    // What was said of one picture does not stay beside another.
    if (about !== null && about !== page.data.id && page.store.view.input !== about) {
      about = null;
      tell("");
    }
    const { outside } = /** @type {LiveData} */ (page.data);
    warning.hidden = !outside;
    warning.textContent = outside ? `This picture is unlike those the decoder was trained on: ${outside}` : "";
  });
}

/** @param {Page} page */
function drawSwitcher({ meta, data, store }) {
  const box = byId("switcher");
  box.hidden = meta.pictures.length < 2;
  const focused = document.activeElement instanceof HTMLElement && box.contains(document.activeElement) ? document.activeElement.dataset.input : null;
  box.replaceChildren(...meta.pictures.map(({ id, name }) =>
    el("button", { type: "button", "data-input": id, "aria-pressed": String(id === data.id), onclick: () => store.set({ input: id, patches: null }) }, name)));
  if (focused) /** @type {HTMLElement | null} */ (box.querySelector(`[data-input="${focused}"]`))?.focus();
}
