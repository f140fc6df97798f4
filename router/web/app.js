// @ts-check
/** The page: asks who one is, then brings together the messenger, the list of people, the conversation and the connection bar. */

import { showBadge } from "./badge.js";
import { ChatMenu } from "./chat_menu.js";
import { Composer } from "./composer.js";
import { ConnectionBar } from "./connection_bar.js";
import { Conversation } from "./conversation.js";
import { announce, avatar, button, byId, nameOf } from "./dom.js";
import { askName, setUpIdentity } from "./identity.js";
import { Messenger } from "./messenger.js";
import { fragmentOf, nameIn, userIn } from "./names.js";
import { Notices } from "./notices.js";
import { PeopleList } from "./people.js";
import { Person, takeToken } from "./storage.js";

/** @typedef {import("./chat.js").Chat} Chat */

const person = new Person(new URLSearchParams(location.search), takeToken());
// Who is still asked for a name may open a link with a token in this tab.
addEventListener("hashchange", () => byId("app").hidden && location.hash.startsWith("#token=") && location.reload());
// When all is here that the page needs first. Where the browser has no service workers, the page does not open without a connection.
addEventListener("load", () => void navigator.serviceWorker?.register("/sw.js", { updateViaCache: "none" }).catch(() => {}));
if (!person.name) person.introduce(await askName(person.token !== ""));
byId("app").hidden = false;
const notices = new Notices(person);
navigator.serviceWorker?.addEventListener("message", ({ data }) => {
  if (userIn(data?.open ?? "")) location.hash = data.open;
});

/** The chat that is open. @type {Chat | null} */
let current = null;
let isScheduled = false;

const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
const messenger = new Messenger(person, url, {
  changed: schedule,
  state: (state) => connection.show(state.state, state),
  expires: (seconds) => connection.expires(seconds),
  news(chat, item) {
    const isLookedAt = chat === current && document.visibilityState === "visible";
    announce(isLookedAt ? `${chat.name}: ${item.content}` : `New message from ${chat.name}`);
    if (isLookedAt) return;
    const tag = messenger.chats.tags.get(chat.id);
    void notices.tell(chat, item, tag ? `${chat.name} (${tag})` : chat.name);
  },
  corrected: (item) => announce(`${item.note} ${item.content}`),
});
const connection = new ConnectionBar(() => messenger.tryNow(), useToken);
const people = new PeopleList(schedule, (chat) => void menu.change("unblock", chat));
const menu = new ChatMenu(messenger, () => {
  location.hash = "";
});
const conversation = new Conversation({
  older: (chat) => messenger.pages.loadOlder(chat),
  seen: (chat, item) => messenger.seen(chat, item),
  retry: (chat, item) => messenger.retry(chat, item),
  remove(chat, item) {
    messenger.remove(chat, item);
    schedule();
    composer.field.focus();
  },
});
const composer = new Composer({
  send(userId, text) {
    messenger.send(messenger.chats.with(userId), text);
    conversation.newKey = null;
    conversation.toEnd();
  },
  typing: (userId, isTyping) => messenger.client.typing(userId, isTyping),
  draft: (userId, text) => person.saveDraft(userId, text),
});

const showName = setUpIdentity(person, () => {
  person.tabs?.postMessage({ name: person.name });
  messenger.restart();
});

/** @param {string} token from the field, or from a link that was opened in this tab */
function useToken(token) {
  if (!person.prove(token)) {
    location.reload(); // as its user
    return;
  }
  connection.renewed();
  messenger.renew();
  (current ? composer.field : byId("me")).focus();
}

// -- Drawing --

/** Draw soon; once, however much changes until then. */
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  // A hidden page draws no frames, but its title counts.
  if (document.visibilityState === "visible") requestAnimationFrame(draw);
  else setTimeout(draw, 200);
}

function draw() {
  isScheduled = false;
  const { chats, isOnline } = messenger;
  chats.tell();
  notices.tidy(chats);
  showBadge(chats.unread);
  people.render(chats, current?.id ?? null, isOnline);
  menu.render(current);
  showName();
  const own = byId("me-state");
  own.textContent = isOnline ? "Online" : messenger.client.state === "closed" ? "Disconnected" : "Connecting…";
  own.className = isOnline ? "online" : "";
  document.title = `${chats.unread ? `(${chats.unread}) ` : ""}${current ? `${current.name} · ` : ""}FastChat`;
  if (current) drawChat(current);
}

/** @param {Chat} chat */
function drawChat(chat) {
  const isHere = messenger.isOnline && messenger.chats.isOnline(chat);
  const heading = byId("peer-name");
  if (heading.textContent !== chat.name) {
    heading.replaceChildren(nameOf(chat.name));
    byId("peer-avatar").replaceChildren(avatar(chat.id, chat.name));
  }
  byId("peer-tag").textContent = messenger.chats.tags.get(chat.id) ?? "";
  const state = byId("peer-state");
  state.textContent = chat.isTyping ? "typing…" : isHere ? "Online" : messenger.isOnline && messenger.chats.isKnown(chat) ? "Offline" : "";
  state.className = chat.isTyping || isHere ? "online" : "";
  conversation.render();
  conversation.setTop(topOf(chat), chat.problem ? [button("Try again", () => tryAgain(chat), "inline")] : []);
  if (chat.problem || !messenger.isOnline) return;
  if (chat.isLoaded) conversation.askForOlder();
  else void messenger.pages.load(chat);
}

/** @param {Chat} chat @returns {string} what stands above the oldest message */
function topOf(chat) {
  if (chat.problem) return chat.problem;
  if (chat.thread.next === null && !chat.isLoading) {
    if (chat.isBlocked && !chat.thread.items.length) return "";
    return chat.thread.items.length ? "This is where your chat begins." : `Say hello to ${chat.name}.`;
  }
  return chat.isLoading && messenger.isOnline ? "Loading messages…" : "";
}

/** @param {Chat} chat */
function tryAgain(chat) {
  chat.problem = "";
  schedule();
}

// -- Going from chat to chat: the fragment of the URL says which one is open --

function navigate() {
  const token = takeToken();
  if (token) useToken(token);
  const id = userIn(location.hash);
  const name = nameIn(location.hash);
  // The name was for the way here.
  if (name) history.replaceState(null, "", location.pathname + location.search + fragmentOf(id));
  const left = current?.id ?? null;
  const isChat = id !== "" && id !== person.userId;
  document.body.dataset.view = isChat ? "chat" : "list";
  byId("chat").hidden = !isChat;
  byId("nothing").hidden = isChat;
  if (!isChat) {
    current = null;
    composer.close();
    conversation.hide();
    draw();
    if (left) people.focus(left);
    return;
  }
  if (id === left) return;
  current = messenger.chats.with(id);
  current.linkName ||= name;
  current.problem = "";
  conversation.show(current);
  draw();
  composer.open(id, current.name, person.loadDraft(id));
  // On a touch screen a field that gets the focus brings the keyboard along.
  if (matchMedia("(pointer: coarse)").matches) byId("peer-name").focus();
  else composer.field.focus();
}

addEventListener("hashchange", navigate);
addEventListener("pagehide", () => composer.keepDraft());
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !current || document.querySelector("dialog[open]") || event.isComposing) return;
  location.hash = "";
});
document.addEventListener("visibilitychange", () => {
  // Who comes back to the page does not want to wait for the next try, which a browser puts off while nobody looks.
  if (document.visibilityState === "visible" && messenger.client.state === "waiting") messenger.tryNow();
  schedule();
});
// Days change, and what is held by a limit counts down.
setInterval(schedule, 1000);

messenger.start();
navigate();
