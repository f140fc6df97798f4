/**
 * Types of fastchat.js, the client of FastChat for browsers and Node.
 *
 * @module
 */

/** What a client is made of. */
export interface Options {
  /** Where the server is: `ws://localhost:8000/ws`. */
  url: string;
  /** Who one is: a UUID v4, see `newId`; or what else the server takes. */
  userId: string;
  /** The name that others see, 3 to 50 characters. */
  displayName: string;
  /** What proves who one is, where the server wants that: a JSON Web Token whose `sub` is the user id. Others ignore it. */
  token?: Token | null;
  /** The `cursor` of an earlier client of this user: the messages after it come first. */
  cursor?: string | null;
  /** Where there is no global WebSocket (Node before 22): that of the package ws, for example. */
  WebSocket?: new (
    url: string,
  ) => any;
  /** Another clock than `now`, for tests. It may not go back. Times are in milliseconds. */
  clock?: Clock;
  /** Another source of numbers from 0 up to 1 than Math.random, for tests. */
  random?: () => number;
}

/**
 * A token, or a function that gives one, at once or as a promise, and is asked before each HELLO: at each connection, and when the token is
 * about to run out. It has 15 s. If it fails, that is an `error` event (TOKEN), and it is asked again after a while; so it is when the
 * server refuses its token as `expired` or `early`, or the token has run out. A token that is no function is told to run out by an `error`
 * event (UNAUTHORIZED with `details.expires_in`, in seconds): see `renew`. When it is refused or has run out, the client has ended.
 */
export type Token = string | (() => string | Promise<string>);

/** Why a client has ended for good, or a connection. */
export interface Closed {
  /** A close code; 1008 when HELLO was refused, 1006 when there is none. */
  code: number;
  reason: string;
  /** Why the server has refused the token, in one word: `missing`, `malformed`, `signature`, `expired` ... or has let it run out (`expired`). */
  refused?: string;
  /** The status of HTTP, if that was the answer instead of a WebSocket. Only the package ws tells it. */
  status?: number;
}

export interface Clock {
  now(): number;
  setTimeout(run: () => void, delay: number): unknown;
  clearTimeout(timer: any): void;
}

/**
 * `connecting`: an attempt is being made; `online`: HELLO_ACK has come; `waiting`: until `retryAt`; `closed`: for good, `closed` says why,
 * or it was never connected.
 */
export type State = "connecting" | "online" | "waiting" | "closed";

/**
 * What has become of a message. `queued`: not on its way, see `error` for why; `sent`: on its way; `stored`: the server has it (as servers
 * without receipts say it); `accepted`: the server has it; `delivered`: a device of the recipient has it; `read`: the recipient has read
 * it; `failed`: it never will be accepted, `error` says why.
 */
export type Status = "queued" | "sent" | "stored" | "accepted" | "delivered" | "read" | "failed";

/**
 * Whose presence the server tells: of `everyone`, or of the people with whom there is a chat (`contacts`), so that nobody can be said to be
 * away whom one has no chat with.
 */
export type Scope = "everyone" | "contacts";

/** Who is online: user id -> display name. */
export interface Presence extends ReadonlyMap<string, string> {
  /** null: not known, since the server has not said so. */
  readonly scope: Scope | null;
}

/** An open chat with one person. */
export interface Chat {
  chatId: string;
  userId: string;
  displayName: string;
}

/** A message that came. */
export interface Message {
  from: string;
  to: string;
  content: string;
  messageId: string;
  /** ISO 8601, UTC, by the server's clock. */
  timestamp: string;
  /** Its position among the messages to this user, from 1 on. */
  seq?: number;
  /** Sent by another device of this user; or, in a history, by this user. */
  own?: true;
  /** The recipient has read it: in `own` messages of a history the other person, in all others this user, on whatever device. */
  read?: true;
}

/** The last message of a chat, as a list of chats shows it. */
export interface LastMessage {
  from: string;
  /** The first 200 characters. */
  content: string;
  /** Of a message that this client has sent it is an estimate, until the server tells of the chat again. */
  timestamp: string;
  messageId: string;
}

/** A chat in the list of chats; the server keeps it, so it is the same on all devices of the user. */
export interface ChatEntry {
  /** The other person. */
  userId: string;
  displayName: string;
  chatId: string;
  last: LastMessage | null;
  /** How many messages of the other person this user has not read. */
  unread: number;
  /** The position up to which this user has read. */
  read: number;
  /** Whether the other person is online. */
  online: boolean;
  /** Whether this user has blocked the other person. */
  blocked: boolean;
  /** Whether this user has muted the chat. */
  muted: boolean;
  /** In a change: the chat has left the list, until somebody writes in it. */
  hidden?: true;
}

