// @ts-check
/**
 * When to say READ, to a server that takes it for all that came before (the capability `chats`): for the newest message of each sender, at most
 * once a second. What does not fit into the server's limit waits; the repeater says again what a lost connection may have swallowed.
 */

import { SECOND } from "./timers.js";
import { canonical } from "./wire.js";

/** @typedef {{message_id: string, from: string}} Read */

/** Between two READs to one sender. */
const READ_INTERVAL = 1 * SECOND;
/** READs in a window: the server's limit is 60 a minute for all devices of the user together. */
const READ_MAX = 50;
const READ_WINDOW = 61 * SECOND;
/** Messages of one sender whose order is known, and senders: the newest ones. */
const ORDERED_MAX = 100;
const SENDERS_MAX = 1000;

/** In which order the newest messages of each sender came. */
export class Arrivals {
  /** Sender -> message ids, oldest first. @type {Map<string, string[]>} */
  #ids = new Map();

  /** A message came live. @param {string} sender @param {string} messageId */
  came(sender, messageId) {
    const ids = this.#ids.get(canonical(sender)) ?? [];
    this.#put(canonical(sender), ids.includes(messageId) ? ids : [...ids, messageId]);
  }

  /**
   * The newest page of a history came: the ids of what the sender wrote, oldest first. What came since then is behind them.
   * @param {string} sender
   * @param {string[]} messageIds
   */
  page(sender, messageIds) {
    if (messageIds.length === 0) return;
    const known = this.#ids.get(canonical(sender)) ?? [];
    const place = known.indexOf(messageIds[messageIds.length - 1]);
    this.#put(canonical(sender), [...messageIds, ...(place < 0 ? [] : known.slice(place + 1))]);
  }

  /** A number that is larger for later messages; -1 for one that is not known, and so older. @param {string} sender @param {string} messageId */
  place(sender, messageId) {
    return this.#ids.get(canonical(sender))?.indexOf(messageId) ?? -1;
  }

  /** How many messages of the sender came later; null if that is not known. @param {string} sender @param {string} messageId */
  behind(sender, messageId) {
    const ids = this.#ids.get(canonical(sender)) ?? [];
    const place = ids.indexOf(messageId);
    return place < 0 ? null : ids.length - 1 - place;
  }

  /** @param {string} peer @param {string[]} ids */
  #put(peer, ids) {
    this.#ids.delete(peer);
    this.#ids.set(peer, ids.slice(-ORDERED_MAX));
    const [oldest] = this.#ids.keys();
    if (this.#ids.size > SENDERS_MAX) this.#ids.delete(oldest);
  }
}

/** What the user has read and the server is to be told, on one connection. */
export class Reading {
  #arrivals;
  #timers;
  #say;
  /** Sender -> the READ that is still to be said, and the newest message that was marked. @type {Map<string, Read>} */
  #pending = new Map();
  /** @type {Map<string, string>} */
  #marked = new Map();
  /** Sender -> when the next READ may be said. @type {Map<string, number>} */
  #nextAt = new Map();
  /** When READs went out, until when the server wants none, and what says the next one. @type {number[]} */
  #sent = [];
  #pausedUntil = 0;
  /** @type {import("./timers.js").Timer | null} */
  #timer = null;

  /**
   * @param {Arrivals} arrivals
   * @param {import("./timers.js").Timers} timers
   * @param {(read: Read) => void} say puts a READ on the wire
   */
  constructor(arrivals, timers, say) {
    this.#arrivals = arrivals;
    this.#timers = timers;
    this.#say = say;
  }

  /** Say a READ, unless a later message of the sender was marked. Whether it was taken; after this, `pump`. @param {Read} read */
  mark(read) {
    const { from, message_id: messageId } = read;
    const peer = canonical(from);
    const marked = this.#marked.get(peer);
    if (marked === messageId) return false;
    if (marked !== undefined && this.#arrivals.place(from, messageId) < this.#arrivals.place(from, marked)) return false;
    this.#marked.set(peer, messageId);
    this.#pending.set(peer, read);
    return true;
  }

  /** The READ for this sender that is still to be said. @param {string} peer as `canonical` has it */
  pending(peer) {
    const read = this.#pending.get(peer);
    return read ? [read] : [];
  }

  /** Say what may be said. There must be a connection. */
  pump() {
    const now = this.#timers.now();
    this.#sent = this.#sent.filter((at) => at > now - READ_WINDOW);
    for (const [peer, at] of this.#nextAt) if (at <= now) this.#nextAt.delete(peer);
    for (const [peer, read] of this.#pending) {
      if (now < this.#pausedUntil || this.#sent.length >= READ_MAX) break;
      if (this.#nextAt.has(peer)) continue;
      this.#sent.push(now);
      this.#nextAt.set(peer, now + READ_INTERVAL);
      this.#pending.delete(peer);
      this.#say(read);
    }
    this.#wait(now);
  }

  /** Say what is still to be said, as far as the limit allows: the connection is about to be closed. */
  finish() {
    this.#nextAt.clear();
    this.pump();
  }

  /**
   * The server has refused one of these, most likely one of the last: they are said again, the last one first, behind what was not said at all.
   * @param {Read[]} unconfirmed
   * @param {number} pause
   */
  limited(unconfirmed, pause) {
    this.#pausedUntil = Math.max(this.#pausedUntil, this.#timers.now() + pause);
    for (const read of [...unconfirmed].reverse()) {
      const peer = canonical(read.from);
      if (!this.#pending.has(peer)) this.#pending.set(peer, read);
    }
    this.pump();
  }

  /** The connection is lost: what was not said belongs to the next one, which begins anew. */
  takeAll() {
    this.#timers.stop(this.#timer);
    const taken = [...this.#pending.values()];
    this.#pending.clear();
    this.#marked.clear();
    this.#nextAt.clear();
    return taken;
  }

  /** @param {number} now */
  #wait(now) {
    this.#timers.stop(this.#timer);
    if (this.#pending.size === 0) return;
    const places = [...this.#pending.keys()].map((peer) => this.#nextAt.get(peer) ?? 0);
    const isFull = this.#sent.length >= READ_MAX;
    const at = Math.max(this.#pausedUntil, isFull ? this.#sent[0] + READ_WINDOW : 0, Math.min(...places));
    this.#timer = this.#timers.after(Math.max(0, at - now), () => this.pump());
  }
}
