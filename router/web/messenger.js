// @ts-check
/**
 * Between the connection and the chats: what comes from the server goes into the chats, what is written goes out, and both are kept in the
 * browser. Knows nothing of the document; `changed` is called whenever something may look different.
 */

import { Chats } from "./chats.js";
import { FastChat, newId, now } from "./fastchat.js";

/** @typedef {import("./chats.js").Chat} Chat */
/** @typedef {import("./thread.js").Item} Item */
/** @typedef {import("./storage.js").Person} Person */
/** @typedef {import("./fastchat.d.ts").Sent} Sent */
/**
 * @typedef {object} MessengerEvents
 * @property {() => void} changed
 * @property {(state: any) => void} state the connection has another one
 * @property {(seconds: number) => void} expires so long the token of the connection still holds
 * @property {(chat: Chat, item: Item) => void} news somebody has written to us
 */

/** Messages of a page of history. */
const PAGE = 40;
/** Latest own messages whose state is asked of the server when a chat is opened. */
const ASKED = 10;
/** Milliseconds after which changes are kept. */
const SAVE_DELAY = 250;
/** What the server may have taken out of a text (D16 of its rules): tags and control characters. */
const MAY_BE_CHANGED = /<[a-z/!?]|[\u0000-\u0008\u000b-\u001f]/iu;
/** Why a chat can't be had, by error code. */
const PROBLEMS = new Map([
  ["USER_NOT_FOUND", "Nobody with this link has been here yet. They have to open it once."],
  ["VALIDATION", "There can't be a chat with this person."],
]);

export class Messenger {
  /** @param {Person} person @param {string} url of the WebSocket @param {MessengerEvents} events */
  constructor(person, url, events) {
    this.person = person;
    this.url = url;
    this.events = events;
    const { cursor, chats } = person.loadChats();
    this.chats = new Chats(person.userId, chats);
    this.client = this.newClient(cursor ?? null);
    /** Own messages that this client tells the state of. @type {Set<string>} */
    this.followed = new Set();
    /** @type {number | undefined} */
    this.saveTimer = undefined;
    person.tabs?.addEventListener("message", ({ data }) => this.otherTab(data));
    addEventListener("pagehide", () => this.save());
  }

  get isOnline() {
    return this.client.state === "online";
  }

  /** Connect, and send what an earlier page could not. */
  start() {
    const { client } = this;
    client.connect().catch(() => {}); // why is in the state
    for (const { messageId, to, content, at } of this.person.loadUnsent()) {
      const chat = this.chats.with(to);
      client.openChat(to, chat.name).catch(() => {});
      chat.thread.write(messageId, content, at);
      this.transmit(chat, messageId, content);
    }
  }

  /** Begin anew, after the server has ended the connection for good or with another name. */
  restart() {
    const old = this.client;
    this.client = this.newClient(old.cursor);
    old.close();
    this.followed.clear();
    for (const chat of this.chats.byId.values()) chat.isLoaded = chat.isLoading = false;
    this.start();
  }

  /** Go on with the token that the person has now. */
  renew() {
    return this.isOnline ? this.client.renew(this.person.token) : this.restart();
  }

  /** Try to connect at once, if the next try is still to come. */
  tryNow() {
    if (this.client.state === "closed") this.restart();
    else dispatchEvent(new Event("online")); // the client's cue to wait no longer
  }

  /** @param {string | null} cursor @returns {FastChat} */
  newClient(cursor) {
    const { person } = this;
    const client = new FastChat({ url: this.url, userId: person.userId, displayName: person.name, token: person.token || null, cursor });
    /** @param {keyof import("./fastchat.d.ts").Events} event @param {(value: any) => void} listener */
    const on = (event, listener) => {
      client.on(event, (value) => {
        if (client !== this.client) return;
        listener(value);
        this.events.changed();
      });
    };
    on("state", (state) => this.stateChanged(state));
    on("presence", (users) => {
      // Our own name as everybody sees it.
      const name = users.get(person.userId);
      if (name && name !== person.name) person.introduce(name);
      this.chats.setOnline(users);
    });
    on("chat", ({ userId, displayName }) => {
      this.chats.with(userId, displayName).record.opened = true;
      this.keep();
    });
    on("message", (message) => {
      const { chat, item, isNew } = this.chats.arrive(message);
      this.keep();
      if (isNew) this.events.news(chat, item);
      // The receipts of what another device has sent come here too, for messages that this client follows.
      if (item.isVague && !this.followed.has(item.messageId)) this.transmit(chat, item.messageId, item.content);
    });
    on("typing", ({ userId, isTyping }) => {
      const chat = this.chats.byId.get(userId);
      if (chat) chat.isTyping = isTyping;
    });
    on("receipt", (sent) => this.receipt(sent));
    on("error", ({ code, message, details }) => {
      if (Number.isFinite(details.expires_in)) this.events.expires(details.expires_in);
      else console.warn("FastChat:", code, message);
    });
    return client;
  }

  /** @param {any} state */
  stateChanged(state) {
    if (this.isOnline) this.person.isNew = false;
    // What happened meanwhile, such as what another device has sent, is in the history.
    if (this.isOnline) for (const chat of this.chats.byId.values()) chat.isLoaded = false;
    if (state.resumed === "reset") this.chats.startOver();
    this.events.state(state);
  }

  // -- Sending --

  /** @param {Chat} chat @param {string} content */
  send(chat, content) {
    const messageId = newId();
    const at = Date.now();
    this.person.saveUnsent({ messageId, to: chat.id, content, at });
    chat.thread.write(messageId, content, at);
    chat.saw(content, at, true);
    this.transmit(chat, messageId, content);
    this.keep();
  }

