// @ts-check
/**
 * A client of FastChat for browsers and Node, without dependencies. fastchat.d.ts beside this file says more about what is public.
 *
 *     import { FastChat, newId } from "/fastchat.js";
 *
 *     const chat = new FastChat({ url: "ws://localhost:8000/ws", userId: newId(), displayName: "Alice" });
 *     chat.on("message", ({ from, content }) => console.log(from, content));
 *     await chat.connect();
 *     await chat.openChat(bob, "Bobby");
 *     await chat.send(bob, "Hello!").accepted; // the server has it, on disk
 *
 * It notices a dead connection, comes back after random delays that grow, goes on where it was, sends again what the server has not
 * acknowledged, and shows nothing twice.
 *
 * Inside: `#attempt` opens a socket and says HELLO, `#online` is what follows HELLO_ACK, `#disconnected` decides what the end of a
 * connection means, and `#end` is for good; before each HELLO `#ask` gets a token, if there is one. What the server answers (MSG, OPEN_CHAT, HISTORY) waits in a *lane*, one for the messages to
 * each person and one for each of the other two. Only the first of a lane is on its way at a time, so order survives every failure.
 *
 * @module
 */

/** @typedef {import("./fastchat.d.ts").Events} Events @typedef {import("./fastchat.d.ts").FastChat} Declared */

// Times are in milliseconds.
const SECOND = 1000;
const PING_INTERVAL = 15 * SECOND;
const PONG_TIMEOUT = 5 * SECOND;
/** From the beginning of an attempt to HELLO_ACK; the server may take 10 s while it restarts a worker. */
const HELLO_TIMEOUT = 15 * SECOND;
/** For a function that is asked for a token. */
const TOKEN_TIMEOUT = 15 * SECOND;
/** The server answers within 5 s, if only with MESSAGE_FAILED. */
const ANSWER_TIMEOUT = 15 * SECOND;
/** What is left of the time to answer for a client that stood still until that was over. */
const LAST_LOOK = 1 * SECOND;
const BACKOFF_FIRST = 0.5 * SECOND;
const BACKOFF_MAX = 30 * SECOND;
/** Online for so long, the next reconnection begins with short delays again. */
const STABLE_AFTER = 10 * SECOND;
/** By close code: who is expected back spreads over this time; the clients of a server that restarts, and devices that slept. */
const SPREAD = { 1001: 3 * SECOND, 1012: 3 * SECOND, 4002: 1 * SECOND };
/** An overloaded server is left alone for so long at least; then as after so many failures. */
const OVERLOAD_PAUSE = 1 * SECOND;
const OVERLOAD_TRIES = 3;
/** What failed is not sent again before this. */
const AGAIN_AFTER = 0.5 * SECOND;
const HISTORY_TRIES = 5;
const IN_FLIGHT_MAX = 64;
const FRAME_MAX_BYTES = 16 * 1024;
/** Messages whose receipts are followed; those that are asked about after a reconnection, while younger than any retention. */
const FOLLOWED_MAX = 1000;
const ASKED_MAX = 32;
const ASKED_WITHIN = 12 * 3600 * SECOND;
/** Messages that are remembered to recognise duplicates, and acknowledgements that wait for a PONG. */
const REMEMBERED_MAX = 10_000;
/** How often a message is shown with which listeners fail. */
const SHOWN_MAX = 5;
/** The limit is 10 in 60 s, by the server's clock. */
const TYPING_MAX = 10;
const TYPING_WINDOW = 61 * SECOND;
const TYPING_REPEAT = 7 * SECOND;
const TYPING_EXPIRY = 15 * SECOND;

const CAPABILITIES = ["receipts", "resume", "history", "carbons", "presence_delta"];
/** Whose presence the server tells, and how many it can be asked for at once. */
const SCOPES = ["everyone", "contacts"];
const ASKED_FOR_MAX = 100;
const OVERLOADED = 1013;
const SLEPT = 4002;
/** Coming back would not help: protocol errors, abuse, replaced by a newer device, banned, deleted. */
const FINAL = [1002, 1003, 1007, 1008, 1009, 4001, 4003, 4004];
/** Statuses of HTTP below 500 that pass. With all others what answers is no FastChat, or does not want this client. */
const PASSING = [408, 425, 429];
/** The reason of 1008 when a token has run out, and why one is refused that a newer one may replace. */
const TOKEN_EXPIRED = "token expired";
const OF_NOW = ["expired", "early"];
const TOKEN = /^[!-~]{1,8192}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** How far a message has come; from 1 on the server has it. */
const RANK = { failed: 0, queued: 0, sent: 0, stored: 1, accepted: 1, delivered: 2, read: 3 };

/** What went wrong. `code` is one of the protocol's, or CLOSED, FORGOTTEN, LISTENER, PROTOCOL, TIMEOUT, TOKEN, UNSUPPORTED. */
export class FastChatError extends Error {
  /** @param {string} code @param {string} message @param {Record<string, any>} [details] @param {unknown} [cause] */
  constructor(code, message, details = {}, cause = undefined) {
    super(message, { cause });
    this.name = "FastChatError";
    this.code = code;
    this.details = details;
  }
}

/** A message on its way. Each change of `status` is a `receipt` event. */
export class Sent {
  /** @param {string} messageId @param {string} to @param {string} content @param {Promise<Sent>[]} promises */
  constructor(messageId, to, content, [accepted, delivered, read]) {
    this.messageId = messageId;
    this.to = to;
    this.content = content;
    this.original = content;
    /** @type {import("./fastchat.d.ts").Status} */
    this.status = "queued";
    /** @type {FastChatError | null} */
    this.error = null;
    this.accepted = accepted;
    this.delivered = delivered;
    this.read = read;
  }
}

