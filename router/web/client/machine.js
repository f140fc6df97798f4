// @ts-check
/**
 * The connection: what the client does and when, without a socket. `Runner` feeds it and does as it asks.
 *
 *     start -> connecting -> online -> waiting -> connecting -> ...
 *                  |           |          |
 *                  +-----------+----------+-> closed
 *
 * In: `start`, `opened`, `received`, `lost`, `networkIsBack`, `renew` and `close`. Out: the calls of `Outside`, and events. What is said on
 * the connection is the matter of `Conversation`.
 */

import { Backoff } from "./backoff.js";
import { Conversation } from "./conversation.js";
import { deferred, FastChatError } from "./models.js";
import { Heartbeat, SECOND } from "./timers.js";
import { Tokens } from "./tokens.js";
import { ABNORMAL, CAPABILITIES, decode, FINAL, Link, POLICY, readError, retryAfter, TOKEN_EXPIRED } from "./wire.js";

/** @typedef {import("./wire.js").Data} Data */
/** @typedef {import("./timers.js").Timer} Timer */

/** From the beginning of an attempt to HELLO_ACK; the server may take 10 s while it restarts a worker. */
const HELLO_TIMEOUT = 15 * SECOND;
/** Statuses of HTTP below 500 that pass. With all others what answers is no FastChat, or does not want this client. */
const PASSING = [408, 425, 429];
/** Why a token is refused in whose place a newer one may be accepted. */
const REFUSED_FOR_NOW = ["expired", "early"];

/** One client. */
export class Machine {
  #outside;
  #events;
  #timers;
  #tokens;
  #backoff;
  #heartbeat;
  #link;
  #displayName;
  /** Settled when the client is online for the first time, or has ended before. */
  connected = deferred();
  /** While waiting: when the next attempt is made. @type {number | null} */
  retryAt = null;
  /** Why it is not online: how the last connection or attempt ended; and whether that has been reported in this outage. */
  problem = "";
  #isReported = false;
  #wasOnline = false;

  // -- Of this connection or attempt --
  /** What the next HELLO proves the user with. @type {string | null} */
  #token = null;
  #isOpen = false;
  #onlineSince = 0;
  /** The end of the attempt, or of the wait for the next one. @type {Timer | null} */
  #connectTimer = null;

  /**
   * @param {import("./runner.js").Outside} outside
   * @param {import("./events.js").Events} events
   * @param {import("./timers.js").Timers} timers
   * @param {{userId: string, displayName: string, token: import("./fastchat.d.ts").Token | null, cursor: string | null, random: () => number}} options
   */
  constructor(outside, events, timers, { userId, displayName, token, cursor, random }) {
    this.#outside = outside;
    this.#events = events;
    this.#timers = timers;
    this.#displayName = displayName;
    this.#tokens = new Tokens(token, timers, random);
    this.#backoff = new Backoff(random);
    const silent = (/** @type {string} */ problem) => this.lost(ABNORMAL, problem);
    this.#heartbeat = new Heartbeat(timers, () => this.conversation.ping(), silent);
    this.#link = new Link((text) => outside.write(text));
    this.conversation = new Conversation(this.#link, events, timers, { userId, cursor, random });
  }

  get state() {
    return this.#link.state;
  }

  get closed() {
    return this.#link.closed;
  }

  get capabilities() {
    return this.#link.capabilities;
  }

  // -- From the program --

  /** Begin. */
  start() {
    this.#attempt();
  }

  /** Go on with another token. @param {import("./fastchat.d.ts").Token} token */
  renew(token) {
    this.#tokens.replace(token);
    if (this.#link.isOnline) this.#renew();
  }

  /** End it for good. */
  close() {
    this.conversation.lists.finish();
    this.#end(1000, "closed by this client");
  }

  // -- From the connection --

  /** There is a connection. */
  opened() {
    this.#isOpen = true;
    this.#hello();
  }

  /** A text message came. @param {string} text */
  received(text) {
    this.#heartbeat.heard();
    try {
      const { type, data } = decode(text);
      if (type === "HELLO_ACK") this.#greeted(data);
      else if (type === "ERROR") this.#refused(readError(data));
      else this.conversation.receive(type, data);
    } catch (error) {
      if (!(error instanceof FastChatError)) throw error;
      this.#events.emit("error", error);
    }
  }

  /**
   * The connection has ended, or the attempt has failed; or it is given up: of one that does not work the end would be told late or never.
   * @param {number} code
   * @param {string} reason
   * @param {number} [status] of HTTP, if that was the answer
   */
  lost(code, reason, status) {
    const hasExpired = code === POLICY && reason === TOKEN_EXPIRED;
    this.problem = reason || `the connection was closed with ${code}`;
    if (!this.#link.isOnline && !this.#isReported) {
      this.#isReported = true;
      this.#outside.report(this.problem);
    }
    if (FINAL.includes(code) && !(hasExpired && this.#tokens.isFunction))
      return this.#end(code, reason, hasExpired ? { refused: "expired" } : {});
    // The address can't be wrong where this client has been: it is whatever is there for a while.
    if (status && status < 500 && !PASSING.includes(status) && !this.#wasOnline) return this.#end(code, reason, { status });
    const now = this.#timers.now();
    const delay = this.#backoff.next(code, reason, this.#link.isOnline ? now - this.#onlineSince : 0);
    this.#release("waiting");
    if (this.closed) return; // a listener has closed it
    this.retryAt = now + delay;
    this.#connectTimer = this.#timers.after(delay, () => this.#attempt());
    this.#become("waiting", status ? { code, reason, status } : { code, reason });
  }

  /** The network is back, so they say: do not wait for the next attempt, or see whether the connection still works. */
  networkIsBack() {
    if (this.state === "waiting") this.#attempt();
    else if (this.#link.isOnline && this.conversation.isAnswered) this.#heartbeat.beat();
  }

  // -- An attempt --

  #attempt() {
    this.#timers.stop(this.#connectTimer);
    this.retryAt = null;
    this.#tokens.ask((token) => this.#open(token), this.#noToken);
    if (!this.closed) this.#become("connecting");
  }

  /** @param {string | null} token */
  #open(token) {
    this.#token = token;
    const problem = this.#outside.open();
    if (problem) this.#end(ABNORMAL, problem);
    else this.#awaitHello();
  }

  #awaitHello() {
    this.#connectTimer = this.#timers.deadline(HELLO_TIMEOUT, () => {
      const missing = this.#isOpen ? "HELLO_ACK" : "answer to the handshake";
      this.lost(ABNORMAL, `no ${missing} within ${HELLO_TIMEOUT / SECOND} s`);
    });
  }

  #hello() {
    const { userId, cursor } = this.conversation.inbox;
    // While online it only brings a new token: nothing is to come again.
    const resume = cursor === null || this.#link.isOnline ? undefined : { cursor };
    const who = { user_id: userId, display_name: this.#displayName, token: this.#token ?? undefined };
    this.#link.write("HELLO", { ...who, capabilities: CAPABILITIES, resume });
  }

  /** An attempt has failed for want of a token. @param {FastChatError} error */
  #noToken = (error) => {
    this.#events.emit("error", error);
    if (!this.closed) this.lost(ABNORMAL, error.message);
  };

