// @ts-check
/**
 * The client of FastChat for browsers and Node, without dependencies: `FastChat`. fastchat.d.ts beside this file says more about what is
 * public, README.md how to get it.
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
 * @module
 */

import { Events } from "./events.js";
import { Machine } from "./machine.js";
import { deferred, FastChatError, newId } from "./models.js";
import { Runner } from "./runner.js";
import { SECOND, Timers } from "./timers.js";

export { FastChatError, newId, Sent } from "./models.js";
export { now } from "./timers.js";

/** @typedef {import("./fastchat.d.ts").Events} EventValues */
/** @typedef {import("./fastchat.d.ts").FastChat} Declared */

/**
 * One device of one user.
 * @implements {Declared}
 */
export class FastChat {
  #events;
  #timers;
  #runner;
  #machine;
  #conversation;

  /** @param {import("./fastchat.d.ts").Options} options */
  constructor({ url, userId, displayName, token = null, cursor = null, WebSocket = globalThis.WebSocket, clock, random = Math.random }) {
    if (!url || !userId || !displayName) throw new TypeError("url, userId and displayName are needed");
    this.displayName = displayName;
    this.#timers = new Timers(clock);
    this.#events = new Events((item, isWell) => this.#conversation.shown(item, isWell));
    const who = { userId, displayName, token, cursor, random };
    this.#runner = new Runner(url, WebSocket, (outside) => new Machine(outside, this.#events, this.#timers, who));
    this.#machine = this.#runner.machine;
    this.#conversation = this.#machine.conversation;
    if (!WebSocket) throw new TypeError("this runtime has no WebSocket: give one as an option, for example that of the package ws");
  }

  /** As given, and once online as the server writes it. */
  get userId() {
    return this.#conversation.inbox.userId;
  }

  get state() {
    return this.#machine.state;
  }

  get retryAt() {
    return this.#machine.retryAt;
  }

  get closed() {
    return this.#machine.closed;
  }

  get cursor() {
    return this.#conversation.inbox.cursor;
  }

  get presence() {
    return this.#conversation.people.presence;
  }

  /** Whose presence the server tells; null as long as it has not said so. */
  get presenceScope() {
    return this.presence.scope;
  }

  get chats() {
    return this.#conversation.chats;
  }

  /** The list of chats, as far as it was asked for, and as it is now. */
  get chatList() {
    return this.#conversation.lists.kept.ordered;
  }

  get capabilities() {
    return this.#machine.capabilities;
  }

  /**
   * Call `listener` at every event of this name; the function that is returned ends that.
   * @template {keyof EventValues} Name
   * @param {Name} event
   * @param {(value: EventValues[Name]) => unknown} listener
   */
  on(event, listener) {
    return this.#events.on(event, listener);
  }

  /**
   * Start. Resolves when it is online for the first time, rejects when it ends for good before, or when so many milliseconds are over.
   * @param {number} [timeout]
   * @returns {Promise<void>}
   */
  connect(timeout) {
    this.#runner.start();
    const { connected } = this.#machine;
    if (timeout === undefined) return connected.promise;
    const bounded = deferred();
    const late = () => `not online within ${timeout / SECOND} s: ${this.#machine.problem || "no answer yet"}`;
    const timer = this.#timers.after(timeout, () => bounded.reject(new FastChatError("TIMEOUT", late())));
    connected.promise.then(bounded.resolve, bounded.reject).finally(() => this.#timers.stop(timer));
    return bounded.promise;
  }

  /**
   * Go on with another token, on the connection that is there.
   * @param {import("./fastchat.d.ts").Token} token
   */
  renew(token) {
    this.#machine.renew(token);
  }

  /** End for good. What the server has not accepted fails with CLOSED. */
  close() {
    this.#machine.close();
  }

  /**
   * Open a chat; needed once before the first message to somebody.
   * @param {string} userId
   * @param {string} displayName
   * @returns {Promise<import("./fastchat.d.ts").Chat>}
   */
  openChat(userId, displayName) {
    return this.#conversation.openChat(userId, displayName);
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
    return this.#conversation.send(to, content, messageId);
  }

  /**
   * What was written with somebody, newest first. `next` is the `before` of the page that follows, null at the end.
   * @param {string} userId
   * @param {{before?: string | null, limit?: number}} [page]
   */
  history(userId, page = {}) {
    return this.#conversation.history(userId, page);
  }

  /**
   * The list of chats, the last one that was written in first; from the first call on the client keeps `chatList`.
   * @param {{before?: string | null, limit?: number}} [page]
   */
  listChats(page = {}) {
    return this.#conversation.lists.page(page);
  }

  /** The whole list of chats, asked for in pages as they are needed. @param {{limit?: number}} [page] */
  async *allChats({ limit } = {}) {
    /** @type {string | null} */
    let before = null;
    do {
      const page = await this.listChats({ before, limit });
      yield* page.chats;
      before = page.next;
    } while (before !== null);
  }

  /** Take a chat out of the list until somebody writes in it. @param {string} userId */
  hide(userId) {
    return this.#conversation.lists.command("HIDE", userId);
  }

  /** @param {string} userId */
  mute(userId) {
    return this.#conversation.lists.command("MUTE", userId);
  }

  /** @param {string} userId */
  unmute(userId) {
    return this.#conversation.lists.command("UNMUTE", userId);
  }

  /** Block somebody: until `unblock` neither hears of the other. @param {string} userId */
  block(userId) {
    return this.#conversation.lists.command("BLOCK", userId);
  }

  /** @param {string} userId */
  unblock(userId) {
    return this.#conversation.lists.command("UNBLOCK", userId);
  }

  /**
   * Tell somebody whether one is typing. Call it as often as you like, at every key: it says no more than the limits allow.
   * @param {string} userId
   * @param {boolean} isTyping
   */
  typing(userId, isTyping) {
    this.#conversation.people.tellTyping(userId, isTyping);
  }

  /**
   * Ask who of these people is online; the answer is a `presence` event.
   * @param {Iterable<string>} userIds
   */
  askPresence(userIds) {
    this.#conversation.people.ask(userIds);
  }

  /**
   * Mark a message and all before it as read, on all devices, and tell the sender so.
   * @param {string} messageId
   * @param {string} from
   */
  markRead(messageId, from) {
    this.#conversation.markRead(messageId, from);
  }
}
