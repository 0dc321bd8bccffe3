/**
 * Addresses: the whole view as the part of a URL after `#`, and back.
 *
 *     #/run/4f1c20aa/input/cat/head/L7H3?rho=1&seed=0
 *     #/input/cat/site/mlp_out.5?map=write
 *
 * Reports of version 0.1.0 wrote `#picture=ID&site=head.7.3&map=write`, which is still read. An address may come from
 * anywhere: what it names is looked up, never trusted.
 */

/** @import { Meta, View } from "../types" */

const HEAD = /^L(\d{1,9})H(\d{1,9})$/i;

const TEXT = { read: (/** @type {string} */ text) => text || null, write: (/** @type {string | null} */ value) => value };

/** Parts of the query: the key of the view, how it is read from a text, and how it is written (null: left out). */
const FIELDS = /** @type {const} */ ({
  map: { read: (/** @type {string} */ text) => text, write: (/** @type {string | null} */ value) => value },
  show: {
    read: (/** @type {string} */ text) => (text === "pictures" ? "pictures" : "colours"),
    write: (/** @type {string} */ value) => (value === "colours" ? null : value),
  },
  scale: {
    read: (/** @type {string} */ text) => (text === "values" ? text : null),
    write: (/** @type {string | null} */ value) => value,
  },
  seed: {
    read: (/** @type {string} */ text) => (/^\d{1,15}$/.test(text) ? Number(text) : null),
    write: (/** @type {number | null} */ value) => (value === null ? null : String(value)),
  },
  target: TEXT,
  model: TEXT,
  lens: TEXT,
  group: TEXT,
  patches: TEXT,
  without: TEXT,
  steps: TEXT,
  guidance: TEXT,
  list: TEXT,
  control: TEXT,
});

/**
 * Reads an address; null if it is the anchor of an element on the page, and not a view.
 * @param {string} hash with or without its `#`
 * @param {Meta} meta
 * @returns {Partial<View> | null}
 */
export function readAddress(hash, meta) {
  const text = hash.replace(/^#/, "");
  if (text.startsWith("/")) return readPath(text, meta);
  return text === "" ? {} : text.includes("=") ? readOld(text, meta) : null;
}

/**
 * Writes the view as an address, `#/...`; empty for the view with which a page opens.
 * @param {Readonly<View>} view
 * @param {Meta} meta
 */
export function writeAddress(view, meta) {
  /** @type {string[]} */
  const path = [];
  if (view.input !== null && meta.pictures.length > 1) path.push("input", inputName(view.input, meta));
  if (view.component !== null) path.push(...componentPath(view.component));
  const query = new URLSearchParams();
  const strength = view.strength ?? meta.strength;
  const chosen = view.component !== null || view.strength !== null;
  if (chosen) query.set(...pair(strength));
  for (const [key, { write }] of Object.entries(FIELDS)) {
    const value = /** @type {(value: any) => string | null} */ (write)(view[/** @type {keyof View} */ (key)]);
    if (value !== null) query.set(key, value);
  }
  if (chosen && view.seed === null && meta.seeds.length) query.set("seed", String(meta.seeds[0]));
  for (const pin of view.pins) query.append("pin", pin);
  if (!path.length && !query.size) return "";
  if (meta.run) path.unshift("run", meta.run);
  const parts = path.map(encodeURIComponent).join("/");
  return `#/${parts}${query.size ? `?${readable(query)}` : ""}`;
}

/** @param {URLSearchParams} query */
const readable = (query) => String(query).replaceAll("%3A", ":").replaceAll("%2F", "/");

/**
 * @param {string} strength
 * @returns {[string, string]}
 */
function pair(strength) {
  const at = strength.indexOf("=");
  return [strength.slice(0, at), strength.slice(at + 1)];
}

/**
 * @param {string} text
 * @param {Meta} meta
 */
function readPath(text, meta) {
  const at = text.indexOf("?");
  const query = new URLSearchParams(at < 0 ? "" : text.slice(at + 1));
  const parts = (at < 0 ? text : text.slice(0, at)).split("/").filter(Boolean).map(decoded);
  /** @type {Partial<View>} */
  const view = {};
  for (let i = 0; i + 1 < parts.length; i += 2) {
    const value = parts[i + 1];
    if (parts[i] === "input") view.input = inputId(value, meta);
    else if (parts[i] === "head" || parts[i] === "site") view.component = componentOf(value);
  }
  for (const name of ["rho", "s"]) {
    const value = query.get(name);
    if (value !== null && value.trim() !== "" && Number.isFinite(Number(value))) view.strength = `${name}=${value.trim()}`;
  }
  // The page writes the run's own strength and seed, so that the address says what it shows; they are no choice.
  if (view.strength === meta.strength) delete view.strength;
  for (const [key, { read }] of Object.entries(FIELDS)) {
    const value = query.get(key);
    if (value !== null) Object.assign(view, { [key]: read(value) });
  }
  if (view.seed === meta.seeds[0]) delete view.seed;
  if (query.has("pin")) view.pins = query.getAll("pin");
  return view;
}

/**
 * @param {string} text
 * @param {Meta} meta
 */
function readOld(text, meta) {
  const query = new URLSearchParams(text);
  /** @type {Partial<View>} */
  const view = {};
  const [input, site, map] = [query.get("picture"), query.get("site"), query.get("map")];
  if (input) view.input = inputId(input, meta);
  if (site) view.component = site;
  if (map) view.map = map;
  return view;
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/**
 * The name of an input, or its id if several have the name.
 * @param {string} id
 * @param {Meta} meta
 */
function inputName(id, meta) {
  const name = meta.pictures.find((picture) => picture.id === id)?.name;
  return name && meta.pictures.filter((picture) => picture.name === name || picture.id === name).length === 1 ? name : id;
}

/**
 * @param {string} text name or id
 * @param {Meta} meta
 */
function inputId(text, meta) {
  const named = meta.pictures.find((picture) => picture.id === text) ?? meta.pictures.find((picture) => picture.name === text);
  return named?.id ?? null;
}

/**
 * The input that an address names, if the page has none of that name; else empty.
 * @param {string} hash
 * @param {Meta} meta
 */
export function missingInput(hash, meta) {
  const named = /\/input\/([^/?]+)/.exec(hash.replace(/\?.*$/, ""));
  const text = named ? decoded(named[1]) : "";
  return inputId(text, meta) === null ? text : "";
}

/** @param {string} component */
function componentPath(component) {
  const [kind, layer, head] = component.split(".");
  return kind === "head" && head !== undefined ? ["head", `L${layer}H${head}`] : ["site", component];
}

/** @param {string} text */
function componentOf(text) {
  const head = HEAD.exec(text);
  return head ? `head.${Number(head[1])}.${Number(head[2])}` : text;
}
