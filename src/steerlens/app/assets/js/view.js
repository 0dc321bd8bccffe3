/** The view on the page as the server takes it. */

import { readAddress, writeAddress } from "../../../report/assets/js/core/address.js";
import { START } from "../../../report/assets/js/core/store.js";

/** @import { Meta, Page, View } from "../../../report/assets/js/types" */
/** @import { LiveMeta, ServerView } from "./types" */

const TARGET_INPUT = "input:";
const LENSES = ["steering", "diffusion", "total", "control"];

/** @param {Page | { meta: Meta }} page */
export const liveOf = (page) => /** @type {LiveMeta} */ (page.meta).live;

/** @param {string | null} list */
export const listed = (list) => (list ? list.split(",").filter(Boolean) : []);

/**
 * The lens on view. Points of the residual stream are shown by the Diffusion Lens alone.
 * @param {Readonly<View>} view
 * @param {string | null} component
 */
export function lensOf(view, component) {
  if (!view.group && component?.startsWith("resid_")) return "diffusion";
  return view.lens !== null && LENSES.includes(view.lens) ? view.lens : "steering";
}

/**
 * @param {Meta} meta
 * @param {Readonly<View>} view
 * @param {string} input id of the input
 * @param {string | null} component the component, which on a wide page may be on view without a choice
 * @returns {ServerView}
 */
export function serverView(meta, view, input, component) {
  const members = listed(view.group);
  return {
    ...common(meta, view, input),
    ...(members.length ? { members } : component === null ? {} : { site: component }),
    ...(view.patches ? { patches: listed(view.patches).map(Number) } : {}),
    lens: lensOf(view, component),
  };
}

/**
 * The view of what is left when sites are taken out.
 * @param {Meta} meta
 * @param {Readonly<View>} view
 * @param {string} input
 * @returns {ServerView}
 */
export const ablatedView = (meta, view, input) => ({ ...common(meta, view, input), members: listed(view.without) });

/**
 * The view of the clean reconstruction.
 * @param {Meta} meta
 * @param {Readonly<View>} view
 * @param {string} input
 * @returns {ServerView}
 */
export const cleanView = (meta, view, input) => ({ ...common(meta, view, input), lens: "diffusion" });

/**
 * What all views of an input share.
 * @param {Meta} meta
 * @param {Readonly<View>} view
 * @param {string} input
 * @returns {ServerView}
 */
export function common(meta, view, input) {
  const steps = Number(view.steps);
  const guidance = Number(view.guidance);
  return {
    input,
    ...(view.model ? { model: view.model } : {}),
    strength: view.strength ?? meta.strength,
    seed: view.seed ?? meta.seeds[0] ?? 0,
    ...(view.steps && Number.isInteger(steps) ? { steps } : {}),
    ...(view.guidance && Number.isFinite(guidance) ? { guidance } : {}),
    ...targetOf(view, input),
  };
}

/**
 * @param {Readonly<View>} view
 * @param {string} input
 * @returns {{ target?: string, target_input?: string }}
 */
export function targetOf({ target }, input) {
  if (!target) return {};
  return target.startsWith(TARGET_INPUT) ? { target_input: target.slice(TARGET_INPUT.length) || input } : { target };
}

/** The target of a view whose inputs are compared with themselves, where a run compares them with something else. */
export const ITSELF = TARGET_INPUT;

/**
 * What the run compares an input with, in the same form; empty for the input itself.
 * @param {Meta} meta
 * @param {string} input
 */
export function runTargetOf(meta, input) {
  const { ofRun } = /** @type {LiveMeta} */ (meta).live;
  if (!ofRun?.inputs.includes(input)) return {};
  return ofRun.text ? { target: ofRun.text } : ofRun.input ? { target_input: ofRun.input } : {};
}

/** @param {string} id */
export const asTarget = (id) => TARGET_INPUT + id;

/**
 * The view of an address, complete.
 * @param {string} address
 * @param {Meta} meta
 * @returns {View}
 */
export const viewOf = (address, meta) => ({ ...START, ...readAddress(address, meta) });

/**
 * The address of the view on the page without its pins: a pin.
 * @param {Page} page
 * @returns {string}
 */
export function pinOf(page) {
  const view = { ...page.store.view, pins: [], map: null, without: null, control: null, input: page.data.id, component: page.component };
  // With its input even where the page has one alone: others may be dropped later.
  const address = writeAddress(view, page.meta).replace(/^#/, "");
  return address.includes("/input/") ? address : address.replace(/^(\/run\/[^/]+)?/, (run) => `${run}/input/${encodeURIComponent(page.data.id)}`);
}

/**
 * What is on view, in a few words.
 * @param {Meta} meta
 * @param {Readonly<View>} view
 * @param {string | null} component
 */
export function viewWords(meta, view, component) {
  const members = listed(view.group);
  const what = members.length ? `${members.length} parts` : component === null ? "clean" : labelOf(component);
  const lens = lensOf(view, component);
  const names = { steering: "", diffusion: ", Diffusion Lens", total: ", total", control: ", random control" };
  const strength = lens === "diffusion" ? "" : ` at ${strengthWords(view.strength ?? meta.strength)}`;
  return `${what}${view.patches ? " from a region" : ""}${names[/** @type {keyof typeof names} */ (lens)]}${strength}`;
}

/** @param {string} strength */
export const strengthWords = (strength) => strength.replace("rho=", "ρ ").replace("s=", "s ").replace("-", "−");

/**
 * True for a neuron or a part of an autoencoder, which is steered and ablated alone.
 * @param {string} component
 */
export const isUnit = (component) => /^(?:neuron|feature|error|bias)\./.test(component);

/** @param {string} component */
export function labelOf(component) {
  const head = /^head\.(\d+)\.(\d+)$/.exec(component);
  if (head) return `L${head[1]}H${head[2]}`;
  const neuron = /^neuron\.(\d+)\.(\d+)$/.exec(component);
  if (neuron) return `L${neuron[1]}N${neuron[2]}`;
  const part = /^feature\.(.+)\.(\d+)$/.exec(component) ?? /^(?:error|bias)\.(.+)$/.exec(component);
  if (part) return `${part[1]} ${part[2] ?? component.split(".")[0]}`;
  const other = /^(mlp_out|attn_out|resid_post)\.(\d+)$/.exec(component);
  const names = { mlp_out: "MLP", attn_out: "Attention", resid_post: "Residual" };
  return other ? `${names[/** @type {keyof typeof names} */ (other[1])]} ${other[2]}` : component;
}
