// @ts-check
/**
 * What is said and heard once HELLO_ACK has come, over however many connections it takes.
 *
 * `greeted` and `begin` begin, and `lost` ends a stretch on one connection; whatever is under way survives from one to the next. Nothing is
 * thrown away without a word: it ends in an answer, in a rejected promise, or in an `error` event.
 */

import { Inbox } from "./inbox.js";
import { Lists } from "./lists.js";
import { Outbox } from "./outbox.js";
import { People } from "./people.js";
import { Repeater } from "./repeater.js";
import { Requests } from "./requests.js";
import { canonical, field, list, RANK, readMessage } from "./wire.js";

/** @typedef {import("./wire.js").Data} Data */
/** @typedef {import("./fastchat.d.ts").Chat} Chat */
/** @typedef {import("./models.js").FastChatError} FastChatError */

/** Everything but the connection. */
export class Conversation {
  #link;
  #emit;
  #requests;
  #outbox;
  #repeater;
  /** Chats that were opened since this object was made, by user id. @type {Map<string, Chat>} */
  chats = new Map();
  /** User id -> promise of an OPEN_CHAT that waits. @type {Map<string, Promise<Chat>>} */
  #opening = new Map();

  /**
   * @param {import("./wire.js").Link} link
   * @param {import("./events.js").Events} events
   * @param {import("./timers.js").Timers} timers
   * @param {{userId: string, cursor: string | null, random: () => number}} options
   */
  constructor(link, events, timers, { userId, cursor, random }) {
    this.#link = link;
    this.#emit = (/** @type {string} */ event, /** @type {unknown} */ value) => events.emit(event, value);
    this.people = new People(link, timers, this.#emit);
    this.#repeater = new Repeater(link);
    this.inbox = new Inbox(
      userId,
      cursor,
      (item) => {
        this.lists.arrived(item.message);
        events.show(item);
      },
      (message) => this.#acknowledge(message),
    );
    this.#requests = new Requests(link, timers, random, {
      chatWith: (peer) => this.#chatWith(peer),
      reopen: (chat) => this.#open(chat.userId, chat.displayName),
      changed: (outgoing, status, error) => this.#outbox.change(outgoing, status, error),
      failed: (outgoing, error) => this.#outbox.fail(outgoing, error),
    });
    this.lists = new Lists(link, timers, this.#requests, this.#repeater, this.#emit);
    this.#outbox = new Outbox(link, timers, this.#requests, {
      changed: (sent) => this.#emit("receipt", sent),
      begun: (to) => this.people.typing.messageSent(to),
      accepted: (sent) => this.lists.wrote(sent, this.inbox.userId),
    });
  }

  // -- The connection --

  /** HELLO_ACK came. @param {Data} data */
  greeted(data) {
    this.#link.capabilities = new Set(Array.isArray(data.capabilities) ? data.capabilities : []);
    this.inbox.greeted(data);
    this.people.greeted(data);
  }

  /** The client is online: say first what was lost with the last connection, and ask what was missed. After this, `pump`. */
  begin() {
    const reads = this.#repeater.begin();
    if (this.lists.isThere) this.lists.begin(reads);
    if (this.#link.capabilities.has("receipts")) this.#outbox.askAgain();
  }

  /** Send what waits. */
  pump() {
    this.#requests.pump();
  }

  /** The connection is lost, and whether there `isNext` one to come. @param {boolean} isNext */
  lost(isNext) {
    this.#repeater.lost();
    this.lists.lost();
    this.people.typing.startOver();
    this.#requests.lost(isNext);
    this.people.lost();
  }

  /** The client has ended: whatever waits is told so. @param {FastChatError} error */
  end(error) {
    this.#requests.end(error);
    this.#outbox.end(error);
  }

  /** Whether no PING waits for its PONG. */
  get isAnswered() {
    return this.#repeater.isAnswered;
  }

  /** Say PING. */
  ping() {
    this.#repeater.pinged();
    this.#link.write("PING", {});
  }

  /** A message from the server, of any type but HELLO_ACK and ERROR. Throws PROTOCOL. @param {string} type @param {Data} data */
  receive(type, data) {
    if (type === "PRESENCE") this.#presenceCame(data);
    else if (type === "CHAT_OPENED") this.#chatOpened(data);
    else if (type === "MSG") this.#message(data);
    else if (type === "MSG_ACK") this.#acknowledged(data);
    else if (type === "HISTORY") this.#historyCame(data);
    else if (type === "CHATS") this.lists.came(data);
    else if (type === "TYPING") this.people.typist(data);
    else if (type === "PONG") this.#pongCame(data);
    // Anything else is what a newer server says.
  }

  /** An ERROR that is not about HELLO. @param {FastChatError} error */
  refused(error) {
    const limited = error.code === "RATE_LIMITED" ? error.details.type : "";
    if (limited === "TYPING") this.people.typing.limited(error);
    else if (limited === "READ" && this.lists.isThere) this.lists.limited(error);
    else if (!this.#requests.refused(error)) this.#emit("error", error);
  }

  /** The listeners of a message are done, `isWell` if none has failed. @param {import("./inbox.js").Item} item @param {boolean} isWell */
  shown(item, isWell) {
    this.inbox.shown(item, isWell);
  }

  // -- What the program wants --

  /** @param {string} userId @param {string} displayName */
  openChat(userId, displayName) {
    const known = this.#chatWith(userId);
    return known ? Promise.resolve(known) : this.#open(userId, displayName);
  }

  /** @param {string} to @param {string} content @param {string} messageId */
  send(to, content, messageId) {
    return this.#outbox.send(to, content, messageId);
  }

  /**
   * @param {string} userId
   * @param {{before?: string | null, limit?: number}} page
   * @returns {Promise<import("./fastchat.d.ts").History>}
   */
  history(userId, { before, limit }) {
    return this.#requests.ask("HISTORY", { with: userId, before: before ?? undefined, limit });
  }

  /** @param {string} messageId @param {string} from */
  markRead(messageId, from) {
    const read = { message_id: messageId, from };
    if (this.lists.isThere) this.lists.markRead(read);
    else this.#repeater.say("READ", read);
  }

  // -- What comes --

  /** @param {Data} data */
  #presenceCame(data) {
    const changed = this.people.present(data);
    this.lists.presence(this.people.presence, changed);
  }

  /** @param {Data} data */
  #pongCame(data) {
    this.#repeater.ponged();
    this.lists.ponged(data);
  }

  /** @param {Data} data */
  #message(data) {
    const message = readMessage(data, this.inbox.userId);
    // The server sends it to all other devices; after a reconnection this one may be taken for another.
    const outgoing = message.own && this.#outbox.find(message.messageId, message.to);
    if (outgoing) this.#outbox.progress(outgoing, "accepted", message.content);
    else this.inbox.take(message, data.cursor);
  }

  /** @param {Data} data */
  #acknowledged(data) {
    const messageId = field(data, "message_id", "string");
    const status = field(data, "status", "string");
    if (!(RANK[status] > 0)) return;
    // A server without receipts does not say to whom.
    const outgoing = this.#outbox.find(messageId, data.to ? field(data, "to", "string") : undefined);
    if (outgoing) this.#outbox.progress(outgoing, status, data.content);
  }

  /** @param {Data} data */
  #chatOpened(data) {
    const userId = field(data, "target_user_id", "string");
    const chat = { chatId: field(data, "chat_id", "string"), userId, displayName: field(data, "target_display_name", "string") };
    this.chats.set(userId, chat);
    if (this.#requests.answered("OPEN_CHAT", userId, chat)) this.lists.opened(userId);
    this.#emit("chat", chat);
  }

  /** @param {Data} data */
  #historyCame(data) {
    const peer = field(data, "with", "string");
    const messages = list(data, "messages").map((message) => readMessage(message, this.inbox.userId));
    const asked = this.#requests.answered("HISTORY", peer, { messages, next: data.next ?? null });
    if (asked && asked.data.before === undefined) this.lists.paged(peer, messages);
  }

  // -- Inside --

  /** @param {import("./fastchat.d.ts").Message} message */
  #acknowledge({ own, messageId, from }) {
    if (!own) this.#repeater.say("MSG_ACK", { message_id: messageId, from });
  }

  /** @param {string} userId @param {string} displayName @returns {Promise<Chat>} */
  #open(userId, displayName) {
    const known = this.#opening.get(userId);
    if (known) return known;
    const promise = this.#requests.ask("OPEN_CHAT", { target_user_id: userId, target_display_name: displayName });
    this.#opening.set(userId, promise);
    const done = () => void this.#opening.delete(userId);
    promise.then(done, done);
    return promise;
  }

  /** @param {string} userId */
  #chatWith(userId) {
    return this.chats.get(userId) ?? this.chats.get(canonical(userId));
  }
}
