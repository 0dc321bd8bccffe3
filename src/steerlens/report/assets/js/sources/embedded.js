/** The source of a self-contained page: data in script elements of the page itself. */

/** @import { InputData, InputName, Source } from "../types" */

/** @returns {Source} */
export function embeddedSource() {
  const meta = read("steerlens-meta");
  const inputNow = (/** @type {string} */ id) => {
    const index = meta.pictures.findIndex((/** @type {InputName} */ picture) => picture.id === id);
    return withSafeKeys(read(`steerlens-picture-${index}`));
  };
  return {
    kind: "embedded",
    meta: () => Promise.resolve(meta),
    inputNow,
    input: (id) => Promise.resolve(inputNow(id)),
    attention: (data) => Promise.resolve(unpacked(data.attention)),
  };
}

/** @param {string} id */
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");

/**
 * Site names come from addresses too: none may name what every object inherits.
 * @param {InputData} data
 * @returns {InputData}
 */
export function withSafeKeys(data) {
  return { ...data, sites: Object.assign(Object.create(null), data.sites) };
}

/** @param {string | null} base64 */
export function unpacked(base64) {
  if (!base64) return null;
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return new DataView(bytes.buffer);
}