/** Who is online: user id -> display name. `scope` is whose presence the server tells, null as long as it has not said so. */
export class Presence extends Map {
  /** @type {import("./fastchat.d.ts").Scope | null} */
  scope = null;
}

/** Milliseconds since 1970 as Date.now() had them when the program began; but this clock is never put back or forward. */
export const now = () => performance.timeOrigin + performance.now();

/** A new UUID v4, for a user id or a message id. */
export function newId() {
  const digit = (/** @type {string} */ place) => ((Math.random() * (place === "x" ? 16 : 4)) | (place === "x" ? 0 : 8)).toString(16);
  // Only pages from secure origins have randomUUID.
  return globalThis.crypto?.randomUUID?.() ?? "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx".replace(/[xy]/g, digit);
}

/**
 * One device of one user.
 * @implements {Declared}
 */
export class FastChat {
  #url;
  #WebSocket;
  #clock;
  #random;
  /** Event name -> listeners. @type {Map<string, Set<(value: any) => unknown>>} */
  #listeners = new Map();

  // -- The connection --
  /** @type {any} */
  #socket = null;
  #started = false;
  #connected = deferred();
  #wasOnline = false;
  /** Why it is not online: how the last connection or attempt ended; and whether that has been said in this outage. */
  #problem = "";
  #isReported = false;
  /** What an attempt waits for. */
  #missing = "";
  /** Attempts since it was online for long enough, how the last one ended, and since when it is online. */
  #tries = 0;
  #lastCode = 0;
  #onlineSince = 0;
  /** Frames received, PINGs sent and PONGs received on this connection. */
  #heard = 0;
  #pings = 0;
  #pongs = 0;
  #connectTimer;
  #pingTimer;
  #pongTimer;

  // -- Who proves who this is: nobody, a string, or a function --
  #token;
  /** The question for a token that is not answered yet, its timer or that of the next, and how often renewing failed. @type {object | null} */
  #question = null;
  #tokenTimer;
  #renewals = 0;

  // -- What waits for the server --
  /** Name -> {queue: requests, busy: whether the first one is on its way, held: whether it may not be sent yet, timer}. */
  #lanes = new Map();
  /** The timer while RATE_LIMITED holds all messages. @type {any} */
  #limited = null;
  /** Messages whose status may still change, the oldest first: id and recipient -> {sent, at, accepted, delivered, read}. */
  #outgoing = new Map();
  /** MSG_ACKs and READs that no PONG has confirmed, each with the number of PINGs before it. */
  #unconfirmed = [];
  /** User id -> promise of an OPEN_CHAT that waits. */
  #opening = new Map();

  // -- What came --
  /** Positions of the last message that came and of the cursor; and how many mailboxes there were, to which positions belong. */
  #lastSeq = 0;
  #position = 0;
  #mailbox = 0;
  /** Messages that are still to be shown; and whether listeners have one now. */
  #coming = [];
  #isShowing = false;
  /** By sender and id: messages that the listeners have or will have, and those that were shown, the oldest first. */
  #pending = new Set();
  #seen = new Set();
  /** Messages with which a listener failed -> how often; and those of them that the cursor does not pass, since they come again. */
  #failures = new Map();
  #holding = new Set();
  /** Who is typing to us. */
  #typists = new Set();

  // -- Typing --
  /** Who sees us typing -> when we said so; when TYPING was sent; until when the server wants none. */
  #typingTo = new Map();
  #typingSent = [];
  #typingPausedUntil = 0;

