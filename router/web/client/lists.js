// @ts-check
/**
 * What the server keeps of all chats of the user: the list, what is read, muted and blocked. It tells a device of every change but those that
 * the device has made itself, by writing, reading and opening; so these are noted here.
 */

import { ChatList } from "./chat_list.js";
import { Arrivals, Reading } from "./reading.js";
import { canonical, field, list, readLast, retryAfter } from "./wire.js";

/** @typedef {import("./wire.js").Data} Data */
/** @typedef {import("./reading.js").Read} Read */
/** @typedef {import("./fastchat.d.ts").ChatEntry} ChatEntry */
/** @typedef {import("./requests.js").Command} Command */

/** Chats of a page when the program has not said how many. */
const LIMIT = 50;

/** The list of chats and what changes it. */
export class Lists {
  #link;
  #timers;
  #requests;
  #repeater;
  #emit;
  #arrivals = new Arrivals();
  #reading;
  /** The list, from the first page on. */
  kept = new ChatList();
  /** How many chats the program asked for last. */
  #limit = LIMIT;
  /** Counts the connections: what began on one does not go on on the next. */
  #connection = 0;
  /** How many chats the server is to be asked for, since they are not in the list. */
  #wanted = 0;
  /** The time of the server as its last PONG said it, and when. @type {{time: number, at: number} | null} */
  #heard = null;

  /**
   * @param {import("./wire.js").Link} link
   * @param {import("./timers.js").Timers} timers
   * @param {import("./requests.js").Requests} requests
   * @param {import("./repeater.js").Repeater} repeater
   * @param {(event: string, value: unknown) => unknown} emit
   */
  constructor(link, timers, requests, repeater, emit) {
    this.#link = link;
    this.#timers = timers;
    this.#requests = requests;
    this.#repeater = repeater;
    this.#emit = emit;
    this.#reading = new Reading(this.#arrivals, timers, (read) => repeater.say("READ", read));
  }

  /** Whether the server keeps a list, so that READ is cumulative. */
  get isThere() {
    return this.#link.isOnline && this.#link.capabilities.has("chats");
  }

  // -- The connection --

  /** There is a new connection: say what the last one may have swallowed; and fetch the list again, if it is kept. @param {Read[]} reads */
  begin(reads) {
    for (const read of reads) this.#mark(read);
    this.#reading.pump();
    if (this.kept.isKept) void this.#refresh();
  }

