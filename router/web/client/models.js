// @ts-check
/** What programs get from the client: errors, messages on their way, who is online, new ids. */

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

/**
 * Who is online: user id -> display name. `scope` is whose presence the server tells, null as long as it has not said so.
 * @extends {Map<string, string>}
 */
export class Presence extends Map {
  /** @type {import("./fastchat.d.ts").Scope | null} */
  scope = null;
}

/** A new UUID v4, for a user id or a message id. */
export function newId() {
  const digit = (/** @type {string} */ place) => ((Math.random() * (place === "x" ? 16 : 4)) | (place === "x" ? 0 : 8)).toString(16);
  // Only pages from secure origins have randomUUID.
  return globalThis.crypto?.randomUUID?.() ?? "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx".replace(/[xy]/g, digit);
}

/**
 * A promise to settle by hand.
 * @typedef {{promise: Promise<any>, resolve: (value?: any) => void, reject: (error: unknown) => void}} Deferred
 */

/** Make a promise to settle by hand. Node would end the program for a rejection that nobody looks at. @returns {Deferred} */
export function deferred() {
  /** @type {any} */
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}
