/** Shares of patches laid over the picture that the encoder saw. */

import { el } from "../core/elements.js";

/** @import { Meta } from "../types" */

/**
 * A dark veil over the whole view, which clears where a share is 1.
 * @param {Meta} meta
 * @param {string} map 16-bit shares of every patch in base64
 */
export function veil(meta, map) {
  const [rows, columns] = meta.grid;
  const bytes = Uint8Array.from(atob(map), (character) => character.charCodeAt(0));
  const values = new DataView(bytes.buffer);
  const canvas = el("canvas", { class: "veil", width: columns, height: rows, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  if (context) {
    const pixels = context.createImageData(columns, rows);
    for (let i = 0; i < rows * columns; i += 1) {
      const share = values.getUint16(2 * i, true) / 65535;
      pixels.data.set([12, 14, 24, Math.round(225 * (1 - share))], 4 * i);
    }
    context.putImageData(pixels, 0, 0);
  }
  return canvas;
}
