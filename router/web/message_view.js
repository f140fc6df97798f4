// @ts-check
/** One message on the page: its words, its time, and what became of it. */

import { button, icon, make, quiet } from "./dom.js";
import { now } from "./fastchat.js";
import { fullTimeOf, isEmojiOnly, linkify, timeOf } from "./text.js";

/** @typedef {import("./thread.js").Item} Item */
/**
 * @typedef {object} Actions
 * @property {(item: Item) => void} retry
 * @property {(item: Item) => void} remove
 */

/** What is shown for each status of an own message: the icon, and the word for it. @type {Record<string, [string, string]>} */
const STATUS = {
  queued: ["clock", "Waiting to be sent"],
  sent: ["clock", "Being sent"],
  stored: ["tick", "Sent"],
  accepted: ["tick", "Sent"],
  delivered: ["ticks", "Delivered"],
  read: ["ticks", "Read"],
  failed: ["warning", "Not delivered"],
};

/** @param {Item} item @returns {string} changes when the message looks different */
export const signatureOf = (item) => `${item.status}|${problemOf(item)}|${item.at}|${item.content}`;

/**
 * Fill the element of a message.
 * @param {HTMLLIElement} element
 * @param {Item} item
 * @param {string} author
 * @param {Actions} actions
 */
export function fill(element, item, author, actions) {
  // What has a direction of its own does not count for that of the bubble, which is that of the message's first word.
  const label = quiet(`${author}: `);
  label.dir = "auto";
  const text = make("span", isEmojiOnly(item.content) ? "text large" : "text");
  for (const piece of linkify(item.content)) text.append(piece.href ? link(piece.text, piece.href) : piece.text);
  const bubble = make("div", "bubble", label, text, meta(item));
  bubble.dir = "auto";
  element.dataset.status = item.status;
  element.replaceChildren(bubble);
  const problem = problemOf(item);
  if (!problem) return;
  const note = make("p", item.status === "failed" ? "problem" : "problem waits", problem);
  if (item.status === "failed") {
    note.append(
      " ",
      button("Try again", () => actions.retry(item), "inline"),
      " ",
    );
    note.append(button("Delete", () => actions.remove(item), "inline"));
  }
  element.append(note);
}

/** @param {string} text @param {string} href @returns {HTMLAnchorElement} */
function link(text, href) {
  const element = make("a", "", text);
  element.href = href;
  element.target = "_blank";
  element.rel = "noopener noreferrer nofollow ugc";
  return element;
}

/** @param {Item} item @returns {HTMLElement} */
function meta(item) {
  const time = make("time", "", timeOf(item.at));
  time.dateTime = new Date(item.at).toISOString();
  time.title = fullTimeOf(item.at);
  const element = make("span", "meta", time);
  element.dir = "ltr";
  const status = STATUS[item.status];
  if (status) {
    const [name, word] = status;
    const tick = make("span", `status ${item.status}`, icon(name), quiet(word));
    tick.title = word;
    element.append(tick);
  }
  return element;
}

/** @param {Item} item @returns {string} why it is not on its way, or not as it was written, in words; empty if all is well */
function problemOf(item) {
  if (item.status === "failed") return `Not delivered: ${item.problem}`;
  if (item.status !== "queued") return item.note;
  const seconds = Math.ceil((item.retryAt - now()) / 1000);
  return seconds > 0 ? `Too many messages in a minute; sending in ${seconds} s` : item.problem;
}
