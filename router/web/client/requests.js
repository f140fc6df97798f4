// @ts-check
/**
 * Requests that wait for the server's answer: MSG, OPEN_CHAT and HISTORY.
 *
 * They wait in *lanes*, one for the messages to each person and one for each of the other two. Only the first of a lane is on its way at a
 * time, so order survives every failure, and an ERROR that does not say what it is about can be assigned.
 */

import { again } from "./backoff.js";
import { deferred, FastChatError } from "./models.js";
import { SECOND } from "./timers.js";
import { canonical, retryAfter, same } from "./wire.js";

/** @typedef {import("./wire.js").Data} Data */
/** @typedef {import("./outbox.js").Outgoing} Outgoing */
/** @typedef {import("./fastchat.d.ts").Chat} Chat */
/**
 * @typedef {object} Request
 * @property {string} kind the type of the message
 * @property {Data} data
 * @property {Outgoing} [outgoing] the message of ours that it sends
 * @property {boolean} asks whether that is repeated only to learn its state
 * @property {number} tries how often it has failed
 * @property {boolean} reopened whether the chat has been opened again for it
 * @property {import("./models.js").Deferred} answer
 */
/**
 * @typedef {object} Lane
 * @property {Request[]} queue
 * @property {boolean} busy whether the first one is on its way
 * @property {boolean} held whether it may not be sent yet
 * @property {import("./timers.js").Timer | null} timer
 */
/**
 * What requests need of the conversation.
 * @typedef {object} Port
 * @property {(userId: string) => Chat | undefined} chatWith
 * @property {(chat: Chat) => Promise<Chat>} reopen opens a chat again that the server has forgotten
 * @property {(outgoing: Outgoing, status: "queued" | "sent", error: FastChatError | null) => void} changed
 * @property {(outgoing: Outgoing, error: FastChatError) => void} failed
 */

/** The server answers within 5 s, if only with MESSAGE_FAILED; so after this the answer is lost. */
const ANSWER_TIMEOUT = 15 * SECOND;
const HISTORY_TRIES = 5;
/** Messages that may be on their way at once, over all lanes. The server stops reading from a client at 256. */
const IN_FLIGHT_MAX = 64;

/** The lane of the messages to somebody. @param {string} to */
const laneOf = (to) => `MSG ${canonical(to)}`;

/** All lanes of a client. */
export class Requests {
  #link;
  #timers;
  #random;
  #port;
  /** Name -> lane. @type {Map<string, Lane>} */
  #lanes = new Map();
  /** The timer while RATE_LIMITED holds all messages. @type {import("./timers.js").Timer | null} */
  #limited = null;

  /**
   * @param {import("./wire.js").Link} link
   * @param {import("./timers.js").Timers} timers
   * @param {() => number} random
   * @param {Port} port
   */
  constructor(link, timers, random, port) {
    this.#link = link;
    this.#timers = timers;
    this.#random = random;
    this.#port = port;
  }

  /** Ask for something; what is returned is the answer. @param {"OPEN_CHAT" | "HISTORY"} kind @param {Data} data @returns {Promise<any>} */
  ask(kind, data) {
    return this.#add(kind, kind, data);
  }

  /** Send a message, `asks` only to learn its state. @param {Outgoing} outgoing @param {boolean} [asks] */
  send(outgoing, asks = false) {
    const { to, original: content, messageId } = outgoing.sent;
    void this.#add(laneOf(to), "MSG", { to, content, message_id: messageId }, outgoing, asks);
  }