  /** @param {import("./fastchat.d.ts").Options} options */
  constructor({ url, userId, displayName, token = null, cursor = null, WebSocket = globalThis.WebSocket, clock, random = Math.random }) {
    if (!url || !userId || !displayName) throw new TypeError("url, userId and displayName are needed");
    this.#token = token === null ? null : checked(token);
    if (!WebSocket) throw new TypeError("this runtime has no WebSocket: give one as an option, for example that of the package ws");
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.#random = random;
    this.#clock = clock ?? {
      now,
      setTimeout: (run, delay) => setTimeout(run, delay),
      clearTimeout: (timer) => clearTimeout(timer),
    };
    this.userId = userId;
    this.displayName = displayName;
    this.cursor = cursor;
    /** @type {import("./fastchat.d.ts").State} */
    this.state = "closed";
    /** @type {number | null} */
    this.retryAt = null;
    /** @type {import("./fastchat.d.ts").Closed | null} */
    this.closed = null;
    this.presence = new Presence();
    /** @type {Map<string, import("./fastchat.d.ts").Chat>} */
    this.chats = new Map();
    /** @type {Set<string>} */
    this.capabilities = new Set();
  }

  /**
   * Call `listener` at every event of this name; the function that is returned ends that.
   * @template {keyof Events} Name
   * @param {Name} event
   * @param {(value: Events[Name]) => unknown} listener
   */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    this.#showNext();
    return () => void listeners.delete(listener);
  }

  /**
   * Start. Resolves when it is online for the first time, rejects when it ends for good before, or when so many milliseconds are over.
   * @param {number} [timeout]
   * @returns {Promise<void>}
   */
  connect(timeout) {
    if (!this.#started && !this.closed) {
      this.#started = true;
      globalThis.addEventListener?.("online", this.#networkIsBack);
      this.#attempt();
    }
    if (timeout === undefined) return this.#connected.promise;
    const bounded = deferred();
    const late = () => `not online within ${timeout / SECOND} s: ${this.#problem || "no answer yet"}`;
    const timer = this.#after(timeout, () => bounded.reject(new FastChatError("TIMEOUT", late())));
    this.#connected.promise.then(bounded.resolve, bounded.reject).finally(() => this.#stop(timer));
    return bounded.promise;
  }

  /**
   * Go on with another token, on the connection that is there.
   * @param {import("./fastchat.d.ts").Token} token
   */
  renew(token) {
    this.#token = checked(token);
    if (this.state === "online") this.#renew();
  }

  /** End for good. What the server has not accepted fails with CLOSED. */
  close() {
    this.#end(1000, "closed by this client");
  }

  /**
   * Open a chat; needed once before the first message to somebody.
   * @param {string} userId
   * @param {string} displayName
   * @returns {Promise<import("./fastchat.d.ts").Chat>}
   */
  openChat(userId, displayName) {
    const known = this.#chat(userId);
    return known ? Promise.resolve(known) : this.#open(userId, displayName);
  }

  /**
   * Send a message, now or when there is a connection again. Messages to one person arrive in the order of these calls. The same
   * `messageId` to the same person is the same message.
   * @param {string} to
   * @param {string} content
   * @param {{messageId?: string}} [options]
   */
  send(to, content, { messageId = newId() } = {}) {
    if (typeof to !== "string" || typeof content !== "string") throw new TypeError("`to` and `content` must be strings");
    const known = this.#outgoing.get(keyOf(messageId, to));
    if (known && [known.sent.original, known.sent.content].includes(content)) return known.sent;
    const [accepted, delivered, read] = [deferred(), deferred(), deferred()];
    const sent = new Sent(messageId, to, content, [accepted.promise, delivered.promise, read.promise]);
    const outgoing = { sent, at: this.#clock.now(), accepted, delivered, read };
    let problem = unsendable(to, content, messageId);
    if (known) problem = new FastChatError("VALIDATION", "this messageId was used for another content");
    if (this.closed) problem = new FastChatError("CLOSED", this.closed.reason);
    if (problem) {
      this.#fail(outgoing, problem);
      return sent;
    }
    this.#outgoing.set(keyOf(messageId, to), outgoing);
    this.#typingTo.delete(to); // the server ends it, too
    this.#request(laneOf(to), "MSG", { to, content, message_id: messageId }, outgoing);
    return sent;
  }

  /**
   * What was written with somebody, newest first. `next` is the `before` of the page that follows, null at the end.
   * @param {string} userId
   * @param {{before?: string | null, limit?: number}} [page]
   * @returns {Promise<import("./fastchat.d.ts").History>}
   */
  history(userId, { before, limit } = {}) {
    return this.#request("HISTORY", "HISTORY", { with: userId, before: before ?? undefined, limit });
  }

  /**
   * Tell somebody whether one is typing. Call it as often as you like, at every key: it says no more than the limits allow.
   * @param {string} userId
   * @param {boolean} isTyping
   */
  typing(userId, isTyping) {
    if (this.state !== "online") return;
    const now = this.#clock.now();
    this.#typingSent = this.#typingSent.filter((at) => at > now - TYPING_WINDOW);
    for (const [peer, at] of this.#typingTo) if (at <= now - TYPING_EXPIRY) this.#typingTo.delete(peer);
    const said = this.#typingTo.get(userId);
    let left = TYPING_MAX - this.#typingSent.length;
    if (isTyping) {
      if (now - said < TYPING_REPEAT) return;
      // Everyone who was told `true` will have to be told `false`.
      left -= this.#typingTo.size + (said === undefined ? 1 : 0);
    } else if (!this.#typingTo.delete(userId)) return;
    if (left < 1 || now < this.#typingPausedUntil) return;
    if (isTyping) this.#typingTo.set(userId, now);
    this.#typingSent.push(now);
    this.#write("TYPING", { to: userId, is_typing: isTyping });
  }

  /** Whose presence the server tells; null as long as it has not said so. */
  get presenceScope() {
    return this.presence.scope;
  }

  /**
   * Ask who of these people is online; the answer is a `presence` event.
   * @param {Iterable<string>} userIds
   */
  askPresence(userIds) {
    if (this.state !== "online" || !this.capabilities.has("presence_delta")) return;
    const wanted = [...new Set(userIds)];
    for (let from = 0; from < wanted.length; from += ASKED_FOR_MAX)
      this.#write("PRESENCE", { user_ids: wanted.slice(from, from + ASKED_FOR_MAX) });
  }

  /**
   * Tell the sender that a message has been read.
   * @param {string} messageId
   * @param {string} from
   */
  markRead(messageId, from) {
    this.#confirm("READ", { message_id: messageId, from });
  }

  // -- The life of a connection --

  #attempt() {
    this.#stop(this.#connectTimer);
    this.retryAt = null;
    this.#ask((token) => this.#dial(token), this.#noToken);
    if (!this.closed) this.#become("connecting");
  }

  #dial(token) {
    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
    } catch (error) {
      this.#end(1006, `this URL can't be opened: ${error}`);
      return;
    }
    this.#socket = socket;
    this.#heard = this.#pings = this.#pongs = 0;
    this.#missing = "answer to the handshake";
    /** @type {{reason: string, status?: number}} */
    let fault = { reason: "the connection can't be made" };
    socket.onopen = () => {
      this.#missing = "HELLO_ACK";
      fault = { reason: "the connection broke" };
      this.#hello(token);
    };
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onerror = (event) => (fault = faultIn(event) ?? fault); // onclose follows
    socket.onclose = ({ code, reason }) => this.#disconnected(code, reason || (code === 1006 ? fault.reason : ""), fault.status);
    this.#awaitHello();
  }

  #awaitHello() {
    const overdue = () => this.#disconnected(1006, `no ${this.#missing} within ${HELLO_TIMEOUT / SECOND} s`);
    this.#connectTimer = this.#deadline(HELLO_TIMEOUT, overdue);
  }

  #hello(token) {
    // While online it only brings a new token: nothing is to come again.
    const resume = this.cursor === null || this.state === "online" ? undefined : { cursor: this.cursor };
    const who = { user_id: this.userId, display_name: this.displayName, token: token ?? undefined };
    this.#write("HELLO", { ...who, capabilities: CAPABILITIES, resume });
  }

  #helloRefused(error) {
    const { reason } = error.details;
    if (error.code === "RATE_LIMITED" && this.state === "online") {
      this.#renewAfter(retryAfter(error));
    } else if (error.code === "RATE_LIMITED") {
      this.#stop(this.#connectTimer);
      const hello = (token) => {
        this.#awaitHello();
        this.#hello(token);
      };
      this.#connectTimer = this.#after(retryAfter(error), () => this.#ask(hello, this.#noToken));
    } else if (typeof this.#token === "function" && error.code === "UNAUTHORIZED" && OF_NOW.includes(reason)) {
      this.#noToken(error);
    } else if (error.code === "VALIDATION" || error.code === "UNAUTHORIZED") {
      this.#end(1008, `${error.code}: ${error.message}`, typeof reason === "string" ? { refused: reason } : {});
    } else {
      this.#disconnected(1006, error.message);
    }
  }

  // -- Tokens --

  /**
   * Get a token, null where there is none to say, and go on with it; but not when the attempt or the connection is over by then.
   * @param {(token: string | null) => void} goOn
   * @param {(error: FastChatError) => void} fail
   */
  #ask(goOn, fail) {
    this.#stop(this.#tokenTimer);
    this.#question = null;
    const source = this.#token;
    if (typeof source !== "function") return goOn(source);
    const question = (this.#question = {});
    const settle = (token, problem, cause) => {
      if (this.#question !== question) return;
      this.#question = null;
      this.#stop(this.#tokenTimer);
      if (problem) fail(new FastChatError("TOKEN", problem, {}, cause));
      else goOn(token);
    };
    this.#tokenTimer = this.#deadline(TOKEN_TIMEOUT, () => settle(null, "the function `token` did not answer in time"));
    new Promise((resolve) => resolve(source())).then(
      (token) => settle(token, isToken(token) ? "" : "the function `token` did not give a token"),
      (cause) => settle(null, "the function `token` failed", cause),
    );
  }

  /** An attempt has failed for want of a token. */
  #noToken = (error) => {
    this.#emit("error", error);
    if (!this.closed) this.#disconnected(1006, error.message);
  };

  /** Say HELLO with a new token on the same connection; what goes wrong before that does not end it. */
  #renew() {
    const hello = (token) => {
      this.#renewals = 0;
      this.#hello(token);
    };
    this.#ask(hello, (error) => {
      this.#renewAfter(AGAIN_AFTER + this.#backoff(this.#renewals));
      this.#renewals += 1;
      this.#emit("error", error);
    });
  }

  #renewAfter(delay) {
    this.#stop(this.#tokenTimer);
    this.#tokenTimer = this.#after(delay, () => this.#renew());
  }

  // -- From HELLO_ACK on --

  #online({ user_id: userId, capabilities, cursor, resumed, scope }) {
    if (this.state !== "connecting") return;
    this.#stop(this.#connectTimer);
    this.#onlineSince = this.#clock.now();
    this.#pingTimer = this.#after(PING_INTERVAL, () => this.#ping());
    this.capabilities = new Set(Array.isArray(capabilities) ? capabilities : []);
    if (typeof userId === "string") this.userId = userId; // as the server writes it
    if (typeof cursor === "string" && (resumed !== "full" || this.cursor === null)) this.cursor = cursor;
    this.presence.scope = SCOPES.includes(scope) ? scope : null;
    if (resumed !== "full") this.#holding.clear(); // the server says where it goes on
    if (resumed !== "full" && resumed !== "partial") {
      this.#lastSeq = this.#position = 0;
      this.#mailbox += 1;
    }
    this.state = "online";
    this.#wasOnline = true;
    this.#isReported = false;
    for (const { type, data } of this.#unconfirmed.splice(0)) this.#confirm(type, data);
    if (this.capabilities.has("receipts")) this.#askAgain();
    this.#emit("state", { state: "online", retryAt: null, closed: null, lost: null, resumed });
    this.#connected.resolve(undefined);
    this.#pump();
  }

  #ping() {
    const heard = this.#heard;
    this.#pings += 1;
    this.#write("PING", {});
    this.#stop(this.#pongTimer);
    this.#pongTimer = this.#deadline(PONG_TIMEOUT, () => {
      if (this.#heard === heard) this.#disconnected(1006, `no answer to PING within ${PONG_TIMEOUT / SECOND} s`);
    });
    this.#pingTimer = this.#after(PING_INTERVAL, () => this.#ping());
  }

  #networkIsBack = () => {
    if (this.state === "waiting") this.#attempt();
    else if (this.state === "online" && this.#pings === this.#pongs) {
      this.#stop(this.#pingTimer);
      this.#ping();
    }
  };

  /** The connection has ended, or is given up: of one that does not work the end would be told late or never. */
  #disconnected(code, reason, status) {
    const isExpired = code === 1008 && reason === TOKEN_EXPIRED;
    this.#problem = reason || `the connection was closed with ${code}`;
    if (this.state !== "online" && !this.#isReported) {
      this.#isReported = true;
      console.warn(`FastChat: can't connect to ${addressOf(this.#url)}: ${this.#problem}`);
    }
    if (FINAL.includes(code) && !(isExpired && typeof this.#token === "function"))
      return this.#end(code, reason, isExpired ? { refused: "expired" } : {});
    // It can't be a place where this client has been that is wrong, but whatever is there for a while.
    if (status < 500 && !PASSING.includes(status) && !this.#wasOnline) return this.#end(code, reason, { status });
    const now = this.#clock.now();
    if (this.state === "online" && now - this.#onlineSince >= STABLE_AFTER) this.#tries = 0;
    // A device that slept has not failed; only one that is told so again at once may be in a loop.
    if (code === SLEPT && this.#lastCode !== SLEPT) this.#tries = 0;
    this.#lastCode = code;
    if (code === OVERLOADED) this.#tries = Math.max(this.#tries, OVERLOAD_TRIES);
    let delay = this.#backoff(this.#tries, SPREAD[code]);
    if (code === OVERLOADED) delay += OVERLOAD_PAUSE;
    this.#tries += 1;
    this.#release("waiting");
    if (this.closed) return; // a listener has closed it
    this.retryAt = now + delay;
    this.#connectTimer = this.#after(delay, () => this.#attempt());
    this.#become("waiting", status ? { code, reason, status } : { code, reason });
  }

  /** For good. `more` is `refused` or `status`, if that is known. */
  #end(code, reason, more = {}) {
    if (this.closed) return;
    this.closed = { code, reason, ...more };
    this.retryAt = null;
    this.#release("closed");
    globalThis.removeEventListener?.("online", this.#networkIsBack);
    this.#stop(this.#limited);
    const error = new FastChatError("CLOSED", reason || `closed with ${code}`, { code });
    for (const { queue, timer } of this.#lanes.values()) {
      this.#stop(timer);
      for (const request of queue.splice(0)) this.#refuse(request, error);
    }
    this.#lanes.clear();
    for (const { delivered, read } of this.#outgoing.values()) for (const { reject } of [delivered, read]) reject(error);
    this.#outgoing.clear();
    this.#connected.reject(error);
    this.#become("closed");
  }

  /** Let go of the connection and of all that belongs to it alone. */
  #release(state) {
    const socket = this.#socket;
    this.#socket = null;
    this.state = state; // what listeners do from here on has to wait
    for (const timer of [this.#connectTimer, this.#pingTimer, this.#pongTimer, this.#tokenTimer]) this.#stop(timer);
    this.#question = null;
    this.#renewals = 0;
    if (socket) {
      // The package ws wants somebody to listen to its errors, and would wait long for a dead server.
      socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
      if (state === "waiting" && socket.terminate) socket.terminate();
      else socket.close(1000);
    }
    this.#typingTo.clear();
    for (const lane of this.#lanes.values()) {
      if (!lane.busy) continue;
      this.#idle(lane);
      if (state === "waiting") this.#change(lane.queue[0], "queued", null);
    }
    for (const userId of this.#typists) this.#emit("typing", { userId, isTyping: false });
    this.#typists.clear();
  }

  // -- Time --

  /** Do this after so many milliseconds, unless `#stop` comes before. */
  #after(delay, run) {
    return { id: this.#clock.setTimeout(run, delay) };
  }

  /** The same for what the server has to do until then. Who stood still, like a device that slept, reads first what came meanwhile. */
  #deadline(delay, run) {
    const timer = this.#after(delay - LAST_LOOK, () => {
      timer.id = this.#clock.setTimeout(run, LAST_LOOK);
    });
    return timer;
  }

  #stop(timer) {
    this.#clock.clearTimeout(timer?.id);
  }

  /** Full jitter. */
  #backoff(tries, least = 0) {
    return this.#random() * Math.max(least, Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** tries));
  }

  // -- Requests --

  /** Put a request into a lane. `outgoing` is the message, and `asks` says that it is repeated only to learn its state. */
  #request(name, kind, data, outgoing, asks = false) {
    const request = { kind, data, outgoing, asks, tries: 0, reopened: false, answer: deferred() };
    if (this.closed) {
      this.#refuse(request, new FastChatError("CLOSED", this.closed.reason));
    } else {
      if (!this.#lanes.has(name)) this.#lanes.set(name, { queue: [], busy: false, held: false, timer: null });
      this.#lanes.get(name).queue.push(request);
      this.#pump();
    }
    return request.answer.promise;
  }

  /** Send what may be sent. */
  #pump() {
    for (const [name, lane] of this.#lanes) {
      if (this.state !== "online") return;
      const request = lane.queue[0];
      if (!request) this.#lanes.delete(name);
      if (!request || lane.busy || lane.held) continue;
      if (request.kind === "HISTORY" && !this.capabilities.has("history")) {
        this.#failed(lane, new FastChatError("UNSUPPORTED", "this server has no history"));
        continue;
      }
      if (request.kind === "MSG" && (this.#limited !== null || this.#inFlight() >= IN_FLIGHT_MAX)) continue;
      lane.busy = true;
      const overdue = new FastChatError("MESSAGE_FAILED", "the server did not answer");
      lane.timer = this.#deadline(ANSWER_TIMEOUT, () => this.#failed(lane, overdue));
      this.#write(request.kind, request.data);
      this.#change(request, "sent", null);
    }
  }

  #inFlight() {
    return [...this.#lanes.values()].filter(({ busy, queue }) => busy && queue[0].kind === "MSG").length;
  }

  #idle(lane) {
    this.#stop(lane.timer);
    lane.busy = lane.held = false;
  }

  /** The first of this lane is done. */
  #answered(lane, value) {
    this.#idle(lane);
    lane.queue.shift().answer.resolve(value);
    this.#pump();
  }

  /** The first of this lane was refused, or not confirmed. */
  #failed(lane, error) {
    const request = lane.queue[0];
    const peer = request.data.to ?? request.data.with;
    this.#idle(lane);
    let wait = null;
    if (error.code === "RATE_LIMITED") wait = retryAfter(error);
    else if (error.code === "MESSAGE_FAILED" && (request.tries += 1) < (request.kind === "HISTORY" ? HISTORY_TRIES : Infinity))
      wait = AGAIN_AFTER + this.#backoff(request.tries - 1);
    const chat = peer && this.#chat(peer);
    if (request.asks) {
      lane.queue.shift();
    } else if (wait !== null) {
      if (error.code === "RATE_LIMITED" && request.kind === "MSG") this.#limit(wait);
      else this.#hold(lane, wait);
      this.#change(request, "queued", error);
    } else if (error.code === "CHAT_NOT_OPENED" && chat && !request.reopened) {
      // The server has forgotten the chat.
      request.reopened = lane.held = true;
      this.#change(request, "queued", error);
      const goOn = (failure) => {
        if (lane.queue[0] !== request || !lane.held) return;
        lane.held = false;
        if (failure) this.#failed(lane, failure);
        else this.#pump();
      };
      this.#open(chat.userId, chat.displayName).then(() => goOn(null), goOn);
    } else {
      this.#refuse(lane.queue.shift(), error);
    }
    this.#pump();
  }

  /** Let a lane wait. */
  #hold(lane, delay) {
    lane.held = true;
    lane.timer = this.#after(delay, () => {
      lane.held = false;
      this.#pump();
    });
  }

  /** Let all messages wait. */
  #limit(delay) {
    this.#stop(this.#limited);
    this.#limited = this.#after(delay, () => {
      this.#limited = null;
      this.#pump();
    });
  }

  /** This will never be done. */
  #refuse(request, error) {
    request.answer.reject(error);
    if (request.outgoing && !request.asks) this.#fail(request.outgoing, error);
  }

  // -- Messages of ours --

  #change({ outgoing, asks }, status, error) {
    if (!outgoing || asks) return;
    Object.assign(outgoing.sent, { status, error });
    this.#emit("receipt", outgoing.sent);
  }

  #fail({ sent, accepted, delivered, read }, error) {
    Object.assign(sent, { status: "failed", error });
    const key = keyOf(sent.messageId, sent.to);
    if (this.#outgoing.get(key)?.sent === sent) this.#outgoing.delete(key);
    for (const { reject } of [accepted, delivered, read]) reject(error);
    this.#emit("receipt", sent);
  }

  /** The server says how far a message has come, and what it has stored. It may say so more than once, and in any order. */
  #progress(outgoing, status, content) {
    const { sent, accepted, delivered, read } = outgoing;
    const isFurther = RANK[status] > RANK[sent.status];
    const isOther = typeof content === "string" && content !== sent.content;
    if (isOther) sent.content = content;
    if (isFurther) {
      if (RANK[sent.status] === 0) this.#forgetOldest();
      Object.assign(sent, { status, error: null });
      for (const { resolve } of [accepted, delivered, read].slice(0, RANK[status])) resolve(sent);
      if (status === "read") this.#outgoing.delete(keyOf(sent.messageId, sent.to));
    }
    const lane = this.#lanes.get(laneOf(sent.to));
    const place = lane ? lane.queue.findIndex((request) => request.outgoing === outgoing) : -1;
    if (place === 0) this.#answered(lane, sent);
    else if (place > 0 && (status === "read" || !lane.queue[place].asks)) lane.queue.splice(place, 1);
    if (isFurther || isOther) this.#emit("receipt", sent);
  }

  #forgetOldest() {
    if (this.#outgoing.size <= FOLLOWED_MAX) return;
    const [key, { delivered, read }] = [...this.#outgoing].find(([, { sent }]) => RANK[sent.status] > 0) ?? [null, {}];
    if (key === null) return;
    this.#outgoing.delete(key);
    const error = new FastChatError("FORGOTTEN", `${FOLLOWED_MAX} newer messages are followed instead`);
    for (const { reject } of [delivered, read]) reject(error);
  }

  /** Receipts that were missed: the answer to a repeated message is its state now. */
  #askAgain() {
    const since = this.#clock.now() - ASKED_WITHIN;
    const accepted = [...this.#outgoing.values()].filter(({ sent, at }) => RANK[sent.status] > 0 && at >= since);
    for (const outgoing of accepted.slice(-ASKED_MAX)) {
      const { to, original: content, messageId } = outgoing.sent;
      const lane = this.#lanes.get(laneOf(to));
      if (lane?.queue.some((request) => request.outgoing === outgoing)) continue;
      this.#request(laneOf(to), "MSG", { to, content, message_id: messageId }, outgoing, true);
    }
  }

  // -- From the server --

  #receive(text) {
    this.#heard += 1;
    try {
      const { type, data } = parse(text);
      if (type === "HELLO_ACK") this.#online(data);
      else if (type === "PRESENCE") this.#present(data);
      else if (type === "CHAT_OPENED") this.#chatOpened(data);
      else if (type === "MSG") this.#message(data);
      else if (type === "MSG_ACK") this.#acknowledged(data);
      else if (type === "HISTORY") this.#historyCame(data);
      else if (type === "TYPING") this.#typist(data);
      else if (type === "PONG") this.#pong();
      else if (type === "ERROR") this.#error(data);
      // Anything else is what a newer server says.
    } catch (error) {
      if (!(error instanceof FastChatError)) throw error;
      this.#emit("error", error);
    }
  }

  #message(data) {
    const message = readMessage(data, this.userId);
    const { own, from, to, messageId, seq } = message;
    // The server sends it to all other devices; after a reconnection this one may be taken for another.
    const outgoing = own && this.#outgoing.get(keyOf(messageId, to));
    if (outgoing) return this.#progress(outgoing, "accepted", message.content);
    const item = { message, key: `${messageId} ${from} ${to}`, cursor: data.cursor, mailbox: this.#mailbox };
    if (this.#pending.has(item.key)) return;
    const isPassed = seq !== undefined && seq <= this.#lastSeq && !this.#failures.has(item.key);
    if (isPassed || this.#seen.has(item.key)) {
      if (this.#pending.size === 0) this.#arrived(item);
      else this.#acknowledge(message);
      return;
    }
    this.#lastSeq = Math.max(this.#lastSeq, seq ?? 0);
    this.#pending.add(item.key);
    this.#coming.push(item);
    this.#showNext();
  }

  /** Show messages one after the other: the next one when the listeners of the one before are done. They wait for a listener. */
  #showNext() {
    while (this.#coming.length > 0 && !this.#isShowing && this.#listeners.get("message")?.size && !this.closed) {
      const item = this.#coming.shift();
      this.#isShowing = true;
      const done = (isWell) => {
        this.#isShowing = false;
        this.#shown(item, isWell);
      };
      const told = this.#emit("message", item.message);
      if (typeof told === "boolean") done(told);
      else told.then(done).then(() => this.#showNext());
    }
  }

  /** The listeners of a message are done, `isWell` if none has failed. Else it is not acknowledged, and so the server sends it again. */
  #shown(item, isWell) {
    const { key, message } = item;
    this.#pending.delete(key);
    this.#holding.delete(key);
    const times = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.delete(key);
    // Nobody repeats what an own device has sent.
    if (isWell || message.own || times >= SHOWN_MAX) {
      remember(this.#seen, key);
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

  /** A message need not come again: the cursor goes on, never back. */
  #arrived({ message, cursor, mailbox }) {
    const { seq } = message;
    if (mailbox === this.#mailbox && this.#holding.size === 0 && seq > this.#position && typeof cursor === "string") {
      this.#position = seq;
      this.cursor = cursor;
    }
    this.#acknowledge(message);
  }

  /** @param {import("./fastchat.d.ts").Message} message */
  #acknowledge({ own, messageId, from }) {
    if (!own) this.#confirm("MSG_ACK", { message_id: messageId, from });
  }

  #acknowledged(data) {
    const messageId = field(data, "message_id", "string");
    const status = field(data, "status", "string");
    if (!(RANK[status] > 0)) return;
    // A server without receipts does not say to whom.
    const outgoing = data.to
      ? this.#outgoing.get(keyOf(messageId, field(data, "to", "string")))
      : [...this.#outgoing.values()].find(({ sent }) => sent.messageId === messageId);
    if (outgoing) this.#progress(outgoing, status, data.content);
  }

  #chatOpened(data) {
    const userId = field(data, "target_user_id", "string");
    const chat = { chatId: field(data, "chat_id", "string"), userId, displayName: field(data, "target_display_name", "string") };
    this.chats.set(userId, chat);
    const lane = this.#lanes.get("OPEN_CHAT");
    if (lane?.busy && same(lane.queue[0].data.target_user_id, userId)) this.#answered(lane, chat);
    this.#emit("chat", chat);
  }

  #historyCame(data) {
    const peer = field(data, "with", "string");
    const messages = list(data, "messages").map((message) => readMessage(message, this.userId));
    const lane = this.#lanes.get("HISTORY");
    if (lane?.busy && same(lane.queue[0].data.with, peer)) this.#answered(lane, { messages, next: data.next ?? null });
  }

  #typist(data) {
    const userId = field(data, "user_id", "string");
    const isTyping = field(data, "is_typing", "boolean");
    if (isTyping) this.#typists.add(userId);
    else this.#typists.delete(userId);
    this.#emit("typing", { userId, isTyping });
  }

  #present(data) {
    const users = list(data, "users").map((user) => ({ ...user, id: field(user, "user_id", "string") }));
    if (data.delta !== true) this.presence.clear();
    if (SCOPES.includes(data.scope)) this.presence.scope = data.scope;
    for (const { id, display_name: name, online } of users) {
      if (online === false) this.presence.delete(id);
      else this.presence.set(id, String(name ?? id));
    }
    this.#emit("presence", this.presence);
  }

  #pong() {
    this.#pongs += 1;
    this.#unconfirmed = this.#unconfirmed.filter(({ after }) => after >= this.#pongs);
  }

  #error(data) {
    const details = data.details ?? {};
    const error = new FastChatError(field(data, "code", "string"), String(data.message), details);
    const isAboutToken = this.#token !== null && error.code === "UNAUTHORIZED" && details.type === "HELLO";
    if (isAboutToken && Number.isFinite(details.expires_in)) {
      if (typeof this.#token !== "function") this.#emit("error", error);
      else if (!this.#question && this.state === "online") this.#renew();
      return;
    }
    if (this.state === "connecting" ? (details.type ?? "HELLO") === "HELLO" : this.#token !== null && details.type === "HELLO")
      return this.#helloRefused(error);
    if (details.type === "TYPING" && error.code === "RATE_LIMITED") {
      this.#typingPausedUntil = this.#clock.now() + retryAfter(error);
      return;
    }
    const lane = this.#about(details.message_id, details.type);
    if (lane) this.#failed(lane, error);
    else this.#emit("error", error);
  }

  /** The lane of the request that an ERROR is about, if that is certain. */
  #about(messageId, type) {
    const lanes = [...this.#lanes.values()].filter(
      ({ busy, queue: [first] }) =>
        busy && (type ?? first.kind) === first.kind && (messageId ?? first.data.message_id) === first.data.message_id,
    );
    return lanes.length === 1 ? lanes[0] : null;
  }

  // -- To the server --

  #write(type, data) {
    this.#socket?.send(JSON.stringify({ type, data }));
  }

  /** Say what is not answered, and say it again after a reconnection unless a PONG has shown that it came. */
  #confirm(type, data) {
    if (type === "READ" && this.state === "online" && !this.capabilities.has("receipts")) return;
    this.#unconfirmed.push({ type, data, after: this.#pings });
    if (this.#unconfirmed.length > REMEMBERED_MAX) this.#unconfirmed.shift();
    if (this.state === "online") this.#write(type, data);
  }

  #open(userId, displayName) {
    const known = this.#opening.get(userId);
    if (known) return known;
    const promise = this.#request("OPEN_CHAT", "OPEN_CHAT", { target_user_id: userId, target_display_name: displayName });
    this.#opening.set(userId, promise);
    const done = () => void this.#opening.delete(userId);
    promise.then(done, done);
    return promise;
  }

  #chat(userId) {
    return this.chats.get(userId) ?? this.chats.get(canonical(userId));
  }

  // -- To the caller --

  /** @param {import("./fastchat.d.ts").State} state @param {import("./fastchat.d.ts").Closed | null} [lost] */
  #become(state, lost = null) {
    this.state = state;
    this.#emit("state", { state, retryAt: this.retryAt, closed: this.closed, lost });
  }

  /** Call the listeners. Whether none has failed: at once or, where one gave a promise, as a promise. @returns {boolean | Promise<boolean>} */
  #emit(event, value) {
    const listeners = [...(this.#listeners.get(event) ?? [])];
    if (event === "error" && listeners.length === 0) console.warn("FastChat:", value);
    const results = listeners.map((listener) => this.#call(event, listener, value));
    if (results.every((result) => typeof result === "boolean")) return !results.includes(false);
    return Promise.all(results).then((all) => !all.includes(false));
  }

  /** Call one listener, which may do what it likes: it ends neither the program nor what the client does. */
  #call(event, listener, value) {
    const failed = (cause) => {
      const error = new FastChatError("LISTENER", `a listener of \`${event}\` failed: ${wordsOf(cause)}`, {}, cause);
      if (event === "error") console.error("FastChat:", error);
      else this.#emit("error", error);
      return false;
    };
    try {
      const result = listener(value);
      return typeof result?.then === "function" ? Promise.resolve(result).then(() => true, failed) : true;
    } catch (cause) {
      return failed(cause);
    }
  }
}