/** A page of the list of chats. */
export interface ChatPage {
  /** The last one that was written in first. */
  chats: ChatEntry[];
  /** The `before` of the page that follows; null when there is none. */
  next: string | null;
}

/** A page of what was written with somebody. */
export interface History {
  /** Newest first. */
  messages: Message[];
  /** The `before` of the page that follows; null when there is none. */
  next: string | null;
}

export interface StateChange {
  state: State;
  /** While waiting: when the next attempt is made, on the clock's scale, see `now`. */
  retryAt: number | null;
  /** When closed for good: why. */
  closed: Closed | null;
  /** While waiting: why the last connection ended, or could not be made. A browser does not tell why it could not. */
  lost: Closed | null;
  /**
   * When online: `full` if nothing can have been missed; `partial` if what was missed is in part older than the server keeps; `reset` if
   * only messages come that no device of this user has acknowledged, as without a cursor. After the last two, look at the history.
   */
  resumed?: "full" | "partial" | "reset";
}

/** Event name -> what a listener gets. */
export interface Events {
  state: StateChange;
  /** The client's `presence`, after a change; it says whose presence it is. */
  presence: Presence;
  /** A chat was opened, by this user or by the other. */
  chat: Chat;
  /** Chats that have changed, on whatever device; those that left the list are `hidden`. See `chatList`. */
  chats: ChatEntry[];
  /**
   * Shown once, one after the other. When all listeners are done, promises included, it is acknowledged, `cursor` moves behind it, and the next
   * one is shown. If one fails, that is an `error` event, it is not acknowledged, and so it comes again with the next connection; `cursor`
   * stays before it until then. The fifth time it counts as shown. Messages wait until there is a listener for them.
   */
  message: Message;
  typing: { userId: string; isTyping: boolean };
  /** The `status`, the `error` or the `content` of a message has changed. */
  receipt: Sent;
  /** What concerns no promise: an ERROR of the server, garbage from it (PROTOCOL), a listener that failed (LISTENER), no token (TOKEN). */
  error: FastChatError;
}

/**
 * What went wrong. `code` is one of the protocol's (VALIDATION, MESSAGE_FAILED, USER_NOT_FOUND, CHAT_NOT_OPENED, RATE_LIMITED,
 * UNAUTHORIZED) or
 *
 * - CLOSED: the client has ended for good;
 * - FORGOTTEN: the receipts of this message are followed no longer, since there are 1,000 newer ones;
 * - LISTENER: a listener threw, or its promise was rejected; see `cause`;
 * - PROTOCOL: the server said what no server says;
 * - TIMEOUT: it was not online in the time that `connect` was given; it goes on trying;
 * - TOKEN: the function `token` failed, did not answer in time, or gave no token; see `cause`;
 * - UNSUPPORTED: the server can't do this.
 */
export class FastChatError extends Error {
  constructor(code: string, message: string, details?: Record<string, any>, cause?: unknown);
  readonly code: string;
  /** What the server added: the field, the limit, what was expected. */
  readonly details: Record<string, any>;
}

/** A message on its way. Each change of `status` or `content` is a `receipt` event. */
export class Sent {
  private constructor();
  readonly messageId: string;
  readonly to: string;
  /** What others read: what was given, or if the server has taken markup out, what was left; known from `accepted` on. */
  readonly content: string;
  /** What was given. */
  readonly original: string;
  readonly status: Status;
  /** Why it failed; while it is queued, why it has to be sent again. */
  readonly error: FastChatError | null;
  /** Resolves when the server has it, on disk; rejects when it never will. */
  readonly accepted: Promise<Sent>;
  /** Resolves when a device of the recipient has it. */
  readonly delivered: Promise<Sent>;
  /** Resolves when the recipient has read it. Servers and recipients without receipts never say so. */
  readonly read: Promise<Sent>;
}

/**
 * The clock of a client that was given no other, and so the scale of `retryAt`: milliseconds since 1970 as `Date.now()` had them when the
 * program began. Unlike that it is never put back or forward.
 */
export function now(): number;

/** A new UUID v4, for a user id or a message id. */
export function newId(): string;

/** One device of one user. It keeps itself connected from `connect` to `close`. */
export class FastChat {
  constructor(options: Options);

