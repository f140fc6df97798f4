// @ts-check
/** Making elements. Text from anywhere only ever becomes text: nothing in the page parses HTML after it was loaded. */

import { initials, shadeOf } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";
/** How many colours people.css has for people. */
const SHADES = 8;

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T} the element of index.html with this id
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * A new element.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [className]
 * @param {...(Node | string)} content strings become text nodes
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** @param {string} text @returns {HTMLElement} what only screen readers get */
export const quiet = (text) => make("span", "quiet", text);

/** @param {string} name @returns {HTMLElement} somebody's name, which can't turn round the text beside it */
export function nameOf(name) {
  const element = make("bdi", "name", name);
  element.dir = "auto";
  return element;
}

/** @param {string} name of a symbol in index.html @returns {SVGSVGElement} an icon, silent to screen readers */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${name}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** @param {string} id @param {string} name @returns {HTMLElement} a coloured disc with initials, silent to screen readers */
export function avatar(id, name) {
  const element = make("span", `avatar shade-${shadeOf(id, SHADES)}`, initials(name));
  element.setAttribute("aria-hidden", "true");
  return element;
}

/** @param {string} text @param {() => void} act @param {string} [className] @returns {HTMLButtonElement} */
export function button(text, act, className = "") {
  const element = make("button", className, text);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

/**
 * Make the children of `parent` these nodes, in this order, touching only what differs.
 * @param {Element} parent
 * @param {Iterable<Node>} wanted
 */
export function setChildren(parent, wanted) {
  const focused = document.activeElement;
  let at = parent.firstChild;
  for (const node of wanted) {
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  // An element that is moved loses the focus.
  if (focused instanceof HTMLElement && focused !== document.activeElement && parent.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}

const announcer = () => byId("announcer");
/** @type {number | undefined} */
let silence;

/** Let screen readers say something when they have finished what they are saying. @param {string} text */
export function announce(text) {
  announcer().append(make("p", "", text));
  window.clearTimeout(silence);
  silence = window.setTimeout(() => announcer().replaceChildren(), 10_000);
}
