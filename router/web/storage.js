// @ts-check
/**
 * What a person keeps in this browser: who they are, drafts, and messages that the server does not have yet; and the chats, which are only a
 * copy to be shown without a connection where the server keeps the list of them.
 *
 * All tabs with the same person share it, and are devices of one user. `/?person=NAME` is another person of this browser; `/?person=new`
 * is one of the tab's own, who is gone when the tab is closed. Where the browser keeps nothing, everything lasts as long as the page.
 *
 * A token is kept for its tab only, and makes its user the person of the tab. Other users than the one whom the browser knows have a part
 * of the storage for themselves: what one of them has written and not sent must not go out in the name of another.
 */

import { newId } from "./fastchat.js";
import { isUserId, problemOfName } from "./names.js";

/** @typedef {import("./chat.js").ChatRecord} ChatRecord */
/** `number` says in which order they were written, whatever the clock did. */
/** @typedef {{messageId: string, to: string, content: string, at: number, number?: number}} Unsent */

const PERSON = /^[A-Za-z0-9_-]{1,32}$/;
const PRIVATE = "new";
const TOKEN = "fastchat-token";
const PLACE = "fastchat-place";

/** Storage that lasts as long as the page. @returns {Storage} */
function memory() {
  /** @type {Map<string, string>} */
  const kept = new Map();
  return /** @type {Storage} */ ({
    get length() {
      return kept.size;
    },
    key: (index) => [...kept.keys()][index] ?? null,
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
    clear: () => kept.clear(),
  });
}

/** @param {boolean} ofTab @returns {Storage} the browser's storage, if it lets us write */
function open(ofTab) {
  try {
    const storage = ofTab ? window.sessionStorage : window.localStorage;
    storage.setItem("fastchat", "");
    storage.removeItem("fastchat");
    return storage;
  } catch {
    return memory();
  }
}

export class Person {
  /** @param {URLSearchParams} parameters of the page's URL @param {string} token that came with it; empty if none did */
  constructor(parameters, token) {
    const asked = parameters.get("person") ?? parameters.get("user") ?? "";
    const which = PERSON.test(asked) ? asked : "";
    /** Whether this person ends with the tab. */
    this.isPrivate = which === PRIVATE;
    this.storage = open(this.isPrivate);
    this.tab = open(true);
    this.prefix = "";
    this.userId = "";
    this.name = "";
    /** What proves it; empty if nothing does. */
    this.token = "";
    /** Whether they have said their name only now, and no server has taken them for anybody yet. */
    this.isNew = false;
    this.recall(`fastchat:${which}:`);
    this.prove(token || tokenIn(this.tab.getItem(TOKEN) ?? ""), true);
    /** Other tabs of this person hear what is said here. */
    this.tabs = "BroadcastChannel" in window ? new BroadcastChannel(`${this.prefix}${this.isPrivate}`) : null;
  }

  /** @param {string} prefix of the keys of whoever it is */
  recall(prefix) {
    this.prefix = prefix;
    const identity = this.read("identity");
    const valid = isUserId(identity?.userId) && typeof identity.name === "string" && !problemOfName(identity.name, 1);
    this.userId = valid ? identity.userId : "";
    this.name = valid ? identity.name : "";
  }

  /**
   * Have this token in this tab from now on.
   * @param {string} token
   * @param {boolean} [become] whether to become its user; else the page has to be loaded again for that
   * @returns {boolean} whether it is the token of this person
   */
  prove(token, become = false) {
    if (!token) return false;
    put(this.tab, TOKEN, token);
    const { userId, name } = claimsOf(token);
    if (userId !== this.userId) {
      const prefix = `fastchat:@${encodeURIComponent(userId)}:`; // an id may have colons
      if (this.isNew) this.moveTo(prefix, userId);
      if (!become) return false;
      this.recall(prefix);
      this.userId = userId;
      if (!this.name && name) this.introduce(name);
    }
    this.token = token;
    return true;
  }

  /** Who has just said their name, and perhaps written something, turns out to be this user. @param {string} prefix @param {string} userId */
  moveTo(prefix, userId) {
    this.write("identity", { userId, name: this.name });
    for (const key of this.keys("")) {
      const value = this.storage.getItem(this.prefix + key) ?? "";
      this.storage.removeItem(this.prefix + key);
      if (key !== "chats" && this.storage.getItem(prefix + key) === null) put(this.storage, prefix + key, value);
    }
    this.prefix = prefix;
    this.userId = "";
  }

  /** Become somebody, or change one's name. @param {string} name */
  introduce(name) {
    this.isNew = !this.userId;
    this.userId ||= newId();
    this.name = name.trim().normalize("NFC");
    this.write("identity", { userId: this.userId, name: this.name });
  }

  /** Remove everything about this person from the browser. */
  forget() {
    for (const key of this.keys("")) this.storage.removeItem(this.prefix + key);
    for (const key of [TOKEN, PLACE]) this.tab.removeItem(key);
    this.userId = "";
  }

