// @ts-check
/** The others: who is online, who is typing, and when they are told that this user is. */

import { Presence } from "./models.js";
import { SECOND } from "./timers.js";
import { field, list, retryAfter, scopeOf } from "./wire.js";

/** @typedef {import("./wire.js").Data} Data */

/** People whose presence can be asked for in one message. */
const ASKED_FOR_MAX = 100;
/** The limit is 10 in 60 s, by the server's clock. */
const TYPING_MAX = 10;
const TYPING_WINDOW = 61 * SECOND;
/** An indicator is renewed after so long; the server ends it after so long. */
const TYPING_REPEAT = 7 * SECOND;
const TYPING_EXPIRY = 15 * SECOND;

/** What is known of the others. */
export class People {
  #link;
  #emit;
  /** Who is online; while there is no connection, who was. */
  presence = new Presence();
  /** Who is typing to us. @type {Set<string>} */
  #typists = new Set();

  /**
   * @param {import("./wire.js").Link} link
   * @param {import("./timers.js").Timers} timers
   * @param {(event: string, value: unknown) => unknown} emit
   */
  constructor(link, timers, emit) {
    this.#link = link;
    this.#emit = emit;
    this.typing = new TypingThrottle(timers);
  }

  /** HELLO_ACK came. @param {Data} data */
  greeted(data) {
    this.presence.scope = scopeOf(data);
  }

  /** The connection is lost: nobody would tell any more that somebody has stopped typing. */
  lost() {
    for (const userId of this.#typists) this.#emit("typing", { userId, isTyping: false });
    this.#typists.clear();
  }

  /** Ask who of these people is online; the answer is a `presence` event. @param {Iterable<string>} userIds */
  ask(userIds) {
    if (!this.#link.isOnline || !this.#link.capabilities.has("presence_delta")) return;
    const wanted = [...new Set(userIds)];
    for (let from = 0; from < wanted.length; from += ASKED_FOR_MAX)
      this.#link.write("PRESENCE", { user_ids: wanted.slice(from, from + ASKED_FOR_MAX) });
  }

  /** PRESENCE came: everybody, or in a delta the users who came or went, who are returned. Throws PROTOCOL. @param {Data} data */
  present(data) {
    const users = list(data, "users").map((user) => ({ ...user, id: field(user, "user_id", "string") }));
    if (data.delta !== true) this.presence.clear();
    this.presence.scope = scopeOf(data) ?? this.presence.scope;
    for (const { id, display_name: name, online } of users) {
      if (online === false) this.presence.delete(id);
      else this.presence.set(id, String(name ?? id));
    }
    this.#emit("presence", this.presence);
    return data.delta === true ? users.map(({ id }) => id) : undefined;
  }

  /** TYPING came. Throws PROTOCOL. @param {Data} data */
  typist(data) {
    const userId = field(data, "user_id", "string");
    const isTyping = field(data, "is_typing", "boolean");
    if (isTyping) this.#typists.add(userId);
    else this.#typists.delete(userId);
    this.#emit("typing", { userId, isTyping });
  }

  /** Tell somebody whether the user is typing, if the limits allow it. @param {string} userId @param {boolean} isTyping */
  tellTyping(userId, isTyping) {
    if (this.#link.isOnline && this.typing.wants(userId, isTyping)) this.#link.write("TYPING", { to: userId, is_typing: isTyping });
  }
}

/**
 * When to tell that the user is typing: at every key would be far too often. What does not fit into the limit is left out: an indicator that
 * is not renewed expires by itself. For each one that is shown, one of the ten is kept to end it.
 */
class TypingThrottle {
  #timers;
  /** Who sees us typing -> when we said so; when TYPING was sent; until when the server wants none. @type {Map<string, number>} */
  #told = new Map();
  /** @type {number[]} */
  #sent = [];
  #pausedUntil = 0;

  /** @param {import("./timers.js").Timers} timers */
  constructor(timers) {
    this.#timers = timers;
  }

  /** Whether to say so now; counts it if so. @param {string} userId @param {boolean} isTyping */
  wants(userId, isTyping) {
    const now = this.#timers.now();
    this.#sent = this.#sent.filter((at) => at > now - TYPING_WINDOW);
    for (const [peer, at] of this.#told) if (at <= now - TYPING_EXPIRY) this.#told.delete(peer);
    const said = this.#told.get(userId);
    let left = TYPING_MAX - this.#sent.length;
    if (isTyping) {
      if (said !== undefined && now - said < TYPING_REPEAT) return false;
      // Everyone who was told `true` will have to be told `false`.
      left -= this.#told.size + (said === undefined ? 1 : 0);
    } else if (!this.#told.delete(userId)) return false;
    if (left < 1 || now < this.#pausedUntil) return false;
    if (isTyping) this.#told.set(userId, now);
    this.#sent.push(now);
    return true;
  }

  /** A message to somebody ends the indicator, at the server. @param {string} userId */
  messageSent(userId) {
    this.#told.delete(userId);
  }

  /** The server has had enough: other devices of the user type too. @param {import("./models.js").FastChatError} error */
  limited(error) {
    this.#pausedUntil = this.#timers.now() + retryAfter(error);
  }

  /** The connection is lost, and with it what was shown. */
  startOver() {
    this.#told.clear();
  }
}