  /** Send a message that failed once more, as the same message. @param {Chat} chat @param {Item} item */
  retry(chat, item) {
    this.client.openChat(chat.id, chat.name).catch(() => {});
    item.problem = "";
    this.transmit(chat, item.messageId, item.content);
  }

  /** Give up a message that failed. @param {Chat} chat @param {Item} item */
  remove(chat, item) {
    this.person.dropUnsent(item.messageId);
    chat.thread.remove(item.messageId);
    const last = chat.thread.items.at(-1);
    if (last) chat.record.last = { content: last.content, at: last.at, own: last.own };
    this.keep();
  }

  /** @param {Chat} chat @param {string} messageId @param {string} content */
  transmit(chat, messageId, content) {
    this.followed.add(messageId);
    this.receipt(this.client.send(chat.id, content, { messageId }));
    this.events.changed();
  }

  /** What has become of a message. @param {Sent} sent */
  receipt({ messageId, to, content, status, error }) {
    const thread = this.chats.with(to).thread;
    const item = thread.byKey.get(`${this.person.userId}|${messageId}`);
    if (!item) return;
    const isClosed = error?.code === "CLOSED"; // it goes out again when there is another connection
    const before = item.status;
    thread.progress(messageId, isClosed ? "queued" : status);
    item.problem = "";
    item.retryAt = 0;
    if (status === "failed" && !isClosed) {
      item.problem = error?.code === "USER_NOT_FOUND" ? "the server does not know this person." : `${error?.message.replace("`content`", "the text")}.`;
    } else if (status === "queued" && error?.code === "RATE_LIMITED") {
      item.retryAt = now() + 1000 * (error.details.retry_after ?? 5);
    } else if (status === "queued" && error && !isClosed) {
      item.problem = "Not confirmed yet; trying again.";
    }
    const hasArrived = !["queued", "sent", "failed"].includes(status);
    if (!hasArrived) return;
    this.person.dropUnsent(messageId);
    // Show it as the other side gets it.
    if (before !== status && MAY_BE_CHANGED.test(content)) this.load(this.chats.with(to), true);
    this.keep();
  }

  // -- Reading --

  /** A message has been seen here. @param {Chat} chat @param {Item} item */
  seen(chat, item) {
    item.unseen = false;
    this.client.markRead(item.messageId, chat.id);
    const { messageId, seq } = item;
    if (!chat.sawMessage(messageId, seq)) return;
    this.person.tabs?.postMessage({ read: chat.id, messageId, seq });
    this.keep();
    this.events.changed();
  }

  /** @param {{read?: string, messageId?: string, seq?: number, name?: string}} said by another tab of this person */
  otherTab({ read, messageId = "", seq = 0, name }) {
    const chat = read === undefined ? undefined : this.chats.byId.get(read);
    if (chat?.sawMessage(messageId, seq)) {
      const unread = new Set(chat.unreadItems);
      for (const item of chat.thread.items) item.unseen &&= unread.has(item);
    }
    if (name) {
      // Else this device would bring the old name back when it reconnects.
      this.person.name = name;
      this.restart();
    }
    this.events.changed();
  }

  /**
   * Make sure that the newest messages of a chat are here; opens it if need be. Done when the server answers, which may be after a reconnection.
   * @param {Chat} chat
   * @param {boolean} [again] even if they have been loaded
   */
  async load(chat, again = false) {
    if (chat.isLoading || (chat.isLoaded && !again)) return;
    const { client } = this;
    chat.isLoading = true;
    this.events.changed();
    try {
      await client.openChat(chat.id, chat.name);
      const { messages, next } = await client.history(chat.id, { limit: PAGE });
      if (client !== this.client) return;
      chat.thread.merge(messages, next, true);
      chat.isLoaded = true;
      this.merged(chat);
    } catch (error) {
      this.failed(chat, error, client);
    }
    if (client === this.client) chat.isLoading = false;
    this.events.changed();
  }

  /** Load the messages before the oldest that is here. @param {Chat} chat */
  async loadOlder(chat) {
    const before = chat.thread.next;
    if (chat.isLoading || !chat.isLoaded || !before || chat.problem) return;
    const { client } = this;
    chat.isLoading = true;
    this.events.changed();
    try {
      const { messages, next } = await client.history(chat.id, { before, limit: PAGE });
      if (client !== this.client) return;
      chat.thread.merge(messages, next, false);
      this.merged(chat);
    } catch (error) {
      this.failed(chat, error, client);
    }
    if (client === this.client) chat.isLoading = false;
    this.events.changed();
  }

  /** A page is here. @param {Chat} chat */
  merged(chat) {
    for (const item of chat.unreadItems) item.unseen = true;
    const last = chat.thread.items.at(-1);
    if (last) chat.saw(last.content, last.at, last.own);
    // History does not say what has become of a message; sending it again, as the same, does.
    const own = chat.thread.items.filter((item) => item.own && item.order !== Infinity).slice(-ASKED);
    for (const item of own) if (item.isVague && !this.followed.has(item.messageId)) this.transmit(chat, item.messageId, item.content);
    this.keep();
  }

  /** @param {Chat} chat @param {any} error @param {FastChat} client */
  failed(chat, error, client) {
    if (client !== this.client || error.code === "CLOSED") return;
    if (error.code === "UNSUPPORTED") {
      chat.isLoaded = true;
      chat.thread.next = null;
    } else chat.problem = PROBLEMS.get(error.code) ?? `This did not work: ${error.message}.`;
  }

  // -- Keeping --

  keep() {
    this.saveTimer ??= window.setTimeout(() => this.save(), SAVE_DELAY);
  }

  save() {
    clearTimeout(this.saveTimer);
    this.saveTimer = undefined;
    if (!this.person.userId) return; // forgotten
    this.person.saveChats(this.client.cursor ?? undefined, this.chats.records());
  }
}