  /** The server did not accept HELLO. @param {FastChatError} error */
  #notGreeted(error) {
    const { reason } = error.details;
    if (error.code === "RATE_LIMITED" && this.#link.isOnline) {
      this.#tokens.later(retryAfter(error), () => this.#renew());
    } else if (error.code === "RATE_LIMITED") {
      this.#timers.stop(this.#connectTimer);
      const again = (/** @type {string | null} */ token) => {
        this.#token = token;
        this.#awaitHello();
        this.#hello();
      };
      this.#connectTimer = this.#timers.after(retryAfter(error), () => this.#tokens.ask(again, this.#noToken));
    } else if (this.#tokens.isFunction && error.code === "UNAUTHORIZED" && REFUSED_FOR_NOW.includes(reason)) {
      this.#noToken(error);
    } else if (error.code === "VALIDATION" || error.code === "UNAUTHORIZED") {
      this.#end(POLICY, `${error.code}: ${error.message}`, typeof reason === "string" ? { refused: reason } : {});
    } else {
      this.lost(ABNORMAL, error.message);
    }
  }

  // -- Online --

  /** HELLO_ACK came. @param {Data} data */
  #greeted(data) {
    if (this.state !== "connecting") return;
    this.#timers.stop(this.#connectTimer);
    this.#onlineSince = this.#timers.now();
    this.#heartbeat.begin();
    this.conversation.greeted(data);
    this.#link.state = "online";
    this.#wasOnline = true;
    this.#isReported = false;
    this.conversation.begin();
    this.#events.emit("state", { state: "online", retryAt: null, closed: null, lost: null, resumed: data.resumed });
    this.connected.resolve();
    this.conversation.pump();
  }

  /** An ERROR came: about the token, about HELLO, or about what is said on the connection. @param {FastChatError} error */
  #refused(error) {
    const { type, expires_in: expiresIn } = error.details;
    const isAboutToken = this.#tokens.isGiven && type === "HELLO";
    if (isAboutToken && error.code === "UNAUTHORIZED" && Number.isFinite(expiresIn)) {
      if (!this.#tokens.isFunction) this.#events.emit("error", error);
      else if (!this.#tokens.isAsking && this.#link.isOnline) this.#renew();
      return;
    }
    const isAboutHello = this.state === "connecting" ? (type ?? "HELLO") === "HELLO" : isAboutToken;
    if (isAboutHello) this.#notGreeted(error);
    else this.conversation.refused(error);
  }

  /** Say HELLO with a new token on the same connection; a failure before that does not end it. */
  #renew() {
    const hello = (/** @type {string | null} */ token) => {
      this.#token = token;
      this.#hello();
    };
    this.#tokens.renew(hello, (error) => this.#events.emit("error", error));
  }

  // -- The end --

  /** For good. `more` is `refused` or `status`, if that is known. @param {number} code @param {string} reason @param {{refused?: string, status?: number}} [more] */
  #end(code, reason, more = {}) {
    if (this.closed) return;
    this.#link.closed = { code, reason, ...more };
    this.#events.end();
    this.retryAt = null;
    this.#release("closed");
    this.#outside.ended();
    const error = new FastChatError("CLOSED", reason || `closed with ${code}`, { code });
    this.conversation.end(error);
    this.connected.reject(error);
    this.#become("closed");
  }

  /** Let go of the connection and of all that belongs to it alone. @param {"waiting" | "closed"} state */
  #release(state) {
    this.#link.state = state; // what listeners do from here on has to wait
    this.#timers.stop(this.#connectTimer);
    this.#heartbeat.stop();
    this.#tokens.stop();
    this.#token = null;
    this.#isOpen = false;
    if (state === "waiting") this.#outside.abort();
    else this.#outside.close();
    this.conversation.lost(state === "waiting");
  }

  /** @param {import("./fastchat.d.ts").State} state @param {import("./fastchat.d.ts").Closed | null} [lost] */
  #become(state, lost = null) {
    this.#link.state = state;
    this.#events.emit("state", { state, retryAt: this.retryAt, closed: this.closed, lost });
  }
}
