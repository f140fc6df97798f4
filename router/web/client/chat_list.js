// @ts-check
/**
 * The list of chats as the server has it: pages that were asked for, with the changes that came since.
 *
 * The order is that of last activity, which is not on the wire. So each chat has a *rank*: the timestamp of its last message, corrected where a
 * page shows another order. Changes keep the list true as long as a connection lasts; on the next one all of it is asked for again, and what
 * is not in these pages has left.
 */

import { canonical } from "./wire.js";

/** @typedef {import("./fastchat.d.ts").ChatEntry} ChatEntry */
/** @typedef {import("./fastchat.d.ts").LastMessage} LastMessage */
/**
 * Where a chat stands: by `at`, then by `userId`, then by `depth`, which says the order of two that have the same above; the highest is the first.
 * @typedef {{at: string, userId: string, depth: number}} Rank
 */
/** @typedef {{entry: ChatEntry, rank: Rank}} Kept a chat of the list */

/** Characters of a last message that a list shows. */
const LAST_CHARACTERS = 200;
/** Makes a rank later than the timestamp before it, and earlier than the next millisecond. */
const LATER = "~";
/** Ends of pages that are remembered, to know where the next page begins. */
const ENDS_MAX = 1000;
/** Below all chats, and where a chat without a last message stands if nothing else is known. @type {Rank} */
const BOTTOM = { at: "", userId: "", depth: -Infinity };
/** @type {Rank} */
const NOWHERE = { at: "", userId: "", depth: 0 };

/** Compare as `sort` wants it, lowest first. @param {Rank} one @param {Rank} other */
function compare(one, other) {
  if (one.at !== other.at) return one.at < other.at ? -1 : 1;
  if (one.userId !== other.userId) return one.userId < other.userId ? -1 : 1;
  return one.depth === other.depth ? 0 : one.depth - other.depth;
}

/** @param {ChatEntry} entry @returns {Rank} */
const rankOf = ({ last, userId }) => ({ at: last?.timestamp ?? "", userId, depth: 0 });

/** @param {Rank} rank @param {number} by */
const moved = (rank, by) => ({ ...rank, depth: rank.depth + by });

/** @param {ChatEntry} one @param {ChatEntry} other */
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** The chats that are known, from the first page on. */
export class ChatList {
  /** Whether a page has come. */
  isKept = false;
  /** The latest timestamp of a message that has come, of which the server may still have to tell the change. */
  latest = "";
  /** User id -> chat; with those that are hidden. @type {Map<string, Kept>} */
  #chats = new Map();
  /** `next` of a page -> the rank of its last chat. @type {Map<string, Rank>} */
  #ends = new Map();
  /** The rank down to which pages without a gap have come; and down to which they are to come again. @type {Rank | null} */
  #lowest = null;
  /** @type {Rank | null} */
  #goal = null;
  /** Chats of the pages since `startOver`. @type {Set<string>} */
  #seen = new Set();
  /** @type {readonly ChatEntry[] | null} */
  #ordered = null;

  /** The list: chats that are not hidden, the last one that was written in first. */
  get ordered() {
    this.#ordered ??= [...this.#chats.values()]
      .filter(({ entry }) => !entry.hidden)
      .sort((one, other) => compare(other.rank, one.rank))
      .map(({ entry }) => entry);
    return this.#ordered;
  }

  // -- From the server --

