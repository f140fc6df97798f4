// @ts-check
/** One chat: who the other side is, its messages, and what of them has been seen. Knows nothing of the document. */

import { Thread } from "./thread.js";

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
/** Characters of last words that are kept. */
const WORDS_MAX = 120;
/** What somebody is called of whom no more is known than the id. */
export const UNKNOWN = "Unknown";

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
    /** The name that the link had which led here, until the server tells one. */
    this.linkName = "";
    /** Whether the newest messages are here, are on their way, or why they can't be had. */
    this.isLoaded = false;
    this.isLoading = false;
    this.problem = "";
  }

  /** @returns {string} as it is shown */
  get name() {
    const { knownName } = this;
    return knownName === UNKNOWN ? this.linkName || UNKNOWN : knownName;
  }

  /** @returns {string} as the server has told it */
  get knownName() {
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

  /** @returns {ChatRecord} what is kept of it where the server's list has it */
  copy() {
    const last = this.last && { ...this.last, content: this.last.content.slice(0, WORDS_MAX) };
    return { id: this.id, name: this.name, opened: true, last, unread: [], readSeq: 0 };
  }

  /** Keep the last words: those at the end of what is here. */
  saw() {
    const last = this.thread.items.at(-1);
    if (last) this.record.last = { content: last.content.slice(0, WORDS_MAX), at: last.at, own: last.own };
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
