// @ts-check
/** The list of chats and of people who are online. Each entry is a link to its chat, so a click with Ctrl opens it in a tab of its own. */

import { avatar, button, byId, icon, make, nameOf, quiet, setChildren } from "./dom.js";
import { fragmentOf } from "./names.js";
import { shortWhen } from "./text.js";

/** @typedef {import("./chats.js").Chats} Chats */
/** @typedef {import("./chat.js").Chat} Chat */

/** Entries from which the list has a search field. */
const SEARCH_FROM = 8;
/** What is said where the server tells of no others. */
const ONLY_CONTACTS = "Other people are not listed.";

export class PeopleList {
  /**
   * @param {() => void} changed called when the search changes what is to be shown
   * @param {(chat: Chat) => void} unblock
   */
  constructor(changed, unblock) {
    this.unblock = unblock;
    this.list = byId("people");
    this.nobody = byId("nobody");
    this.search = /** @type {HTMLInputElement} */ (byId("search"));
    /** @type {Map<string, {element: HTMLLIElement, signature: string}>} */
    this.entries = new Map();
    this.headings = { chats: heading("Chats"), others: heading("Online now"), before: heading("Were online"), blocked: heading("Blocked") };
    this.search.addEventListener("input", changed);
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.move(event);
    });
  }

  /**
   * @param {Chats} chats
   * @param {string | null} current the chat that is open
   * @param {boolean} isConnected whether it is known who is online
   */
  render(chats, current, isConnected) {
    const searching = this.search.value.trim() !== "";
    const { chats: mine, others, blocked } = chats.list(this.search.value, current);
    const all = searching || mine.length + others.length + blocked.length >= SEARCH_FROM;
    byId("search-field").hidden = !all;
    const wanted = [];
    if (mine.length) wanted.push(this.headings.chats);
    for (const chat of mine)
      wanted.push(this.chat(chat, chats.tags.get(chat.id), chats.isOnline(chat) && isConnected, chat.id === current));
    if (others.length) wanted.push(isConnected ? this.headings.others : this.headings.before);
    for (const { id, name } of others) wanted.push(this.person(id, name, chats.tags.get(id), isConnected));
    if (blocked.length) wanted.push(this.headings.blocked);
    for (const chat of blocked) wanted.push(this.blocked(chat, chats.tags.get(chat.id), chat.id === current));
    const focused = this.links().indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    setChildren(this.list, wanted);
    // Whoever has the focus may leave; it goes to the entry that takes the place.
    const left = this.links();
    if (focused >= 0 && !this.list.contains(document.activeElement)) (left[Math.min(focused, left.length - 1)] ?? byId("me")).focus();
    const shown = new Set(wanted);
    for (const [id, { element }] of this.entries) if (!shown.has(element)) this.entries.delete(id);
    this.sayWhoIsMissing(chats, isConnected, searching, mine.length, others.length);
  }

  /**
   * Say why the list is empty, or that it does not have everybody, and what to do about it.
   * @param {Chats} chats
   * @param {boolean} isConnected
   * @param {boolean} isSearching
   * @param {number} mine how many chats are listed
   * @param {number} others how many other people are
   */
  sayWhoIsMissing(chats, isConnected, isSearching, mine, others) {
    const isNarrow = isConnected && chats.scope === "contacts";
    let text = "Nobody else is here yet.";
    if (isSearching && isNarrow) text = mine + others ? ONLY_CONTACTS : "Nobody of that name is among the people you chat with.";
    else if (isSearching) text = mine ? "Nobody else of that name." : "Nobody of that name.";
    else if (!isConnected) text = "Who is here will show when you are connected.";
    else if (isNarrow) text = `${contactsOnline(chats.online.size)} ${ONLY_CONTACTS}`;
    this.nobody.hidden = !isNarrow && (others > 0 || (mine > 0 && !isSearching));
    byId("nobody-text").textContent = text;
    byId("alone").hidden = isSearching || !isConnected || isNarrow;
    byId("invitation").hidden = !isConnected || (isSearching && !isNarrow);
  }

  /** Put the focus on a chat's entry, or on the first. @param {string | null} id */
  focus(id) {
    const entry = id === null ? undefined : this.entries.get(id);
    const link = entry?.element.querySelector("a") ?? this.list.querySelector("a") ?? byId("me");
    /** @type {HTMLElement} */ (link).focus();
  }

  /** @param {Chat} chat @param {string | undefined} tag @param {boolean} isOnline @param {boolean} isCurrent @returns {HTMLLIElement} */
  chat(chat, tag, isOnline, isCurrent) {
    const { last, unread, isMuted } = chat;
    const when = last ? shortWhen(last.at, Date.now()) : "";
    const words = chat.isTyping ? "typing…" : (last?.content ?? "No messages yet");
    const signature = JSON.stringify([chat.name, tag, isOnline, isCurrent, when, words, last?.own, unread, isMuted, chat.isTyping]);
    return this.entry(chat.id, signature, (link) => {
      if (isCurrent) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      const preview = make("span", chat.isTyping ? "preview typing" : "preview");
      preview.dir = "auto";
      if (last?.own && !chat.isTyping) preview.append("You: ");
      preview.append(words);
      const second = make("span", "row", preview);
      if (unread) {
        const badge = make("span", isMuted ? "badge still" : "badge", unread > 99 ? "99+" : String(unread));
        badge.append(quiet(` ${unread === 1 ? "message" : "messages"} not read`));
        second.append(badge);
      }
      const mark = isMuted ? [icon("muted"), quiet("Muted")] : [];
      const first = make("span", "row", nameOf(chat.name), ...tagged(tag), ...mark, make("span", "when", when));
      link.replaceChildren(disc(chat.id, chat.name, isOnline), make("span", "lines", first, second));
    });
  }

  /** Somebody who is blocked, with the button that ends it. @param {Chat} chat @param {string | undefined} tag @param {boolean} isCurrent @returns {HTMLLIElement} */
  blocked(chat, tag, isCurrent) {
    const element = this.entry(chat.id, JSON.stringify(["blocked", chat.name, tag, isCurrent]), (link) => {
      if (isCurrent) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
      const row = make("span", "row", nameOf(chat.name), ...tagged(tag));
      link.replaceChildren(disc(chat.id, chat.name, false), make("span", "lines", row));
      const act = button("Unblock", () => this.unblock(chat), "inline");
      act.append(quiet(` ${chat.name}`));
      link.after(act);
    });
    element.className = "blocked";
    return element;
  }

  /** @param {string} id @param {string} name @param {string | undefined} tag @param {boolean} isOnline @returns {HTMLLIElement} */
  person(id, name, tag, isOnline) {
    return this.entry(id, JSON.stringify([name, tag, isOnline]), (link) => {
      link.removeAttribute("aria-current");
      link.replaceChildren(disc(id, name, isOnline), make("span", "lines", make("span", "row", nameOf(name), ...tagged(tag))));
    });
  }

  /** @param {string} id @param {string} signature what it shows @param {(link: HTMLAnchorElement) => void} fill @returns {HTMLLIElement} */
  entry(id, signature, fill) {
    let entry = this.entries.get(id);
    if (!entry) {
      const link = make("a", "person");
      link.href = fragmentOf(id);
      entry = { element: make("li", "", link), signature: "" };
      this.entries.set(id, entry);
    }
    if (entry.signature !== signature) {
      entry.signature = signature;
      const link = /** @type {HTMLAnchorElement} */ (entry.element.firstChild);
      entry.element.className = "";
      // It stays where it is, since it may just be clicked.
      while (link.nextSibling) link.nextSibling.remove();
      fill(link);
    }
    return entry.element;
  }

  links() {
    return [...this.list.querySelectorAll("a")];
  }

  /** Arrow keys, Home and End go from entry to entry. @param {KeyboardEvent} event */
  move(event) {
    const links = this.links();
    const at = links.indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (to < 0 && !byId("search-field").hidden) this.search.focus();
    else links[Math.max(0, Math.min(to, links.length - 1))]?.focus();
  }
}

/** @param {number} count @returns {string} how many of the people one chats with are online */
function contactsOnline(count) {
  if (!count) return "Nobody you chat with is online.";
  return count === 1 ? "One of the people you chat with is online." : `${count} of the people you chat with are online.`;
}

/** @param {string} text @returns {HTMLLIElement} */
function heading(text) {
  return make("li", "heading", make("h2", "", text));
}

/** @param {string} [tag] what tells somebody from others of the same name @returns {HTMLElement[]} */
const tagged = (tag) => (tag ? [make("span", "tag", tag)] : []);

/** @param {string} id @param {string} name @param {boolean} isOnline @returns {HTMLElement} */
function disc(id, name, isOnline) {
  const element = make("span", "disc", avatar(id, name));
  if (isOnline) element.append(make("span", "dot"), quiet("Online: "));
  return element;
}