  /** Whether a message waits in its lane. @param {Outgoing} outgoing */
  has(outgoing) {
    return Boolean(this.#lanes.get(laneOf(outgoing.sent.to))?.queue.some((request) => request.outgoing === outgoing));
  }

  /** Send what may be sent. */
  pump() {
    for (const [name, lane] of this.#lanes) {
      if (!this.#link.isOnline) return;
      const request = lane.queue[0];
      if (!request) this.#lanes.delete(name);
      if (!request || lane.busy || lane.held) continue;
      if (request.kind === "HISTORY" && !this.#link.capabilities.has("history")) {
        this.#failed(lane, new FastChatError("UNSUPPORTED", "this server has no history"));
        continue;
      }
      if (request.kind === "MSG" && (this.#limited !== null || this.#inFlight() >= IN_FLIGHT_MAX)) continue;
      lane.busy = true;
      const overdue = new FastChatError("MESSAGE_FAILED", "the server did not answer");
      lane.timer = this.#timers.deadline(ANSWER_TIMEOUT, () => this.#failed(lane, overdue));
      this.#link.write(request.kind, request.data);
      this.#change(request, "sent", null);
    }
  }

  /** The connection is lost; what was on its way goes out again on the next one, if there `isNext` one. @param {boolean} isNext */
  lost(isNext) {
    for (const lane of this.#lanes.values()) {
      if (!lane.busy) continue;
      this.#idle(lane);
      if (isNext) this.#change(lane.queue[0], "queued", null);
    }
  }

  /** The client has ended: nothing of this will be done. @param {FastChatError} error */
  end(error) {
    this.#timers.stop(this.#limited);
    for (const { queue, timer } of this.#lanes.values()) {
      this.#timers.stop(timer);
      for (const request of queue.splice(0)) this.#refuse(request, error);
    }
    this.#lanes.clear();
  }

  /** OPEN_CHAT or HISTORY about somebody was answered. @param {"OPEN_CHAT" | "HISTORY"} kind @param {string} peer @param {unknown} value */
  answered(kind, peer, value) {
    const lane = this.#lanes.get(kind);
    if (lane?.busy && same(peerOf(lane.queue[0]), peer)) this.#done(lane, value);
  }

  /** The server has a message; `isOver` if nothing about it can change any more. @param {Outgoing} outgoing @param {boolean} isOver */
  settled(outgoing, isOver) {
    const lane = this.#lanes.get(laneOf(outgoing.sent.to));
    if (!lane) return;
    const place = lane.queue.findIndex((request) => request.outgoing === outgoing);
    if (place === 0) this.#done(lane, outgoing.sent);
    else if (place > 0 && (isOver || !lane.queue[place].asks)) lane.queue.splice(place, 1);
  }

  /** An ERROR came. Whether it is certain which request it is about. @param {FastChatError} error */
  refused(error) {
    const { message_id: messageId, type } = error.details;
    const lanes = [...this.#lanes.values()].filter(
      ({ busy, queue: [first] }) =>
        busy && (type ?? first.kind) === first.kind && (messageId ?? first.data.message_id) === first.data.message_id,
    );
    if (lanes.length !== 1) return false;
    this.#failed(lanes[0], error);
    return true;
  }

  /**
   * Put a request into a lane.
   * @param {string} name
   * @param {string} kind
   * @param {Data} data
   * @param {Outgoing} [outgoing]
   * @param {boolean} [asks]
   * @returns {Promise<any>}
   */
  #add(name, kind, data, outgoing, asks = false) {
    /** @type {Request} */
    const request = { kind, data, outgoing, asks, tries: 0, reopened: false, answer: deferred() };
    const { closed } = this.#link;
    if (closed) {
      this.#refuse(request, new FastChatError("CLOSED", closed.reason));
    } else {
      const lane = this.#lanes.get(name) ?? { queue: [], busy: false, held: false, timer: null };
      this.#lanes.set(name, lane);
      lane.queue.push(request);
      this.pump();
    }
    return request.answer.promise;
  }

  #inFlight() {
    return [...this.#lanes.values()].filter(({ busy, queue }) => busy && queue[0].kind === "MSG").length;
  }

  /** @param {Lane} lane */
  #idle(lane) {
    this.#timers.stop(lane.timer);
    lane.busy = lane.held = false;
  }

  /** The first of this lane has its answer. @param {Lane} lane @param {unknown} value */
  #done(lane, value) {
    this.#idle(lane);
    lane.queue.shift()?.answer.resolve(value);
    this.pump();
  }

  /** The first of this lane was refused, or not confirmed. @param {Lane} lane @param {FastChatError} error */
  #failed(lane, error) {
    const request = lane.queue[0];
    this.#idle(lane);
    const wait = this.#waitAfter(request, error);
    const peer = request.kind === "OPEN_CHAT" ? null : peerOf(request);
    const chat = peer ? this.#port.chatWith(peer) : undefined;
    if (request.asks) {
      lane.queue.shift();
    } else if (wait !== null) {
      if (error.code === "RATE_LIMITED" && request.kind === "MSG") this.#limit(wait);
      else this.#hold(lane, wait);
      this.#change(request, "queued", error);
    } else if (error.code === "CHAT_NOT_OPENED" && chat && !request.reopened) {
      this.#reopen(lane, chat, error);
    } else {
      lane.queue.shift();
      this.#refuse(request, error);
    }
    this.pump();
  }

  /** After how long to send a request again that has failed; null for never. @param {Request} request @param {FastChatError} error */
  #waitAfter(request, error) {
    if (error.code === "RATE_LIMITED") return retryAfter(error);
    if (error.code !== "MESSAGE_FAILED") return null;
    request.tries += 1;
    const isLast = request.kind === "HISTORY" && request.tries >= HISTORY_TRIES;
    return isLast ? null : again(this.#random, request.tries - 1);
  }

  /** The server has forgotten the chat: the first of this lane waits until it is open again. @param {Lane} lane @param {Chat} chat @param {FastChatError} error */
  #reopen(lane, chat, error) {
    const request = lane.queue[0];
    request.reopened = lane.held = true;
    this.#change(request, "queued", error);
    const goOn = (/** @type {FastChatError | null} */ failure) => {
      if (lane.queue[0] !== request || !lane.held) return;
      lane.held = false;
      if (failure) this.#failed(lane, failure);
      else this.pump();
    };
    this.#port.reopen(chat).then(() => goOn(null), goOn);
  }

  /** Let a lane wait. @param {Lane} lane @param {number} delay */
  #hold(lane, delay) {
    lane.held = true;
    lane.timer = this.#timers.after(delay, () => {
      lane.held = false;
      this.pump();
    });
  }

  /** Let all messages wait. @param {number} delay */
  #limit(delay) {
    this.#timers.stop(this.#limited);
    this.#limited = this.#timers.after(delay, () => {
      this.#limited = null;
      this.pump();
    });
  }

  /** This will never be done. @param {Request} request @param {FastChatError} error */
  #refuse({ answer, outgoing, asks }, error) {
    answer.reject(error);
    if (outgoing && !asks) this.#port.failed(outgoing, error);
  }

  /** @param {Request} request @param {"queued" | "sent"} status @param {FastChatError | null} error */
  #change({ outgoing, asks }, status, error) {
    if (outgoing && !asks) this.#port.changed(outgoing, status, error);
  }
}

/** Whom a request is about. @param {Request} request @returns {string} */
const peerOf = ({ data }) => data.to ?? data.with ?? data.target_user_id;
