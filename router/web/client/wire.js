// @ts-check
/** The words of the wire, the text of the wire <-> messages, and the connection on which they are said. */

import { FastChatError } from "./models.js";
import { SECOND } from "./timers.js";

/** @typedef {Record<string, any>} Data */

export const CAPABILITIES = ["receipts", "resume", "history", "carbons", "presence_delta", "chats", "block"];
/** Whose presence the server may tell. */
const SCOPES = ["everyone", "contacts"];
/** Close codes that the client treats in a way of their own: no close code, the token has run out, restart, overload, a device that slept. */
export const ABNORMAL = 1006;
export const POLICY = 1008;
export const RESTARTING = 1012;
export const OVERLOADED = 1013;
export const SLEPT = 4002;
/** Coming back would not help: protocol errors, abuse, replaced by a newer device, banned, deleted. */
export const FINAL = [1002, 1003, 1007, 1008, 1009, 4001, 4003, 4004];
/** The reason of 1008 when a token has run out. */
export const TOKEN_EXPIRED = "token expired";
/** How far a message has come; from 1 on the server has it. @type {Record<string, number>} */
export const RANK = { failed: 0, queued: 0, sent: 0, stored: 1, accepted: 1, delivered: 2, read: 3 };

const NO_LIST = "this server keeps no list of chats";
const NO_BLOCKS = "this server can't block users";
/** The capabilities that a request needs, and what is said without them. @type {Record<string, [string[], string]>} */
export const NEEDED = {
  HISTORY: [["history"], "this server has no history"],
  CHATS: [["chats"], NO_LIST],
  HIDE: [["chats"], NO_LIST],
  MUTE: [["chats"], NO_LIST],
  UNMUTE: [["chats"], NO_LIST],
  BLOCK: [["chats", "block"], NO_BLOCKS],
  UNBLOCK: [["chats", "block"], NO_BLOCKS],
};
/** What changes the list of chats, and how a chat shows that it is done. @type {Record<string, (entry: import("./fastchat.d.ts").ChatEntry) => boolean>} */
export const COMMANDS = {
  HIDE: ({ hidden }) => hidden === true,
  MUTE: ({ muted }) => muted,
  UNMUTE: ({ muted }) => !muted,
  BLOCK: ({ blocked }) => blocked,
  UNBLOCK: ({ blocked }) => !blocked,
};

const FRAME_MAX_BYTES = 16 * 1024;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** How long RATE_LIMITED lasts when the server does not say so, in seconds. */
const RETRY_AFTER = 5;

/**
 * The same for all spellings of a user id: a UUID in lower case, as servers write it; any other id is what it is, letter by letter.
 * @param {string} userId
 */
export const canonical = (userId) => (UUID.test(userId) ? userId.toLowerCase() : userId);

/** Whether two user ids are the same. @param {string} one @param {string} other */
export const same = (one, other) => canonical(one) === canonical(other);

/** The type and the data of a message. Throws PROTOCOL. @param {string} text @returns {{type: string, data: Data}} */
export function decode(text) {
  let message = null;
  try {
    message = JSON.parse(text);
  } catch {} // said below
  return { type: field(message, "type", "string"), data: field(message, "data", "object") };
}

/**
 * A field that must be there. Throws PROTOCOL.
 * @param {Data | null} data
 * @param {string} name
 * @param {string} type
 * @returns {any}
 */
export function field(data, name, type) {
  const value = data?.[name];
  if (typeof value !== type || value === null) throw new FastChatError("PROTOCOL", `what came has no ${type} \`${name}\``, { data });
  return value;
}

/** A list that must be there. Throws PROTOCOL. @param {Data} data @param {string} name @returns {any[]} */
export function list(data, name) {
  const value = field(data, name, "object");
  if (!Array.isArray(value)) throw new FastChatError("PROTOCOL", `\`${name}\` is no list`, { data });
  return value;
}

/** Whose presence the server tells; null if it has not said so. @param {Data} data @returns {import("./fastchat.d.ts").Scope | null} */
export const scopeOf = (data) => (SCOPES.includes(data.scope) ? data.scope : null);

/** A message, as listeners get it. Throws PROTOCOL. @param {Data} data @param {string} userId the user of this client */
export function readMessage(data, userId) {
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
  if (data.read === true) message.read = true;
  return message;
}

/** The last message of a chat, as a list of chats shows it. Throws PROTOCOL. @param {Data} data @returns {import("./fastchat.d.ts").LastMessage} */
export const readLast = (data) => ({
  from: field(data, "from", "string"),
  content: field(data, "content", "string"),
  timestamp: field(data, "timestamp", "string"),
  messageId: field(data, "message_id", "string"),
});

/** An ERROR. Throws PROTOCOL. @param {Data} data */
export const readError = (data) => new FastChatError(field(data, "code", "string"), String(data.message), data.details ?? {});

/** The milliseconds that RATE_LIMITED asks for. @param {FastChatError} error */
export function retryAfter({ details }) {
  const seconds = details.retry_after;
  return (seconds > 0 && Number.isFinite(seconds) ? seconds : RETRY_AFTER) * SECOND;
}

/**
 * Why a message would cost the connection instead of being answered; null if it would not.
 * @param {string} to
 * @param {string} content
 * @param {string} messageId
 */
export function unsendable(to, content, messageId) {
  const text = JSON.stringify({ type: "MSG", data: { to, content, message_id: messageId } });
  const size = new TextEncoder().encode(text).length;
  if (size > FRAME_MAX_BYTES) return new FastChatError("VALIDATION", `the message has ${size} bytes, more than ${FRAME_MAX_BYTES}`);
  if (/\p{Surrogate}/u.test(content)) return new FastChatError("VALIDATION", "there is half a character in the text");
  return null;
}

/** The connection, as the parts of a conversation see it: whether it is there, what it can do, and how to say something on it. */
export class Link {
  #write;
  /** @type {import("./fastchat.d.ts").State} */
  state = "closed";
  /** Why the client has ended for good. @type {import("./fastchat.d.ts").Closed | null} */
  closed = null;
  /** What the server granted. @type {Set<string>} */
  capabilities = new Set();

  /** @param {(text: string) => void} write puts text on the connection, if there is one */
  constructor(write) {
    this.#write = write;
  }

  get isOnline() {
    return this.state === "online";
  }

  /** Send a message. @param {string} type @param {Data} data */
  write(type, data) {
    this.#write(JSON.stringify({ type, data }));
  }
}