/** A promise to settle by hand. Node would end the program for a rejection that nobody looks at. */
function deferred() {
  /** @type {any} */
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}

const isToken = (value) => typeof value === "string" && TOKEN.test(value);

/** The option `token`. What it is, is never shown. */
function checked(token) {
  if (typeof token !== "function" && !isToken(token)) throw new TypeError("`token` must be 1 to 8192 visible ASCII characters, or a function");
  return token;
}

/** The same for all spellings of a user id: a UUID in lower case, as servers write it; any other id is what it is, letter by letter. */
const canonical = (userId) => (UUID.test(userId) ? userId.toLowerCase() : userId);
const keyOf = (messageId, to) => `${messageId} ${canonical(to)}`;
const laneOf = (to) => `MSG ${canonical(to)}`;
const same = (one, other) => canonical(one) === canonical(other);

function remember(set, key) {
  set.add(key);
  if (set.size > REMEMBERED_MAX) set.delete(set.values().next().value);
}

/** Anything can be thrown, even what can't be a string. */
function wordsOf(cause) {
  try {
    return String(cause);
  } catch {
    return "it threw no error";
  }
}

/** What a server could not even answer. */
function unsendable(to, content, messageId) {
  const text = JSON.stringify({ type: "MSG", data: { to, content, message_id: messageId } });
  const size = new TextEncoder().encode(text).length;
  if (size > FRAME_MAX_BYTES) return new FastChatError("VALIDATION", `the message has ${size} bytes, more than ${FRAME_MAX_BYTES}`);
  if (/\p{Surrogate}/u.test(content)) return new FastChatError("VALIDATION", "there is half a character in the text");
  return null;
}

