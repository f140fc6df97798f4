// @ts-check
/**
 * All chats of the person: names, last words, what is unread; and who is online. Knows nothing of the document.
 *
 * A server that keeps the list of chats is right about all of it (`isListed`). With an older one it is what this browser has seen.
 */

import { Chat, UNKNOWN } from "./chat.js";
import { tagsOf } from "./names.js";

/** @typedef {import("./chat.js").ChatRecord} ChatRecord */
/** @typedef {import("./thread.js").Message} Message */
/** @typedef {import("./client/fastchat.d.ts").ChatEntry} ChatEntry */

/** Unread messages kept for one chat at most. */
const UNREAD_MAX = 999;
/** Chats of the server's list that are kept at most. */
const COPIES_MAX = 100;

export class Chats {
  /** @param {string} me @param {ChatRecord[]} records */
  constructor(me, records) {
    this.me = me;
    this.mode = { isListed: false };
    /** The server's list, the last one that was written in first. @type {Chat[]} */
    this.listed = [];
    /** Whether it is here. */
    this.hasList = false;
    /** user id -> what tells them from others of the same name. @type {Map<string, string>} */
    this.tags = new Map();
    /** @type {Map<string, Chat>} */
    this.byId = new Map();
    for (const record of records) {
      const { id, name, opened = true, last = null, unread = [], readSeq = 0 } = record;
      // Earlier versions kept their times.
      const known = unread.filter((entry) => typeof entry?.id === "string");
      this.byId.set(id, new Chat({ id, name, opened, last, unread: known, readSeq }, me, this.mode));
    }
    /** user id -> name of everybody who is online but us; everybody in `scope`. @type {Map<string, string>} */
    this.online = new Map();
    /** Whose presence the server tells: that of everybody, or of those with whom we have a chat. @type {"everyone" | "contacts"} */
    this.scope = "everyone";
  }

  /** The chat with somebody, a new one if need be. @param {string} id @param {string} [name] @returns {Chat} */
  with(id, name) {
    let chat = this.byId.get(id);
    if (!chat) {
      const record = { id, name: name || this.online.get(id) || UNKNOWN, opened: false, last: null, unread: [], readSeq: 0 };
      chat = new Chat(record, this.me, this.mode);
      this.byId.set(id, chat);
    } else if (name) {
      chat.record.name = name;
    }
    return chat;
  }

  /** @param {import("./client/fastchat.d.ts").Presence} users everybody who is online */
  setOnline(users) {
    this.scope = users.scope ?? "everyone";
    this.online = new Map([...users].filter(([id]) => id !== this.me));
    for (const [id, name] of this.online) {
      const chat = this.byId.get(id);
      if (chat) chat.record.name = name;
    }
  }

  /** @param {Chat} chat @returns {boolean} whether the server tells us if the other side is online */
  isKnown(chat) {
    return (this.scope === "everyone" || chat.record.opened || chat.entry !== null) && !chat.isBlocked;
  }

  /** @param {Chat} chat @returns {boolean} */
  isOnline(chat) {
    return chat.entry?.online ?? this.online.has(chat.id);
  }

  /** The server keeps the list of chats, or does not. @param {boolean} isListed */
  listen(isListed) {
    this.mode.isListed = isListed;
    if (!isListed) this.setList([]);
  }

  /** The server's list as it is now. @param {readonly ChatEntry[]} entries */
  setList(entries) {
    this.hasList = this.mode.isListed;
    const left = new Set(this.listed);
    this.listed = entries.map((entry) => {
      const chat = this.with(entry.userId, entry.displayName);
      // Another device has read.
      if (chat.entry && entry.unread < chat.entry.unread) chat.thread.sawAllBut(entry.unread);
      chat.entry = entry;
      left.delete(chat);
      return chat;
    });
    for (const chat of left) chat.entry = null;
  }

