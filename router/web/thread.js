// @ts-check
/**
 * The messages of one chat, in one order, each once. Knows nothing of the document or of the network.
 *
 * Three sources are brought together by sender and message id: what arrives live, what is written here, and pages of history. History
 * wins: it has the server's times, and its order, which is not that of the times when a clock was put back. What waits to be sent comes
 * last.
 */

/** @typedef {"queued" | "sent" | "stored" | "accepted" | "delivered" | "read" | "failed" | ""} Status */
/**
 * @typedef {object} Item
 * @property {string} key sender and message id
 * @property {string} messageId
 * @property {boolean} own
 * @property {string} content
 * @property {number} at when it was sent, in milliseconds since 1970
 * @property {number} seq its position among the messages to us; 0 if it is not known
 * @property {number} order the larger, the later; infinite as long as the server does not have it
 * @property {number} serial the order of arrival here
 * @property {Status} status what became of an own message
 * @property {string} problem why it failed or waits, in words
 * @property {string} note what the server has changed in it, in words
 * @property {number} retryAt when it is sent again; 0: at once
 * @property {boolean} isVague the server has it, but what became of it is not known
 * @property {boolean} unseen it came for us, and has not been seen
 */
/** @typedef {{from: string, to: string, content: string, messageId: string, timestamp: string, seq?: number, read?: true}} Message */

/** How far an own message has come; it never goes back once the server has it. @type {Record<string, number>} */
const PROGRESS = { failed: 0, queued: 0, sent: 0, stored: 1, accepted: 1, delivered: 2, read: 3 };
/** What becomes of a text in which something could be taken for HTML. */
const CUT = "Markup was removed. This is what was sent.";
const SPACED = "A space was added, so that nothing is taken for markup.";
/** Milliseconds that put one message behind another. */
const BEHIND = 0.001;

export class Thread {
  /** @param {string} me the user id of whoever looks at it */
  constructor(me) {
    this.me = me;
    /** Oldest first. @type {Item[]} */
    this.items = [];
    /** @type {Map<string, Item>} */
    this.byKey = new Map();
    /** Where the next older page begins; null: there is none; undefined: no page has been loaded. @type {string | null | undefined} */
    this.next = undefined;
    this.serial = 0;
  }

  /** A message that has arrived now, from the other side or by another device of ours. @param {Message} message @returns {Item} */
  arrive(message) {
    const known = this.byKey.get(this.keyOf(message));
    if (known) return this.confirm(known, message);
    const at = Date.parse(message.timestamp);
    const item = this.put(message, at, Math.max(at, this.latest() + BEHIND));
    this.sort();
    return item;
  }

  /** A message that is being sent from here. @param {string} messageId @param {string} content @param {number} at @returns {Item} */
  write(messageId, content, at) {
    const known = this.byKey.get(`${this.me}|${messageId}`);
    if (known) return known;
    const message = { from: this.me, to: "", content, messageId, timestamp: "" };
    const item = this.put(message, at, Infinity);
    item.status = "queued";
    this.sort();
    return item;
  }

  /**
   * What became of an own message.
   * @param {string} messageId
   * @param {Status} status
   */
  progress(messageId, status) {
    const item = this.byKey.get(`${this.me}|${messageId}`);
    if (!item || PROGRESS[status] < PROGRESS[item.status]) return;
    const hasArrived = PROGRESS[status] >= PROGRESS.accepted;
    if (item.order === Infinity && hasArrived) {
      item.at = Date.now();
      item.order = Math.max(item.at, this.latest() + BEHIND);
      this.sort();
    }
    item.status = status;
    if (hasArrived) item.isVague = false;
    this.infer();
  }

  /** The server has stored this of an own message: show what the other side gets. @param {Item} item @param {string} content @returns {boolean} whether that is something else */
  correct(item, content) {
    if (content === item.content) return false;
    item.note = withoutSpace(content) === withoutSpace(item.content) ? SPACED : CUT;
    item.content = content;
    return true;
  }

  /** Of what is only known to be on the server, assume that it has come as far as a later message. */
  infer() {
    /** @type {Status} */
    let reached = "accepted";
    for (const item of this.items.toReversed()) {
      if (!item.own) continue;
      if (PROGRESS[item.status] > PROGRESS[reached]) reached = item.status;
      else if (item.isVague) item.status = reached;
    }
  }

