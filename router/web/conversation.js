// @ts-check
/**
 * The messages of the chat that is open: their order on the page, where it is scrolled to, and which of them have been seen.
 *
 * The view stays where the reader is: at the end while that is in view, else at the message that is at the top, whatever comes above or
 * below it.
 */

import { byId, make, setChildren } from "./dom.js";
import { fill, signatureOf } from "./message_view.js";
import { counted, dayKey, dayName } from "./text.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./thread.js").Item} Item */
/**
 * @typedef {object} ConversationEvents
 * @property {(chat: Chat) => void} older the reader has come near the oldest message that is here
 * @property {(chat: Chat, item: Item) => void} seen a message is on the screen for the first time
 * @property {(chat: Chat, item: Item) => void} retry
 * @property {(chat: Chat, item: Item) => void} remove
 */

/** Pixels from the end that still count as the end, and from the oldest message at which older ones are asked for. */
const AT_END = 48;
const NEAR_TOP = 400;
/** Milliseconds between two messages of one person that still stand close together. */
const TOGETHER = 180_000;

export class Conversation {
  /** @param {ConversationEvents} events */
  constructor(events) {
    this.events = events;
    this.log = byId("log");
    this.list = byId("messages");
    this.typing = byId("typing");
    this.jump = /** @type {HTMLButtonElement} */ (byId("jump"));
    /** @type {Chat | null} */
    this.chat = null;
    /** The first message that was not read when the chat was opened. @type {string | null} */
    this.newKey = null;
    /** Whether the end is in view; and whether the reader has been put where reading begins. */
    this.atEnd = true;
    this.isPlaced = false;
    /** @type {Map<string, {element: HTMLLIElement, signature: string}>} */
    this.elements = new Map();
    /** @type {Map<string, HTMLLIElement>} */
    this.separators = new Map();
    /** @type {WeakMap<Element, Item>} */
    this.itemOf = new WeakMap();
    /** On the screen, but the page itself may not be. @type {Set<Item>} */
    this.onScreen = new Set();
    this.observer = new IntersectionObserver((entries) => this.intersected(entries), { root: this.log });
    this.log.addEventListener("scroll", () => this.scrolled(), { passive: true });
    document.addEventListener("visibilitychange", () => this.tellSeen());
    this.jump.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => {
      if (this.atEnd) this.toEnd();
    }).observe(this.log);
  }

  /** Show another chat. @param {Chat} chat */
  show(chat) {
    this.hide();
    this.chat = chat;
    this.log.setAttribute("aria-label", `Messages with ${chat.name}`);
    this.render();
  }

  /** Show none. */
  hide() {
    this.observer.disconnect();
    this.elements.clear();
    this.separators.clear();
    this.onScreen.clear();
    this.list.replaceChildren();
    this.chat = this.newKey = null;
    this.isPlaced = false;
    this.atEnd = true;
  }

  /** Bring the page up to date with the chat. */
  render() {
    const chat = this.chat;
    if (!chat) return;
    const anchor = this.atEnd ? null : this.topmost();
    const offset = anchor?.getBoundingClientRect().top ?? 0;
    const { items } = chat.thread;
    if (!this.isPlaced) this.newKey = items.find((item) => item.unseen || item.key === this.newKey)?.key ?? null;
    setChildren(this.list, this.elementsOf(chat, items));
    // What was taken away, such as a message that failed.
    for (const key of this.elements.keys()) if (!chat.thread.byKey.has(key)) this.elements.delete(key);
    this.typing.hidden = !chat.isTyping;
    if (!this.isPlaced) this.place(chat);
    else if (this.atEnd) this.toEnd();
    else if (anchor?.isConnected) this.log.scrollTop += anchor.getBoundingClientRect().top - offset;
    this.showJump();
  }

  /** What stands above the oldest message. @param {string} text @param {Node[]} more */
  setTop(text, more) {
    const top = byId("top");
    if (top.dataset.text === text) return;
    top.dataset.text = text;
    const anchor = this.atEnd ? null : this.topmost();
    const offset = anchor?.getBoundingClientRect().top ?? 0;
    top.replaceChildren(text, " ", ...more);
    if (anchor) this.log.scrollTop += anchor.getBoundingClientRect().top - offset;
    else if (this.isPlaced) this.toEnd();
  }

  /** Go to the latest message. */
  toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.atEnd = true;
  }

  /** Ask for older messages if the reader is near the oldest one. */
  askForOlder() {
    const chat = this.chat;
    // What has come but is not drawn yet will be above.
    if (!chat || !this.isPlaced || chat.thread.items.length !== this.elements.size) return;
    if (typeof chat.thread.next === "string" && this.log.scrollTop < NEAR_TOP) this.events.older(chat);
  }

  /** @param {Chat} chat @param {Item[]} items @returns {HTMLLIElement[]} messages, days, and where the new ones begin */
  elementsOf(chat, items) {
    const wanted = [];
    const now = Date.now();
    /** @type {Item | undefined} */
    let before;
    for (const [index, item] of items.entries()) {
      const day = dayKey(item.at);
      const isNewDay = !before || dayKey(before.at) !== day;
      if (isNewDay) wanted.push(this.separator(`day ${day}`, "day", dayName(item.at, now)));
      const isFirstNew = item.key === this.newKey;
      if (isFirstNew) wanted.push(this.separator("new", "new", "New messages"));
      const element = this.element(chat, item);
      const after = items[index + 1];
      const opens = isNewDay || isFirstNew || !before || !together(before, item);
      const closes = !after || after.key === this.newKey || dayKey(after.at) !== day || !together(item, after);
      element.className = ["message", item.own ? "own" : "theirs", opens ? "first" : "", closes ? "last" : ""].join(" ").trim();
      wanted.push(element);
      before = item;
    }
    return wanted;
  }

  /** @param {Chat} chat @param {Item} item @returns {HTMLLIElement} */
  element(chat, item) {
    let entry = this.elements.get(item.key);
    if (!entry) {
      entry = { element: make("li"), signature: "" };
      this.elements.set(item.key, entry);
    }
    const signature = signatureOf(item);
    if (entry.signature !== signature) {
      entry.signature = signature;
      fill(entry.element, item, item.own ? "You" : chat.name, {
        retry: () => this.events.retry(chat, item),
        remove: () => this.events.remove(chat, item),
      });
    }
    // The end of a message counts, so that a long one is read when one has got there.
    const end = item.unseen && entry.element.querySelector(".meta");
    if (end && !this.itemOf.has(end)) {
      this.itemOf.set(end, item);
      this.observer.observe(end);
    }
    return entry.element;
  }

  /** @param {string} key @param {string} className @param {string} text @returns {HTMLLIElement} */
  separator(key, className, text) {
    let element = this.separators.get(key);
    if (!element) {
      element = make("li", className, make("h3", ""));
      this.separators.set(key, element);
    }
    const heading = /** @type {HTMLElement} */ (element.firstChild);
    if (heading.textContent !== text) heading.textContent = text;
    return element;
  }

  /** Begin where reading begins: at the first new message, else at the end. @param {Chat} chat */
  place(chat) {
    const first = this.newKey === null ? undefined : this.separators.get("new");
    this.toEnd();
    if (first) {
      this.log.scrollTop -= this.log.getBoundingClientRect().top - first.getBoundingClientRect().top + 24;
      this.atEnd = this.isAtEnd();
    }
    this.isPlaced = chat.thread.next !== undefined || chat.problem !== "";
  }

  /** @returns {Element | null} the message at the top of what is in view */
  topmost() {
    const top = this.log.getBoundingClientRect().top;
    const children = this.list.children;
    let from = 0;
    let to = children.length;
    while (from < to) {
      const middle = (from + to) >> 1;
      if (children[middle].getBoundingClientRect().bottom > top) to = middle;
      else from = middle + 1;
    }
    // Separators go where the days and the new messages begin; only messages stay together.
    while (children[from] && !children[from].classList.contains("message")) from++;
    return children[from] ?? null;
  }

  isAtEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight <= AT_END;
  }

  scrolled() {
    this.atEnd = this.isAtEnd();
    this.showJump();
    this.askForOlder();
  }

  showJump() {
    const below = this.chat ? this.chat.unreadItems.filter((item) => item.unseen).length : 0;
    this.jump.hidden = this.atEnd || !this.isPlaced;
    byId("jump-text").textContent = below ? counted(below, "new message") : "Latest messages";
    this.jump.classList.toggle("news", below > 0);
  }

  /** @param {IntersectionObserverEntry[]} entries */
  intersected(entries) {
    for (const entry of entries) {
      const item = this.itemOf.get(entry.target);
      if (!item) continue;
      if (entry.isIntersecting) this.onScreen.add(item);
      else this.onScreen.delete(item);
    }
    this.tellSeen();
  }

  /** What is on the screen has been seen, unless the page itself is hidden. */
  tellSeen() {
    const chat = this.chat;
    if (!chat || document.visibilityState !== "visible" || !this.onScreen.size) return;
    const seen = [...this.onScreen].sort((a, b) => a.order - b.order);
    this.onScreen.clear();
    for (const item of seen) {
      const end = this.elements.get(item.key)?.element.querySelector(".meta");
      if (end) this.observer.unobserve(end);
      this.events.seen(chat, item);
    }
    this.showJump();
  }
}

/** @param {Item} a @param {Item} b the one behind it @returns {boolean} whether they stand close together */
const together = (a, b) => a.own === b.own && Math.abs(b.at - a.at) < TOGETHER && a.status !== "failed";