  /** As given, and once online as the server writes it. */
  readonly userId: string;
  readonly displayName: string;
  readonly state: State;
  /** While waiting: when the next attempt is made, on the clock's scale, see `now`. */
  readonly retryAt: number | null;
  /** Why it ended for good. */
  readonly closed: Closed | null;
  /** Where to go on after a page load: keep it, and give it to the next client. */
  readonly cursor: string | null;
  /** Who is online: user id -> display name. While not online: who was. */
  readonly presence: Presence;
  /** `presence.scope`: known from HELLO_ACK on, and null where the server does not say it. */
  readonly presenceScope: Scope | null;
  /** Chats that were opened since this object was made, by user id. */
  readonly chats: ReadonlyMap<string, Chat>;
  /**
   * The list of chats, the last one that was written in first: as far as `listChats` has asked for it, and always as it is now. Chats in
   * which something happens are in it wherever they stood before. Empty before the first `listChats`.
   */
  readonly chatList: readonly ChatEntry[];
  /** What the server granted of receipts, resume, history, carbons, presence_delta, chats and block. */
  readonly capabilities: ReadonlySet<string>;

  /**
   * Call `listener` at every event of this name; the function that is returned ends that. A listener that throws, or whose promise is
   * rejected, stops neither the program nor another listener: it causes an `error` event with the code LISTENER, or if it listens to
   * `error`, a line on the console.
   */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => unknown): () => void;

  /**
   * Start. Resolves when it is online for the first time. Rejects with CLOSED when it ends for good before, as it does when the answer to its
   * first connection is a status of HTTP which says that this is no FastChat, or refuses this client (404, 403 ...; browsers do not tell
   * it); and with TIMEOUT and the last reason when so many milliseconds are over. After TIMEOUT it goes on trying: wait again, or close
   * it. The first failure of each outage is said by one `console.warn`, and each by a `state` event.
   */
  connect(timeout?: number): Promise<void>;

  /**
   * Go on with another token: the server gets it on the connection that is there, which stays as it is, or else with the next one. If it
   * is refused, that is as if it had been the option.
   */
  renew(token: Token): void;

  /** End for good. What the server has not accepted fails with CLOSED. */
  close(): void;

  /**
   * Open a chat; needed once before the first message to somebody. Rejects with USER_NOT_FOUND when the server has never seen this user. If
   * the server forgets the chat, it is opened again without being asked.
   */
  openChat(userId: string, displayName: string): Promise<Chat>;

  /**
   * Send a message, now or when there is a connection again. Messages to one person arrive in the order of these calls. The same
   * `messageId` to the same person is the same message: it arrives once.
   */
  send(to: string, content: string, options?: { messageId?: string }): Sent;

  /** What was written with somebody, `limit` (1 to 100, else 50) messages at a time. */
  history(userId: string, page?: { before?: string | null; limit?: number }): Promise<History>;

  /**
   * The list of chats, `limit` (1 to 100, else 50) at a time. From the first call on the client keeps `chatList`, and asks for as much of it
   * again after each reconnection. Rejects with UNSUPPORTED when the server keeps no list.
   */
  listChats(page?: { before?: string | null; limit?: number }): Promise<ChatPage>;

  /** The whole list of chats, asked for in pages of `limit` chats as they are needed. */
  allChats(page?: { limit?: number }): AsyncGenerator<ChatEntry, void, undefined>;

  /**
   * Take a chat out of the list until somebody writes in it. Like the four that follow this resolves, with the chat as it is then, when it is
   * done on all devices of the user. Rejects with what the server says against it, with MESSAGE_FAILED when it has not confirmed it in
   * time (it may have been done), and with UNSUPPORTED when it can't do this. What is not confirmed on one connection is said again on
   * the next one.
   */
  hide(userId: string): Promise<ChatEntry>;

  /** Mute a chat: the server marks it in the list, and the programs of the user are to keep quiet about it. */
  mute(userId: string): Promise<ChatEntry>;

  /** End `mute`. */
  unmute(userId: string): Promise<ChatEntry>;

  /**
   * Block a user, with whom there need not be a chat: until `unblock` neither hears of the other, who is not told of it. Messages to a user
   * whom one has blocked fail with CHAT_NOT_OPENED and `details.blocked`.
   */
  block(userId: string): Promise<ChatEntry>;

  /** End `block`. What the other one wrote meanwhile does not come any more. */
  unblock(userId: string): Promise<ChatEntry>;

  /** Tell somebody whether one is typing. Call it at every key: it says no more than the limits allow. */
  typing(userId: string, isTyping: boolean): void;

  /**
   * Ask who of these people, with whom there is a chat, is online; the answer is a `presence` event. It is asked at once or, when not online
   * or without presence_delta, not at all.
   */
  askPresence(userIds: Iterable<string>): void;

  /**
   * Mark a message, and all before it, as read, on all devices; the sender is told if the server knows receipts. Call it for every message:
   * the server is told at most once a second of each sender, and again after a reconnection if it may not have heard of it. Servers without
   * the capability `chats` take it for this one message.
   */
  markRead(messageId: string, from: string): void;
}