  // -- Chats, and the position in the mailbox up to which they are true --

  /** @returns {{cursor: string | undefined, chats: ChatRecord[]}} */
  loadChats() {
    const stored = this.read("chats");
    if (stored?.userId !== this.userId || !Array.isArray(stored.chats)) return { cursor: undefined, chats: [] };
    const chats = stored.chats.filter((/** @type {any} */ chat) => isUserId(chat?.id) && typeof chat.name === "string");
    return { cursor: typeof stored.cursor === "string" ? stored.cursor : undefined, chats };
  }

  /** Both at once: a cursor without what came before it would lose that. @param {string | undefined} cursor @param {ChatRecord[]} chats */
  saveChats(cursor, chats) {
    this.write("chats", { userId: this.userId, cursor, chats });
  }

  // -- Messages that the server has not confirmed; one entry each, so that tabs don't overwrite each other's --

  /** @returns {Unsent[]} in the order in which they were written */
  loadUnsent() {
    const unsent = this.keys("unsent:").map((key) => this.read(key));
    return unsent
      .filter((entry) => isUserId(entry?.to) && typeof entry.content === "string")
      .sort((a, b) => (a.number ?? 0) - (b.number ?? 0) || a.at - b.at);
  }

  /** @param {Unsent} entry */
  saveUnsent(entry) {
    const number = (this.loadUnsent().at(-1)?.number ?? 0) + 1;
    this.write(`unsent:${entry.messageId}`, { ...entry, number });
  }

  /** @param {string} messageId */
  dropUnsent(messageId) {
    this.storage.removeItem(`${this.prefix}unsent:${messageId}`);
  }

  // -- Drafts --

  /** @param {string} userId @returns {string} */
  loadDraft(userId) {
    const draft = this.read(`draft:${userId}`);
    return typeof draft === "string" ? draft : "";
  }

  /** @param {string} userId @param {string} text */
  saveDraft(userId, text) {
    if (text) this.write(`draft:${userId}`, text);
    else this.storage.removeItem(`${this.prefix}draft:${userId}`);
  }

  // -- The browser's storage --

  /** @param {string} start @returns {string[]} */
  keys(start) {
    const keys = [];
    for (let index = 0; index < this.storage.length; index++) {
      const key = this.storage.key(index);
      if (key?.startsWith(this.prefix + start)) keys.push(key.slice(this.prefix.length));
    }
    return keys;
  }

  /** @param {string} key @returns {any} null when there is nothing, or nothing that can be read */
  read(key) {
    try {
      return JSON.parse(this.storage.getItem(this.prefix + key) ?? "null");
    } catch {
      return null;
    }
  }

  /** @param {string} key @param {unknown} value */
  write(key, value) {
    put(this.storage, this.prefix + key, JSON.stringify(value));
  }
}

/** @param {Storage} storage @param {string} key @param {string} value */
function put(storage, key, value) {
  try {
    storage.setItem(key, value);
  } catch {
    // The storage is full. The chat goes on; what could not be kept is asked of the server again after a reload.
  }
}

// -- Tokens: the server alone checks them, the page only looks whose one is. They come in the fragment of a link, which no browser sends --

/** A JSON Web Token: header, claims, signature. The link that it came in may stand before it. */
const JWT = /^(?:\S*#token=)?([\w-]+\.([\w-]+)\.[\w-]+)$/;
const TOKEN_MAX = 8192;
const UUID = /^[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** @param {string} token @returns {{userId: string, name: string}} whose it is, and what they are called; both empty if it does not say */
export function claimsOf(token) {
  try {
    const encoded = JWT.exec(token)?.[2] ?? "";
    const bytes = atob(encoded.replaceAll("-", "+").replaceAll("_", "/"));
    const { sub, name } = JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
    // As the server writes it.
    const userId = !isUserId(sub) ? "" : UUID.test(sub) ? sub.toLowerCase() : sub;
    return { userId, name: typeof name === "string" && !problemOfName(name, 1) ? name : "" };
  } catch {
    return { userId: "", name: "" };
  }
}

/** @param {string} text @returns {string} the token that it is, or the link to it; empty if it is neither */
export function tokenIn(text) {
  const token = JWT.exec(text.trim())?.[1] ?? "";
  return token.length <= TOKEN_MAX && claimsOf(token).userId ? token : "";
}

/** Remember which chat is open, or was to be, until a token comes back from where one logs in. */
export const keepPlace = () => put(open(true), PLACE, location.hash);

/** Take the token out of the address bar and out of the history of the tab. @returns {string} it; empty if there is none */
export function takeToken() {
  const { hash, pathname, search } = location;
  if (!hash.startsWith("#token=")) return "";
  const tab = open(true);
  history.replaceState(null, "", pathname + search + (tab.getItem(PLACE) ?? ""));
  tab.removeItem(PLACE);
  return tokenIn(hash);
}