  /**
   * A message that came live.
   * @param {Message} message
   * @returns {{chat: Chat, item: import("./thread.js").Item, isNew: boolean}} `isNew`: it is for us, and nobody here has seen it
   */
  arrive(message) {
    const own = message.from === this.me;
    const chat = this.with(own ? message.to : message.from);
    const known = chat.thread.byKey.has(chat.thread.keyOf(message));
    const item = chat.thread.arrive(message);
    chat.record.opened = true;
    if (this.mode.isListed) {
      const isNew = !own && !known && !message.read;
      item.unseen ||= isNew;
      return { chat, item, isNew };
    }
    chat.saw();
    const { messageId, seq } = item;
    // Who answers has read, on whichever device.
    const latest = chat.record.unread.at(-1);
    if (own && latest) chat.sawMessage(latest.id, latest.seq);
    // A page of history may have brought it before.
    const isNew = !own && (seq ? seq > chat.record.readSeq && !chat.unreadItems.includes(item) : !known);
    if (isNew) {
      chat.record.unread = [...chat.record.unread, { id: messageId, seq }].slice(-UNREAD_MAX);
      item.unseen = true;
    }
    return { chat, item, isNew };
  }

  /** The server counts positions anew: what was unread comes before all that will come. */
  startOver() {
    for (const { record } of this.byId.values()) {
      record.readSeq = 0;
      for (const entry of record.unread) entry.seq = 0;
    }
  }

  /** @returns {number} messages that have not been seen, in all chats that are not muted */
  get unread() {
    let sum = 0;
    for (const chat of this.byId.values()) if (!chat.isMuted) sum += chat.unread;
    return sum;
  }

  /** Find out anew who has the same name. */
  tell() {
    const known = [...this.byId.values()].filter(({ knownName }) => knownName !== UNKNOWN);
    this.tags = tagsOf(new Map([...this.online, ...known.map(({ id, name }) => /** @type {const} */ ([id, name]))]));
  }

  /** @returns {ChatRecord[]} the server's list, as far as it is kept for a page without a connection */
  copies() {
    const chats = this.listed.filter(({ isBlocked }) => !isBlocked);
    return chats.slice(0, COPIES_MAX).map((chat) => chat.copy());
  }

  /** @returns {ChatRecord[]} what to keep */
  records() {
    return [...this.byId.values()].filter((chat) => chat.hasWords || chat.record.opened).map((chat) => chat.record);
  }

  /**
   * What the list of people shows.
   * @param {string} search part of a name; empty for all
   * @param {string | null} current the chat that is open, which is never left out
   * @returns {{chats: Chat[], others: {id: string, name: string}[], blocked: Chat[]}} chats with the latest words first; everybody else by name
   */
  list(search, current) {
    const wanted = search.trim().toLocaleLowerCase();
    /** @param {string} name */
    const matches = (name) => name.toLocaleLowerCase().includes(wanted);
    const { isListed } = this.mode;
    const byTime = (/** @type {Chat} */ a, /** @type {Chat} */ b) => (b.last?.at ?? Infinity) - (a.last?.at ?? Infinity) || 0;
    let chats = [...this.byId.values()].filter((chat) => chat.hasWords || chat.id === current).sort(byTime);
    // What is not in the server's list has been opened or written just now.
    if (isListed) chats = [...chats.filter(({ entry, id, thread }) => !entry && (id === current || thread.waits)), ...this.listed];
    const shown = new Set(chats.map(({ id }) => id));
    const others = [...this.online]
      .map(([id, name]) => ({ id, name }))
      .filter(({ id, name }) => !shown.has(id) && matches(name))
      .sort((a, b) => a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1));
    const wantedChats = chats.filter(({ name }) => matches(name));
    return {
      chats: wantedChats.filter(({ isBlocked }) => !isBlocked),
      others,
      blocked: wantedChats.filter(({ isBlocked }) => isBlocked),
    };
  }
}
