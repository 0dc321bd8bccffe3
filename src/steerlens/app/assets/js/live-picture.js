/** A picture that is replaced as better ones come: its place stays, and the last one stays until the next is there. */

import { el } from "../../../report/assets/js/core/elements.js";

const PIXEL_SIDE = 64;

/** @param {string} id */
export const emptyPicture = (id) =>
  el("div", { class: "live-picture waiting", id }, el("span", { class: "progress", "aria-hidden": "true" }));

/**
 * @param {HTMLElement} box
 * @param {string} src
 * @param {string} alt
 * @param {"preview" | "whole"} quality
 */
export function setPicture(box, src, alt, quality) {
  let image = box.querySelector("img");
  if (!image) {
    image = el("img", { alt });
    box.prepend(image);
    const drawn = image;
    drawn.addEventListener("load", () => drawn.classList.toggle("pixels", Math.max(drawn.naturalWidth, drawn.naturalHeight) <= PIXEL_SIDE));
  }
  image.src = src;
  image.alt = alt;
  box.dataset.quality = quality;
  box.dataset.shown = String(Number(box.dataset.shown ?? 0) + 1);
}
