// @ts-check
/**
 * All chats of the person: names, last words, what is unread; and who is online. Knows nothing of the document.
 *
 * A server that keeps the list of chats is right about all of it (`isListed`). With an older one it is what this browser has seen.
 */

import { Thread } from "./thread.js";

/** @typedef {import("./thread.js").Message} Message */
/** @typedef {import("./client/fastchat.d.ts").ChatEntry} ChatEntry */
/** @typedef {{content: string, at: number, own: boolean}} Words */
/**
 * What is kept of a chat in the browser.
 * @typedef {object} ChatRecord
 * @property {string} id the other person's user id
 * @property {string} name
 * @property {boolean} opened whether the server has said that the chat is open
 * @property {Words | null} last
 * @property {{id: string, seq: number}[]} unread the messages that have not been seen: their ids, and positions among the messages to us
 * @property {number} readSeq position of the latest message that has been seen
 */

/** Why a chat can't be had, by error code. */
const PROBLEMS = new Map([
  ["USER_NOT_FOUND", "Nobody with this link has been here yet. They have to open it once."],
  ["VALIDATION", "There can't be a chat with this person."],
]);
/** Unread messages kept for one chat at most. */
const UNREAD_MAX = 999;

export class Chat {
  /** @param {ChatRecord} record @param {string} me @param {{isListed: boolean}} mode whether the server keeps the list */
  constructor(record, me, mode) {
    this.record = record;
    this.mode = mode;
    /** What the server's list has; null if it has nothing. @type {ChatEntry | null} */
    this.entry = null;
    this.id = record.id;
    this.thread = new Thread(me);
    this.isTyping = false;
    /** Whether the newest messages are here, are on their way, or why they can't be had. */
    this.isLoaded = false;
    this.isLoading = false;
    this.problem = "";
  }

  /** @returns {string} */
  get name() {
    return this.entry?.displayName ?? this.record.name;
  }

  /** @returns {boolean} whether the person has blocked the other side */
  get isBlocked() {
    return this.entry?.blocked ?? false;
  }

  /** @returns {boolean} */
  get isMuted() {
    return this.entry?.muted ?? false;
  }

  /** @returns {number} how many messages have not been seen */
  get unread() {
    return this.mode.isListed ? (this.entry?.unread ?? 0) : this.record.unread.length;
  }

  /** @returns {Words | null} the last words: those of the server's list, or those that are here and newer */
  get last() {
    const { entry } = this;
    if (!this.mode.isListed) return this.record.last;
    const item = this.thread.items.at(-1);
    const listed = entry?.last
      ? { content: entry.last.content, at: Date.parse(entry.last.timestamp), own: entry.last.from !== this.id }
      : null;
    const isHere = item && (!listed || item.order === Infinity || item.messageId === entry?.last?.messageId || item.at > listed.at);
    return isHere ? { content: item.content, at: item.at, own: item.own } : listed;
  }

  /** @returns {boolean} whether there is something to come back to */
  get hasWords() {
    return this.last !== null;
  }

  /** Its messages could not be had. @param {any} error */
  failed({ code, message }) {
    if (code === "CLOSED") return; // they are asked for again when there is another connection
    if (code === "UNSUPPORTED" || this.isBlocked) {
      this.isLoaded = true;
      this.thread.next = null;
    } else this.problem = PROBLEMS.get(code) ?? `This did not work: ${message}.`;
  }

  /** Keep the last words: those at the end of what is here. */
  saw() {
    const last = this.thread.items.at(-1);
    if (last) this.record.last = { content: last.content.slice(0, 120), at: last.at, own: last.own };
  }

  /**
   * A message of the other side has been seen, and so has what came before it. Times would not do: two messages may have the same one, and a
   * clock may be put back.
   * @param {string} messageId
   * @param {number} seq its position, 0 if it is not known
   * @returns {boolean} whether that is new
   */
  sawMessage(messageId, seq) {
    const { record } = this;
    const position = seq || (record.unread.find(({ id }) => id === messageId)?.seq ?? 0);
    const left = record.unread.filter((entry) => entry.id !== messageId && entry.seq > position);
    const isNew = left.length < record.unread.length || position > record.readSeq;
    record.unread = left;
    record.readSeq = Math.max(record.readSeq, position);
    return isNew;
  }

  /** @returns {import("./thread.js").Item[]} the messages that are here and have not been seen, on any tab */
  get unreadItems() {
    if (this.mode.isListed) return this.thread.items.filter(({ unseen }) => unseen);
    const unread = new Set(this.record.unread.map(({ id }) => id));
    return this.thread.items.filter((item) => !item.own && unread.has(item.messageId));
  }
}

export class Chats {
  /** @param {string} me @param {ChatRecord[]} records */
  constructor(me, records) {
    this.me = me;
    this.mode = { isListed: false };
    /** The server's list, the last one that was written in first. @type {Chat[]} */
    this.listed = [];
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
      const record = { id, name: name || this.online.get(id) || "Unknown", opened: false, last: null, unread: [], readSeq: 0 };
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
