// @ts-check
/** Fetches what the page shows, page by page: the list of chats, and the messages of a chat. */

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./fastchat.js").FastChat} FastChat */
/** @typedef {import("./messenger.js").Messenger} Messenger */

/** Chats of a page of the list, and how many of these pages are fetched. */
const LIST_PAGE = 100;
const LIST_PAGES = 20;
/** Messages of a page of history; the same at most; and messages that are loaded at most to show where the unread ones begin. */
const PAGE = 40;
const PAGE_MAX = 100;
const UNREAD_MAX = 500;
/** Latest own messages whose state is asked of the server when a chat is opened. */
const ASKED = 10;

export class Pages {
  /** @param {Messenger} messenger */
  constructor(messenger) {
    this.messenger = messenger;
    /** The client that has the list of chats, or fetches it. @type {FastChat | null} */
    this.listening = null;
    /** Its first page: how much is unread says how many messages to load. @type {Promise<void>} */
    this.firstPage = Promise.resolve();
  }

  /** The client is online: fetch the list, if the server keeps one; once, since the client keeps it from then on. */
  listen() {
    const isListed = this.messenger.client.capabilities.has("chats");
    this.messenger.chats.listen(isListed);
    if (isListed && this.listening !== this.messenger.client) this.firstPage = this.fetchList();
    this.messenger.keep();
  }

  async fetchList() {
    const { client } = this.messenger;
    this.listening = client;
    let next = await this.fetchPage(client, null);
    const rest = async () => {
      for (let page = 1; next !== null && page < LIST_PAGES; page++) next = await this.fetchPage(client, next);
    };
    void rest();
  }

  /** @param {FastChat} client @param {string | null} before @returns {Promise<string | null>} where the next page begins */
  async fetchPage(client, before) {
    try {
      const { next } = await client.listChats({ before, limit: LIST_PAGE });
      if (client !== this.messenger.client) return null;
      this.messenger.chats.setList(client.chatList);
      this.messenger.keep();
      this.messenger.events.changed();
      return next;
    } catch {
      if (this.listening === client) this.listening = null; // again with the next connection
      return null;
    }
  }

  // -- Messages --

  /**
   * Make sure that the newest messages of a chat are here; opens it if need be. Done when the server answers, which may be after a reconnection.
   * @param {Chat} chat
   */
  async load(chat) {
    if (!chat.isLoading && !chat.isLoaded) await this.loadPage(chat, null);
  }

  /** Load the messages before the oldest that is here. @param {Chat} chat */
  async loadOlder(chat) {
    const before = chat.thread.next;
    if (!chat.isLoading && chat.isLoaded && before && !chat.problem) await this.loadPage(chat, before);
  }

  /** @param {Chat} chat @param {string | null} before where the page begins; null: at the newest message */
  async loadPage(chat, before) {
    const { client } = this.messenger;
    chat.isLoading = true;
    this.messenger.events.changed();
    try {
      if (before === null) {
        await this.firstPage;
        await this.open(chat, client);
      }
      const pages = before === null ? await this.newest(chat, client) : [await client.history(chat.id, { before, limit: PAGE })];
      if (client !== this.messenger.client) return;
      for (const [number, { messages, next }] of pages.entries()) {
        chat.thread.merge(messages, next, before === null && number === 0);
        this.merged(chat, messages);
      }
      chat.isLoaded = true;
    } catch (error) {
      if (client === this.messenger.client) chat.failed(error);
    }
    if (client === this.messenger.client) chat.isLoading = false;
    this.messenger.events.changed();
  }

  /** The newest messages, back to the first that is not read, if that is not too far; newest page first. @param {Chat} chat @param {FastChat} client */
  async newest(chat, client) {
    const pages = [];
    let missing = Math.min(UNREAD_MAX, Math.max(PAGE, chat.unread + PAGE / 2));
    /** @type {string | null} */
    let before = null;
    do {
      /** @type {import("./client/fastchat.d.ts").History} */
      const page = await client.history(chat.id, { before, limit: Math.min(PAGE_MAX, missing) });
      pages.push(page);
      before = page.next;
      missing -= page.messages.length;
    } while (before !== null && missing > 0);
    return pages;
  }

  /** Make sure that a chat is open. @param {Chat} chat @param {FastChat} client */
  async open(chat, client) {
    if (chat.entry) return; // or it would not be in the list
    const isKnown = this.messenger.chats.isKnown(chat);
    await client.openChat(chat.id, chat.knownName);
    // Else it would be told within a second, and only of who is online.
    if (!isKnown) client.askPresence([chat.id]);
  }

  /** A page is here. @param {Chat} chat @param {import("./client/fastchat.d.ts").Message[]} messages */
  merged(chat, messages) {
    if (this.messenger.chats.mode.isListed) {
      const unread = messages.filter(({ own, read }) => !own && !read).map((message) => chat.thread.byKey.get(chat.thread.keyOf(message)));
      // Messages from before the server kept the list count as read, though it does not say so of each.
      const left = chat.unread - chat.unreadItems.length;
      for (const item of unread.filter((each) => !each?.unseen).slice(0, Math.max(0, left))) if (item) item.unseen = true;
    } else for (const item of chat.unreadItems) item.unseen = true;
    chat.saw();
    // History does not say what has become of a message; sending it again, as the same, does.
    const own = chat.thread.items.filter((item) => item.own && item.order !== Infinity).slice(-ASKED);
    for (const item of own)
      if (item.isVague && !this.messenger.followed.has(item.messageId)) this.messenger.transmit(chat, item.messageId, item.content);
    this.messenger.keep();
  }
}