/** A URL without what may be secret: user, password, and query. */
const addressOf = (url) => String(url).split("?")[0].replace(/\/\/[^/@]*@/, "//");

/** What an `error` event of a socket tells. In Node that is why; browsers keep it to themselves. */
function faultIn({ message, error }) {
  const said = message || error?.message || error?.errors?.map((each) => each.message).join("; ") || error?.code;
  const status = /^Unexpected server response: (\d+)$/.exec(said)?.[1];
  if (status) return { reason: `the server answers HTTP ${status}, and no WebSocket`, status: Number(status) };
  return said ? { reason: String(said) } : null;
}

/** What RATE_LIMITED asks for, in milliseconds. */
function retryAfter({ details }) {
  const seconds = details.retry_after;
  return (seconds > 0 && Number.isFinite(seconds) ? seconds : 5) * SECOND;
}

function parse(text) {
  let message = null;
  try {
    message = JSON.parse(text);
  } catch {} // said below
  return { type: field(message, "type", "string"), data: field(message, "data", "object") };
}

/** A field that must be there. Throws PROTOCOL. */
function field(data, name, type) {
  const value = data?.[name];
  if (typeof value !== type || value === null) throw new FastChatError("PROTOCOL", `what came has no ${type} \`${name}\``, { data });
  return value;
}

function list(data, name) {
  const value = field(data, name, "object");
  if (!Array.isArray(value)) throw new FastChatError("PROTOCOL", `\`${name}\` is no list`, { data });
  return value;
}

function readMessage(data, userId) {
  /** @type {import("./fastchat.d.ts").Message} */
  const message = {
    from: field(data, "from", "string"),
    to: field(data, "to", "string"),
    content: field(data, "content", "string"),
    messageId: field(data, "message_id", "string"),
    timestamp: field(data, "timestamp", "string"),
  };
  if (Number.isSafeInteger(data.seq)) message.seq = data.seq;
  if (message.from === userId) message.own = true;
  return message;
}