  /**
   * A page of history.
   * @param {Message[]} messages newest first
   * @param {string | null} next
   * @param {boolean} newest whether it is the newest page there is
   */
  merge(messages, next, newest) {
    const oldest = Math.min(...messages.map((message) => Date.parse(message.timestamp)));
    const before = this.items.filter((item) => item.order < oldest);
    const orders = this.place(messages, newest);
    let overlaps = false;
    for (const [index, message] of messages.entries()) {
      const known = this.byKey.get(this.keyOf(message));
      overlaps ||= known !== undefined;
      if (known) this.confirm(known, message, orders[index]);
      else this.put(message, Date.parse(message.timestamp), orders[index]);
    }
    if (newest && messages.length && before.length && !overlaps) {
      // Something that we don't have lies between what we had and this page: start again from here.
      for (const item of before) this.byKey.delete(item.key);
      this.items = this.items.filter((item) => this.byKey.has(item.key));
      this.next = next;
    }
    if (!newest || this.next === undefined) this.next = next;
    this.sort();
    this.infer();
  }

  /**
   * Where the messages of a page belong: each behind the older ones, as near to its time as that leaves it.
   * @param {Message[]} messages newest first
   * @param {boolean} newest
   * @returns {number[]}
   */
  place(messages, newest) {
    const times = messages.map((message) => Date.parse(message.timestamp));
    const page = new Set(messages.map((message) => this.keyOf(message)));
    const begin = this.items.findIndex((item) => page.has(item.key));
    if (newest) {
      // Behind what we have from before the page.
      let last = this.items.slice(0, Math.max(0, begin)).findLast((item) => item.order !== Infinity)?.order ?? 0;
      return times
        .toReversed()
        .map((time) => (last = Math.max(time, last + BEHIND)))
        .toReversed();
    }
    // Before all that we have.
    let next = this.items.find((item) => !page.has(item.key))?.order ?? Infinity;
    return times.map((time) => (next = Math.min(time, next - BEHIND)));
  }

  /** Forget an own message that failed. @param {string} messageId */
  remove(messageId) {
    this.byKey.delete(`${this.me}|${messageId}`);
    this.items = this.items.filter((item) => this.byKey.has(item.key));
  }

  /** @param {{from: string, messageId: string}} message */
  keyOf(message) {
    return `${message.from}|${message.messageId}`;
  }

  /** @returns {boolean} whether something was written here that the server does not have */
  get waits() {
    return this.items.at(-1)?.order === Infinity;
  }

  /** @returns {number} the order of the last message that the server has */
  latest() {
    return this.items.findLast((item) => item.order !== Infinity)?.order ?? 0;
  }

  /**
   * The server's word on a message that we have.
   * @param {Item} item
   * @param {Message} message
   * @param {number} [order] where it belongs, if that is known
   * @returns {Item}
   */
  confirm(item, message, order) {
    item.at = Date.parse(message.timestamp);
    if (order !== undefined) item.order = order;
    else if (item.order === Infinity) item.order = Math.max(item.at, this.latest() + BEHIND);
    item.seq ||= message.seq ?? 0;
    item.content = message.content;
    if (item.own && PROGRESS[item.status] < PROGRESS.accepted) item.status = "accepted";
    if (message.read) this.wasRead(item);
    item.problem = "";
    this.sort();
    return item;
  }

  /** The recipient has read it, says the server. @param {Item} item */
  wasRead(item) {
    item.unseen = item.isVague = false;
    if (item.own) item.status = "read";
  }

  /** Of the other side's messages only so many at the end have not been seen. @param {number} count */
  sawAllBut(count) {
    const theirs = this.items.filter(({ own }) => !own);
    for (const item of theirs.slice(0, theirs.length - count)) item.unseen = false;
  }

  /** @param {Message} message @param {number} at @param {number} order @returns {Item} */
  put(message, at, order) {
    const own = message.from === this.me;
    /** @type {Item} */
    const item = {
      key: this.keyOf(message),
      messageId: message.messageId,
      own,
      content: message.content,
      at,
      seq: message.seq ?? 0,
      order,
      serial: this.serial++,
      status: own ? "accepted" : "",
      problem: "",
      note: "",
      retryAt: 0,
      isVague: own && order !== Infinity,
      unseen: false,
    };
    if (message.read) this.wasRead(item);
    this.byKey.set(item.key, item);
    this.items.push(item);
    return item;
  }

  sort() {
    this.items.sort((a, b) => {
      if (a.order !== b.order) return a.order - b.order;
      // Two that crossed in the same millisecond stand in the same order for both sides.
      return a.order === Infinity ? a.serial - b.serial : a.key < b.key ? -1 : 1;
    });
  }
}

/** @param {string} text @returns {string} */
const withoutSpace = (text) => text.replace(/\s/gu, "");
