// @ts-check
/**
 * Messages that come: each is shown once, and the cursor follows what was shown.
 *
 * `take` finds that a message is news, and from then on it is *pending*: the listeners have it, or will. `shown` says that they are done: now
 * the message is acknowledged, and the cursor goes on. A repeat of a pending message is dropped; a repeat of one that was shown is acknowledged
 * again, since the server would not send it if it had the acknowledgement.
 *
 * A message with which a listener failed is not acknowledged, so the server sends it again; and the cursor stays before it, since a client
 * that resumes gets only what follows. After a few times it counts as shown: it would hold the cursor for ever.
 */

/** @typedef {import("./fastchat.d.ts").Message} Message */
/**
 * A message on its way to the listeners.
 * @typedef {object} Item
 * @property {Message} message
 * @property {string} key sender, recipient and id
 * @property {unknown} cursor where to go on behind it
 * @property {number} mailbox to which its position belongs
 */

/** Messages that are remembered to recognise duplicates. */
const REMEMBERED_MAX = 10_000;
/** How often a message is shown with which listeners fail. */
const SHOWN_MAX = 5;

/** What has come to one user. */
export class Inbox {
  #show;
  #acknowledge;
  /** Positions of the last message that came and of the cursor; and how many mailboxes there were, to which positions belong. */
  #lastSeq = 0;
  #position = 0;
  #mailbox = 0;
  /** Messages that the listeners have or will have, and those that were shown, the oldest first; by key. @type {Set<string>} */
  #pending = new Set();
  /** @type {Set<string>} */
  #seen = new Set();
  /** Messages with which a listener failed -> how often; and those of them that the cursor does not pass, since they come again. @type {Map<string, number>} */
  #failures = new Map();
  /** @type {Set<string>} */
  #holding = new Set();

  /**
   * @param {string} userId
   * @param {string | null} cursor where to go on
   * @param {(item: Item) => void} show shows a message; after this, `shown` must be called
   * @param {(message: Message) => void} acknowledge says that a message need not come again
   */
  constructor(userId, cursor, show, acknowledge) {
    this.userId = userId;
    this.cursor = cursor;
    this.#show = show;
    this.#acknowledge = acknowledge;
  }

  /** HELLO_ACK came: everything after its cursor follows. @param {import("./wire.js").Data} data */
  greeted({ user_id: userId, cursor, resumed }) {
    if (typeof userId === "string") this.userId = userId; // as the server writes it
    if (typeof cursor === "string" && (resumed !== "full" || this.cursor === null)) this.cursor = cursor;
    if (resumed !== "full") this.#holding.clear(); // the server says where it goes on
    if (resumed !== "full" && resumed !== "partial") {
      this.#lastSeq = this.#position = 0;
      this.#mailbox += 1;
    }
  }

  /** A message came. @param {Message} message @param {unknown} cursor */
  take(message, cursor) {
    const { from, to, messageId, seq } = message;
    const item = { message, key: `${messageId} ${from} ${to}`, cursor, mailbox: this.#mailbox };
    if (this.#pending.has(item.key)) return;
    const isPassed = seq !== undefined && seq <= this.#lastSeq && !this.#failures.has(item.key);
    if (isPassed || this.#seen.has(item.key)) {
      if (this.#pending.size === 0) this.#arrived(item);
      else this.#acknowledge(message);
      return;
    }
    this.#lastSeq = Math.max(this.#lastSeq, seq ?? 0);
    this.#pending.add(item.key);
    this.#show(item);
  }

  /** The listeners of a message are done, `isWell` if none has failed. @param {Item} item @param {boolean} isWell */
  shown(item, isWell) {
    const { key, message } = item;
    this.#pending.delete(key);
    this.#holding.delete(key);
    const times = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.delete(key);
    // Nobody repeats what an own device has sent.
    if (isWell || message.own || times >= SHOWN_MAX) {
      this.#remember(key);
      this.#arrived(item);
      return;
    }
    this.#failures.set(key, times);
    if (item.mailbox === this.#mailbox) this.#holding.add(key);
    if (this.#failures.size > REMEMBERED_MAX) {
      const [oldest] = this.#failures.keys();
      this.#failures.delete(oldest);
      this.#holding.delete(oldest);
    }
  }

  /** A message need not come again: the cursor goes on, never back. @param {Item} item */
  #arrived({ message, cursor, mailbox }) {
    const { seq = 0 } = message;
    if (mailbox === this.#mailbox && this.#holding.size === 0 && seq > this.#position && typeof cursor === "string") {
      this.#position = seq;
      this.cursor = cursor;
    }
    this.#acknowledge(message);
  }

  /** @param {string} key */
  #remember(key) {
    this.#seen.add(key);
    if (this.#seen.size > REMEMBERED_MAX) {
      const [oldest] = this.#seen;
      this.#seen.delete(oldest);
    }
  }
}
