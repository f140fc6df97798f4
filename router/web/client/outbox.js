// @ts-check
/** Messages of ours: each is sent until the server has it, and followed until the recipient has read it. */

import { deferred, FastChatError, Sent } from "./models.js";
import { SECOND } from "./timers.js";
import { canonical, RANK, unsendable } from "./wire.js";

/** @typedef {import("./models.js").Deferred} Deferred */
/** @typedef {import("./fastchat.d.ts").Status} Status */
/**
 * A message of ours.
 * @typedef {object} Outgoing
 * @property {Sent} sent what the program has of it
 * @property {number} at when it was written
 * @property {Deferred} accepted
 * @property {Deferred} delivered
 * @property {Deferred} read
 */

/** Messages whose receipts are followed; those that are asked about after a reconnection, while younger than any retention. */
const FOLLOWED_MAX = 1000;
const ASKED_MAX = 32;
const ASKED_WITHIN = 12 * 3600 * SECOND;

/** @param {string} messageId @param {string} to */
const keyOf = (messageId, to) => `${messageId} ${canonical(to)}`;

/** The messages of one client whose status may still change. */
export class Outbox {
  #link;
  #timers;
  #requests;
  #port;
  /** By id and recipient, the oldest first. @type {Map<string, Outgoing>} */
  #outgoing = new Map();

  /**
   * @param {import("./wire.js").Link} link
   * @param {import("./timers.js").Timers} timers
   * @param {import("./requests.js").Requests} requests
   * @param {{changed: (sent: Sent) => void, begun: (to: string) => void, accepted: (sent: Sent) => void}} port is told of each change of a message,
   *   of each new one, and of each that the server has
   */
  constructor(link, timers, requests, port) {
    this.#link = link;
    this.#timers = timers;
    this.#requests = requests;
    this.#port = port;
  }

  /**
   * Send a message. What is returned shows what becomes of it, and is an earlier one if this is its repeat.
   * @param {string} to
   * @param {string} content
   * @param {string} messageId
   */
  send(to, content, messageId) {
    const known = this.#outgoing.get(keyOf(messageId, to));
    if (known && [known.sent.original, known.sent.content].includes(content)) return known.sent;
    const [accepted, delivered, read] = [deferred(), deferred(), deferred()];
    const sent = new Sent(messageId, to, content, [accepted.promise, delivered.promise, read.promise]);
    const outgoing = { sent, at: this.#timers.now(), accepted, delivered, read };
    let problem = unsendable(to, content, messageId);
    if (known) problem = new FastChatError("VALIDATION", "this messageId was used for another content");
    const { closed } = this.#link;
    if (closed) problem = new FastChatError("CLOSED", closed.reason);
    if (problem) {
      this.fail(outgoing, problem);
    } else {
      this.#outgoing.set(keyOf(messageId, to), outgoing);
      this.#port.begun(to);
      this.#requests.send(outgoing);
    }
    return sent;
  }

  /** The message of this id, to this user if the server says to whom. @param {string} messageId @param {string} [to] */
  find(messageId, to) {
    if (to !== undefined) return this.#outgoing.get(keyOf(messageId, to));
    return [...this.#outgoing.values()].find(({ sent }) => sent.messageId === messageId);
  }

  /** Receipts that were missed: the answer to a repeated message is its state now. */
  askAgain() {
    const since = this.#timers.now() - ASKED_WITHIN;
    const accepted = [...this.#outgoing.values()].filter(({ sent, at }) => RANK[sent.status] > 0 && at >= since);
    for (const outgoing of accepted.slice(-ASKED_MAX)) {
      if (!this.#requests.has(outgoing)) this.#requests.send(outgoing, true);
    }
  }

  /** It is on its way, or waits to be sent again. @param {Outgoing} outgoing @param {"queued" | "sent"} status @param {FastChatError | null} error */
  change({ sent }, status, error) {
    Object.assign(sent, { status, error });
    this.#port.changed(sent);
  }

  /** The server will never have it. @param {Outgoing} outgoing @param {FastChatError} error */
  fail({ sent, accepted, delivered, read }, error) {
    Object.assign(sent, { status: "failed", error });
    const key = keyOf(sent.messageId, sent.to);
    if (this.#outgoing.get(key)?.sent === sent) this.#outgoing.delete(key);
    for (const { reject } of [accepted, delivered, read]) reject(error);
    this.#port.changed(sent);
  }

  /**
   * The server says how far a message has come, and what it has stored. It may say so more than once, and in any order.
   * @param {Outgoing} outgoing
   * @param {Status} status
   * @param {unknown} content
   */
  progress(outgoing, status, content) {
    const { sent, accepted, delivered, read } = outgoing;
    const isFurther = RANK[status] > RANK[sent.status];
    const isOther = typeof content === "string" && content !== sent.content;
    if (isOther) sent.content = content;
    if (isFurther) {
      if (RANK[sent.status] === 0) {
        this.#forgetOldest();
        this.#port.accepted(sent);
      }
      Object.assign(sent, { status, error: null });
      for (const { resolve } of [accepted, delivered, read].slice(0, RANK[status])) resolve(sent);
      if (status === "read") this.#outgoing.delete(keyOf(sent.messageId, sent.to));
    }
    this.#requests.settled(outgoing, status === "read");
    if (isFurther || isOther) this.#port.changed(sent);
  }

  /** The client has ended: no receipts come any more. @param {FastChatError} error */
  end(error) {
    for (const { delivered, read } of this.#outgoing.values()) for (const { reject } of [delivered, read]) reject(error);
    this.#outgoing.clear();
  }

  #forgetOldest() {
    if (this.#outgoing.size <= FOLLOWED_MAX) return;
    const oldest = [...this.#outgoing.entries()].find(([, { sent }]) => RANK[sent.status] > 0);
    if (!oldest) return;
    const [key, { delivered, read }] = oldest;
    this.#outgoing.delete(key);
    const error = new FastChatError("FORGOTTEN", `${FOLLOWED_MAX} newer messages are followed instead`);
    for (const { reject } of [delivered, read]) reject(error);
  }
}