  /** The connection is lost. */
  lost() {
    this.#connection += 1;
    this.#heard = null;
    this.#requests.forgetOwn("CHATS");
    for (const read of this.#reading.takeAll()) this.#repeater.keep("READ", read);
  }

  // -- What the program wants --

  /**
   * @param {{before?: string | null, limit?: number}} page
   * @returns {Promise<import("./fastchat.d.ts").ChatPage>}
   */
  page({ before, limit }) {
    this.#limit = limit ?? LIMIT;
    return this.#requests.ask("CHATS", { before: before ?? undefined, limit });
  }

  /** @param {Command} command @param {string} userId @returns {Promise<ChatEntry>} */
  command(command, userId) {
    return this.#requests.ask(command, { user_id: userId });
  }

  /** The user has read a message and all before it. There must be a connection. @param {Read} read */
  markRead(read) {
    this.#mark(read);
    this.#reading.pump();
  }

  /** The connection is about to be closed: say what has been put off. */
  finish() {
    if (this.isThere) this.#reading.finish();
  }

  /** The server wants no READ for a while. @param {import("./models.js").FastChatError} error */
  limited(error) {
    this.#reading.limited(this.#repeater.reads(), retryAfter(error));
  }

  // -- What comes --

  /** CHATS came: a page, or what has changed. Throws PROTOCOL. @param {Data} data */
  came(data) {
    const entries = list(data, "chats").map(readEntry);
    if (data.delta === true) return this.#changed(entries);
    const next = typeof data.next === "string" ? data.next : null;
    const request = this.#requests.current("CHATS");
    if (!request) return;
    const different = this.kept.page(request.data.before, entries, next);
    if (request.isOwn) this.#tell(different);
    this.#requests.done("CHATS", { chats: entries, next });
  }

  /** @param {ChatEntry[]} entries */
  #changed(entries) {
    this.kept.change(entries);
    const told = entries.map((entry) => this.#unread(entry));
    this.#tell(told);
    for (const entry of told) this.#requests.shown(entry);
  }

  /** A PONG came. @param {Data} data */
  ponged({ timestamp }) {
    const time = Date.parse(timestamp);
    this.#heard = Number.isNaN(time) ? null : { time, at: this.#timers.now() };
  }

  /** A message came that is news. @param {import("./fastchat.d.ts").Message} message */
  arrived({ from, messageId, timestamp, own }) {
    if (timestamp > this.kept.latest) this.kept.latest = timestamp;
    if (!own) this.#arrivals.came(from, messageId);
  }

  /** The newest page of a history came. @param {string} peer @param {import("./fastchat.d.ts").Message[]} messages */
  paged(peer, messages) {
    const theirs = messages.filter(({ own }) => !own).map(({ messageId }) => messageId);
    this.#arrivals.page(peer, theirs.reverse());
  }

  /** Who is online, of these people or of all. @param {ReadonlyMap<string, string>} online @param {string[]} [userIds] */
  presence(online, userIds) {
    this.#tell(this.kept.online(online, userIds));
  }

  /** This client has opened a chat, or written in it. Of one that is not in the list the server is asked. @param {string} userId */
  opened(userId) {
    if (!this.kept.isKept || this.kept.isKnown(userId)) return;
    this.#wanted += 1;
    if (this.#wanted === 1) void this.#fetchNew();
  }

  /**
   * The server has a message of this client.
   * @param {import("./models.js").Sent} sent
   * @param {string} from
   */
  wrote({ to, content, messageId }, from) {
    const now = this.#timers.now();
    const timestamp = this.#heard ? new Date(this.#heard.time + now - this.#heard.at).toISOString() : "";
    this.#tellOne(this.kept.wrote(to, { from, content, timestamp, messageId }, new Date(now).toISOString()));
    this.opened(to);
  }

  // -- Inside --

  /** Fetch the first page, which has the chats that are new; once more if there were others meanwhile. */
  async #fetchNew() {
    let answered = 0;
    do {
      answered = this.#wanted;
      await this.#requests.ask("CHATS", { limit: this.#limit }, true).catch(() => {}); // else the next connection brings them
    } while (this.#wanted > answered);
    this.#wanted = 0;
  }

  /** Fetch as much of the list again as was known. */
  async #refresh() {
    const { kept } = this;
    const connection = this.#connection;
    kept.startOver();
    /** @type {string | null | undefined} */
    let before;
    do {
      /** @type {import("./fastchat.d.ts").ChatPage | null} */
      const page = await this.#requests.ask("CHATS", { before, limit: this.#limit }, true).catch(() => null);
      if (!page || connection !== this.#connection) return;
      before = page.next;
    } while (before !== null && !kept.isCovered);
    this.#tell(kept.cut());
  }

  /** @param {Read} read */
  #mark(read) {
    if (!this.#reading.mark(read)) return;
    const { from, message_id: messageId } = read;
    this.#tellOne(this.kept.read(from, this.#arrivals.behind(from, messageId), messageId));
  }

  /** A chat that has changed, without what this client has read and the server may not have heard of. @param {ChatEntry} changed */
  #unread(changed) {
    let entry = changed;
    const peer = canonical(entry.userId);
    for (const { from, message_id: messageId } of [...this.#repeater.reads(), ...this.#reading.pending(peer)]) {
      if (canonical(from) === peer) entry = this.kept.read(peer, this.#arrivals.behind(peer, messageId), messageId) ?? entry;
    }
    return entry;
  }

  /** @param {ChatEntry[]} entries */
  #tell(entries) {
    if (entries.length > 0) this.#emit("chats", entries);
  }

  /** @param {ChatEntry | null} entry */
  #tellOne(entry) {
    if (entry) this.#emit("chats", [entry]);
  }
}

/** A chat of the list. Throws PROTOCOL. @param {Data} data @returns {ChatEntry} */
function readEntry(data) {
  /** @type {ChatEntry} */
  const entry = {
    userId: field(data, "user_id", "string"),
    displayName: field(data, "display_name", "string"),
    chatId: field(data, "chat_id", "string"),
    last: data.last === null || data.last === undefined ? null : readLast(field(data, "last", "object")),
    unread: field(data, "unread", "number"),
    read: field(data, "read", "number"),
    online: field(data, "online", "boolean"),
    blocked: field(data, "blocked", "boolean"),
    muted: field(data, "muted", "boolean"),
  };
  if (data.hidden === true) entry.hidden = true;
  return entry;
}