  /**
   * The page that begins at `before` came. The chats that look different now.
   * @param {string | undefined} before
   * @param {ChatEntry[]} entries
   * @param {string | null} next
   */
  page(before, entries, next) {
    const above = before === undefined ? null : (this.#ends.get(before) ?? null);
    const ranks = ranksOf(entries, above, this.#top());
    const end = next === null ? null : (ranks[ranks.length - 1] ?? null);
    if (next !== null && end) {
      this.#ends.set(next, end);
      const [oldest] = this.#ends.keys();
      if (this.#ends.size > ENDS_MAX) this.#ends.delete(oldest);
    }
    if (before === undefined || above) this.#cover(above, next === null ? BOTTOM : end);
    this.isKept = true;
    return entries.filter((entry, at) => this.#put(entry, ranks[at]));
  }

  /** Begin with the first page again, until `isCovered`; then `cut`. */
  startOver() {
    if (this.#lowest && (!this.#goal || compare(this.#lowest, this.#goal) < 0)) this.#goal = this.#lowest;
    this.#lowest = null;
    this.#seen.clear();
  }

  /** Whether the pages reach down to where they did before `startOver`. */
  get isCovered() {
    return !this.#goal || (this.#lowest !== null && compare(this.#lowest, this.#goal) <= 0);
  }

  /** Forget what has neither been in a page nor changed since `startOver`. Those that were shown. @returns {ChatEntry[]} */
  cut() {
    this.#goal = null;
    const gone = [...this.#chats].filter(([peer]) => !this.#seen.has(peer));
    for (const [peer] of gone) this.#chats.delete(peer);
    this.#ordered = null;
    return gone.filter(([, { entry }]) => !entry.hidden).map(([, { entry }]) => ({ ...entry, hidden: true }));
  }

  /** The server tells a change. @param {ChatEntry[]} entries */
  change(entries) {
    if (!this.isKept) return;
    for (const entry of entries) {
      const known = this.#chats.get(canonical(entry.userId));
      let rank = rankOf(entry);
      // That of a message of this client is an estimate, and others are compared with it.
      const isSameMessage = known && known.entry.last?.messageId === entry.last?.messageId;
      if (known && (isSameMessage || compare(known.rank, rank) > 0)) rank = known.rank;
      else if (!known && !entry.last && !entry.blocked) rank = this.#top(); // it was opened just now
      this.#put(entry, rank);
    }
  }

  // -- From this client: the server tells only the others of it --

  /** Whether the chat with a user is known; it may be hidden. @param {string} userId */
  isKnown(userId) {
    return this.#chats.has(canonical(userId));
  }

  /**
   * This client has sent a message. The chat as it is now, if it is known. Nothing that is known is later, whatever its `timestamp`, which is
   * an estimate. `here` is the time by the clock of this device, for when nothing else is known.
   * @param {string} userId
   * @param {LastMessage} message
   * @param {string} here
   */
  wrote(userId, message, here) {
    const chat = this.#chats.get(canonical(userId));
    if (!chat) return null;
    const { hidden: _hidden, ...before } = chat.entry;
    const top = this.#top();
    const known = top.at.replace(LATER, "");
    let { timestamp } = message;
    if (known > timestamp) timestamp = known;
    timestamp ||= here;
    const rank = { at: timestamp + LATER, userId: before.userId, depth: 0 };
    /** @type {ChatEntry} */
    const entry = { ...before, last: { ...message, timestamp, content: [...message.content].slice(0, LAST_CHARACTERS).join("") } };
    this.#put(entry, compare(rank, top) > 0 ? rank : top);
    return entry;
  }

  /**
   * This client has said READ: at most `unread` messages are left, none if it was the last. The chat, if that is new.
   * @param {string} userId
   * @param {number | null} unread
   * @param {string} messageId
   */
  read(userId, unread, messageId) {
    const known = this.#chats.get(canonical(userId));
    if (!known) return null;
    const left = unread ?? (known.entry.last?.messageId === messageId ? 0 : Infinity);
    if (left >= known.entry.unread) return null;
    const entry = { ...known.entry, unread: left };
    this.#put(entry, known.rank);
    return entry;
  }

  /**
   * Who is online, of these people or of all. The chats that look different by it.
   * @param {ReadonlyMap<string, string>} online
   * @param {Iterable<string>} userIds
   */
  online(online, userIds = [...this.#chats.values()].map(({ entry }) => entry.userId)) {
    const different = [];
    for (const userId of userIds) {
      const known = this.#chats.get(canonical(userId));
      if (!known || known.entry.online === online.has(userId)) continue;
      const entry = { ...known.entry, online: !known.entry.online };
      this.#put(entry, known.rank);
      different.push(entry);
    }
    return different;
  }

  // -- Inside --

  /** Put a chat where it belongs: whether it looks different. @param {ChatEntry} entry @param {Rank} rank */
  #put(entry, rank) {
    const peer = canonical(entry.userId);
    const known = this.#chats.get(peer);
    this.#chats.set(peer, { entry, rank });
    this.#seen.add(peer);
    this.#ordered = null;
    return !known || !isSame(known.entry, entry);
  }

  /** Note how far down the pages reach that have come. @param {Rank | null} above @param {Rank | null} lowest */
  #cover(above, lowest) {
    if (above && (!this.#lowest || compare(above, this.#lowest) < 0)) return; // there is a gap
    if (lowest && (!this.#lowest || compare(lowest, this.#lowest) < 0)) this.#lowest = lowest;
  }

  /** The rank above all others. */
  #top() {
    let highest = { ...NOWHERE, at: this.latest && this.latest + LATER };
    for (const { rank } of this.#chats.values()) if (compare(rank, highest) > 0) highest = rank;
    return moved(highest, 1);
  }
}

/**
 * The ranks of a page, which fall from one chat to the next. All are below the rank `above`, the end of the page before. Without one it is the
 * first page, and `top` is above all that is known.
 * @param {ChatEntry[]} entries
 * @param {Rank | null} above
 * @param {Rank} top
 */
function ranksOf(entries, above, top) {
  /** @type {Rank[]} */
  const ranks = [];
  for (const entry of [...entries].reverse()) {
    const below = ranks[0];
    const rank = rankOf(entry);
    if (below || entry.last) ranks.unshift(below && compare(rank, below) <= 0 ? moved(below, 1) : rank);
  }
  // Those at the end have no last message: they are just below the others.
  while (ranks.length < entries.length) ranks.push(moved(ranks[ranks.length - 1] ?? above ?? moved(top, entries.length), -1));
  let ceiling = above;
  for (const [at, rank] of ranks.entries()) {
    if (!ceiling || compare(rank, ceiling) < 0) break;
    ceiling = ranks[at] = moved(ceiling, -1);
  }
  return ranks;
}
