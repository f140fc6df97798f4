// @ts-check
/**
 * Requests that wait for the server's answer: MSG, OPEN_CHAT, HISTORY, CHATS, and HIDE, MUTE, BLOCK with their opposites.
 *
 * They wait in *lanes*, one for the messages to each person, one for each of the next three, and one for all that change the list of chats: the
 * answer to these is what the list shows, and what came out of two at once could not be told apart. Only the first of a lane is on its way at a
 * time, so order survives every failure, and an ERROR that does not say what it is about can be assigned.
 */

import { again } from "./backoff.js";
import { deferred, FastChatError } from "./models.js";
import { SECOND } from "./timers.js";
import { COMMANDS, canonical, NEEDED, retryAfter, same } from "./wire.js";

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
 * @property {boolean} isOwn whether the client asks for itself
 * @property {import("./models.js").Deferred} answer
 */
/** @typedef {import("./timers.js").Timer} Timer */
/** A lane: `busy` if the first one is on its way, `held` if it may not be sent yet. @typedef {{queue: Request[], busy: boolean, held: boolean, timer: Timer | null}} Lane */
/**
 * What requests need of the conversation.
 * @typedef {object} Port
 * @property {(userId: string) => Chat | undefined} chatWith
 * @property {(chat: Chat) => Promise<Chat>} reopen opens a chat again that the server has forgotten
 * @property {(outgoing: Outgoing, status: "queued" | "sent", error: FastChatError | null) => void} changed
 * @property {(outgoing: Outgoing, error: FastChatError) => void} failed
 */
/** @typedef {"HIDE" | "MUTE" | "UNMUTE" | "BLOCK" | "UNBLOCK"} Command */

/** The lane of all commands. */
const COMMAND = "command";

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
  /** The timer while RATE_LIMITED holds all messages. @type {Timer | null} */
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

  /** Ask for something, `isOwn` if for the client itself. @param {"OPEN_CHAT" | "HISTORY" | "CHATS" | Command} kind @param {Data} data @returns {Promise<any>} */
  ask(kind, data, isOwn = false) {
    return this.#add(kind in COMMANDS ? COMMAND : kind, { kind, data, isOwn });
  }

  /** Send a message, `asks` only to learn its state. @param {Outgoing} outgoing @param {boolean} [asks] */
  send(outgoing, asks = false) {
    const { to, original: content, messageId } = outgoing.sent;
    void this.#add(laneOf(to), { kind: "MSG", data: { to, content, message_id: messageId }, outgoing, asks });
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
      const [needed, problem] = NEEDED[request.kind] ?? [[], ""];
      if (needed.some((capability) => !this.#link.capabilities.has(capability))) {
        this.#failed(lane, new FastChatError("UNSUPPORTED", problem));
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

  /** OPEN_CHAT or HISTORY about somebody was answered: what was asked, if it was. @param {"OPEN_CHAT" | "HISTORY"} kind @param {string} peer @param {unknown} value */
  answered(kind, peer, value) {
    const request = this.current(kind);
    if (!request || !same(peerOf(request), peer)) return undefined;
    this.done(kind, value);
    return request;
  }

  /** What is on its way in a lane. @param {string} name */
  current(name) {
    const lane = this.#lanes.get(name);
    return lane?.busy ? lane.queue[0] : undefined;
  }

  /** What is on its way in a lane has its answer. @param {string} name @param {unknown} value */
  done(name, value) {
    const lane = this.#lanes.get(name);
    if (lane) this.#done(lane, value);
  }

  /** A chat has changed: this may be what a command was for. @param {import("./fastchat.d.ts").ChatEntry} entry */
  shown(entry) {
    const command = this.current(COMMAND);
    if (command && same(peerOf(command), entry.userId) && COMMANDS[command.kind](entry)) this.done(COMMAND, entry);
  }

  /** Give up what the client asks for itself in a lane. @param {string} name */
  forgetOwn(name) {
    const lane = this.#lanes.get(name);
    if (!lane) return;
    if (lane.queue[0]?.isOwn) this.#idle(lane);
    for (const { answer, isOwn } of lane.queue) if (isOwn) answer.reject(new FastChatError("MESSAGE_FAILED", "the connection is lost"));
    lane.queue = lane.queue.filter(({ isOwn }) => !isOwn);
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

  /** Put a request into a lane. @param {string} name @param {Pick<Request, "kind" | "data"> & Partial<Request>} made @returns {Promise<any>} */
  #add(name, { kind, data, outgoing, asks = false, isOwn = false }) {
    /** @type {Request} */
    const request = { kind, data, outgoing, asks, isOwn, tries: 0, reopened: false, answer: deferred() };
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
    const peer = ["MSG", "HISTORY"].includes(request.kind) && error.details.blocked !== true ? peerOf(request) : null;
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
    if (request.kind in COMMANDS) return null;
    if (error.code === "RATE_LIMITED") return retryAfter(error);
    if (error.code !== "MESSAGE_FAILED") return null;
    request.tries += 1;
    const isLast = ["HISTORY", "CHATS"].includes(request.kind) && request.tries >= HISTORY_TRIES;
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
const peerOf = ({ data }) => data.to ?? data.with ?? data.target_user_id ?? data.user_id;
