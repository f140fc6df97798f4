// @ts-check
/**
 * Between the connection and the chats: what comes from the server goes into the chats, and what is written goes out. The browser keeps what
 * the server does not have; and the chats, as a copy of the server's list where it keeps one. Knows nothing of the document; `changed` is called whenever something may look different.
 */

import { Chats } from "./chats.js";
import { FastChat, newId, now } from "./fastchat.js";
import { nameForHello } from "./names.js";
import { Pages } from "./pages.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./thread.js").Item} Item */
/** @typedef {import("./storage.js").Person} Person */
/** @typedef {import("./client/fastchat.d.ts").Sent} Sent */
/**
 * @typedef {object} MessengerEvents
 * @property {() => void} changed
 * @property {(state: any) => void} state the connection has another one
 * @property {(seconds: number) => void} expires so long the token of the connection still holds
 * @property {(chat: Chat, item: Item) => void} news somebody has written to us
 * @property {(item: Item) => void} corrected the server has changed what we wrote; `item.note` says how
 */

/** Milliseconds after which changes are kept. */
const SAVE_DELAY = 250;

export class Messenger {
  /** @param {Person} person @param {string} url of the WebSocket @param {MessengerEvents} events */
  constructor(person, url, events) {
    this.person = person;
    this.url = url;
    this.events = events;
    const { cursor, chats } = person.loadChats();
    this.chats = new Chats(person.userId, chats);
    this.pages = new Pages(this);
    this.client = this.newClient(cursor ?? null);
    /** Own messages that this client tells the state of. @type {Set<string>} */
    this.followed = new Set();
    /** @type {number | undefined} */
    this.saveTimer = undefined;
    person.tabs?.addEventListener("message", ({ data }) => this.otherTab(data));
    addEventListener("pagehide", ({ persisted }) => {
      this.save();
      if (!persisted) this.client.close(); // which says first what it has put off, such as what was read just now
    });
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
      client.openChat(to, chat.knownName).catch(() => {});
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
    const client = new FastChat({
      url: this.url,
      userId: person.userId,
      displayName: nameForHello(person.name),
      token: person.token || null,
      cursor,
    });
    /** @param {keyof import("./client/fastchat.d.ts").Events} event @param {(value: any) => void} listener */
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
    on("chats", () => {
      this.chats.setList(client.chatList);
      this.keep();
    });
    on("message", (message) => {
      const { chat, item, isNew } = this.chats.arrive(message);
      this.keep();
      if (isNew && !chat.isMuted) this.events.news(chat, item);
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
    if (this.isOnline) this.pages.listen();
    this.events.state(state);
  }

  // -- Sending --

  /** @param {Chat} chat @param {string} content */
  send(chat, content) {
    const messageId = newId();
    const at = Date.now();
    this.person.saveUnsent({ messageId, to: chat.id, content, at });
    chat.thread.write(messageId, content, at);
    chat.saw();
    this.transmit(chat, messageId, content);
    this.keep();
  }

  /** Send a message that failed once more, as the same message. @param {Chat} chat @param {Item} item */
  retry(chat, item) {
    this.client.openChat(chat.id, chat.knownName).catch(() => {});
    item.problem = "";
    this.transmit(chat, item.messageId, item.content);
  }

  /** Give up a message that failed. @param {Chat} chat @param {Item} item */
  remove(chat, item) {
    this.person.dropUnsent(item.messageId);
    chat.thread.remove(item.messageId);
    chat.saw();
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
    thread.progress(messageId, isClosed ? "queued" : status);
    item.problem = "";
    item.retryAt = 0;
    if (status === "failed" && !isClosed) {
      item.problem =
        error?.code === "USER_NOT_FOUND" ? "the server does not know this person." : `${error?.message.replace("`content`", "the text")}.`;
    } else if (status === "queued" && error?.code === "RATE_LIMITED") {
      item.retryAt = now() + 1000 * (error.details.retry_after ?? 5);
    } else if (status === "queued" && error && !isClosed) {
      item.problem = "Not confirmed yet; trying again.";
    }
    const hasArrived = !["queued", "sent", "failed"].includes(status);
    if (!hasArrived) return;
    this.person.dropUnsent(messageId);
    if (thread.correct(item, content)) {
      this.chats.with(to).saw();
      this.events.corrected(item);
    }
    this.keep();
  }

  // -- Reading --

  /** A message has been seen here. @param {Chat} chat @param {Item} item */
  seen(chat, item) {
    item.unseen = false;
    this.client.markRead(item.messageId, chat.id);
    if (this.chats.mode.isListed) {
      for (const earlier of chat.thread.items) if (earlier.order < item.order) earlier.unseen = false;
      this.events.changed();
      return;
    }
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

  // -- Keeping --

  keep() {
    this.saveTimer ??= window.setTimeout(() => this.save(), SAVE_DELAY);
  }

  save() {
    clearTimeout(this.saveTimer);
    this.saveTimer = undefined;
    if (!this.person.userId) return; // forgotten
    if (!this.chats.mode.isListed) this.person.saveChats(this.client.cursor ?? undefined, this.chats.records());
    // A copy, for a page that is opened without a connection. Without a cursor: what came last is in the server's list.
    else if (this.chats.hasList) this.person.saveChats(undefined, this.chats.copies());
  }
}
