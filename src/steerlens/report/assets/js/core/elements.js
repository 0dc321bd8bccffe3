/** Elements of the page. Text only ever enters as text, never as markup. */

/**
 * Finds the element of an id, which the page must have.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no element #${id}`);
  return element;
}

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */
/** @typedef {Node | string | null | undefined} Child */

/**
 * Makes an element. Attributes that are null, undefined or false are left out; `onclick` and the like are listeners.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, Attribute>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = String(value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

/**
 * A group of radio buttons that look like a row of buttons.
 * @param {string} name
 * @param {[key: string, text: string][]} options
 * @param {string} chosen
 * @param {(key: string) => void} change
 */
export function radios(name, options, chosen, change) {
  const buttons = options.map(([key, text]) =>
    el("label", {},
      el("input", { type: "radio", name: `radio-${name}`, value: key, checked: key === chosen, onchange: () => change(key) }),
      el("span", {}, text)));
  return el("fieldset", { class: "radios" }, el("legend", { class: "sr" }, name), ...buttons);
}

/**
 * Replaces the content of a box, and keeps the focus on the control of the same name and value.
 * @param {HTMLElement} box
 * @param {Child[]} children
 */
export function redraw(box, children) {
  const active = document.activeElement;
  const focused = active instanceof HTMLInputElement && box.contains(active) ? [active.name, active.value] : null;
  box.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  if (!focused) return;
  const again = [...box.querySelectorAll("input")].find((input) => input.name === focused[0] && input.value === focused[1]);
  again?.focus();
}
