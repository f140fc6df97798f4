// A program that uses all of the client, for `make check-web` to check. It is never run.

import type {
  Chat,
  ChatEntry,
  ChatPage,
  Clock,
  Closed,
  Events,
  History,
  LastMessage,
  Message,
  Options,
  Presence,
  Scope,
  State,
  StateChange,
  Status,
  Token,
} from "../../../router/web/fastchat.js";
import { FastChat, type FastChatError, newId, now, type Sent } from "../../../router/web/fastchat.js";

const clock: Clock = { now, setTimeout: (run, delay) => setTimeout(run, delay), clearTimeout };
const who = { url: "ws://localhost:8000/ws", userId: newId(), displayName: "Alice" };
const token: Token = async () => (await fetch("/token")).text();
const options: Options = { ...who, token, cursor: null, WebSocket, clock, random: Math.random };
const chat = new FastChat(options);

const stop: () => void = chat.on("message", (message: Message) => {
  const position: number | undefined = message.seq;
  console.log(message.from, message.to, message.content, message.messageId, message.timestamp, position, message.own);
  if (!message.own) chat.markRead(message.messageId, message.from);
});
chat.on("state", ({ state, retryAt, closed, lost, resumed }: StateChange) => {
  console.log(state, retryAt, closed?.code, closed?.reason, lost?.code, lost?.reason, lost?.status, resumed);
});
chat.on("presence", (online: Presence) => console.log(online.get("id")?.toUpperCase(), online.scope satisfies Scope | null));
chat.on("chat", (opened: Chat) => console.log(opened.chatId, opened.userId, opened.displayName));
chat.on("chats", (changed: ChatEntry[]) => console.log(changed.map(({ userId, hidden }) => hidden ?? userId)));
chat.on("typing", ({ userId, isTyping }) => console.log(userId, isTyping satisfies boolean));
chat.on("receipt", (sent: Sent) => console.log(sent.status satisfies Status, sent.error?.code, sent.content === sent.original));
chat.on("error", (error: FastChatError) => console.log(error.code, error.message, error.details.field));
// @ts-expect-error there is no such event
chat.on("massage", () => {});
const names: (keyof Events)[] = ["state", "presence", "chat", "chats", "message", "typing", "receipt", "error"];

async function use(): Promise<void> {
  await chat.connect();
  await chat.connect(10_000);
  const opened: Chat = await chat.openChat("id", "Bobby");
  const sent: Sent = chat.send(opened.userId, "Hello!", { messageId: newId() });
  const same: Sent = await sent.accepted;
  await Promise.all([same.delivered, sent.read]);
  const page: History = await chat.history("id", { before: null, limit: 50 });
  await chat.history("id", { before: page.next });
  const first: ChatPage = await chat.listChats({ limit: 20 });
  await chat.listChats({ before: first.next });
  for await (const { displayName, last, unread, read, online, blocked, muted } of chat.allChats({ limit: 100 })) {
    const words: LastMessage | null = last;
    console.log(displayName, words?.content, words?.timestamp, unread + read, online || blocked || muted);
  }
  const muted: ChatEntry = await chat.mute("id");
  await Promise.all([chat.unmute(muted.userId), chat.hide("id"), chat.block("id"), chat.unblock("id")]);
  console.log(chat.chatList.length, page.messages.filter(({ read }) => read).length);
  // @ts-expect-error it is for reading
  chat.chatList.push(muted);
  chat.typing("id", true);
  chat.askPresence(["id"]);
  const state: State = chat.state;
  const cursor: string | null = chat.cursor;
  console.log(
    state,
    cursor,
    chat.presence.size,
    chat.presenceScope === chat.presence.scope,
    chat.chats.size,
    chat.capabilities.has("receipts"),
  );
  const closed: Closed | null = chat.closed;
  console.log(chat.retryAt, closed?.code, closed?.refused, names);
  chat.renew("another.token.there");
  chat.renew(() => "another.token.there");
  // @ts-expect-error a token is a string
  chat.renew(() => 7);
  // @ts-expect-error it is for reading
  chat.state = "online";
  // @ts-expect-error a user id is a string
  chat.send(7, "Hello!");
  stop();
  chat.close();
}
void use;
