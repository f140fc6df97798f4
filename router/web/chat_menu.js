// @ts-check
/** What one can do with a chat: mute it, hide it, block the other side; and what stands in place of the composer when that is blocked. */

import { announce, button, byId, make, nameOf } from "./dom.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./messenger.js").Messenger} Messenger */
/** @typedef {"hide" | "mute" | "unmute" | "block" | "unblock"} Change */

/** What is said behind the name when it is done. @type {Record<Change, string>} */
const DONE = {
  hide: "hidden until the next message",
  mute: "muted",
  unmute: "no longer muted",
  block: "blocked",
  unblock: "no longer blocked",
};
/** Why it was not done, by error code. */
const PROBLEMS = new Map([
  ["CHAT_NOT_OPENED", "There is no chat yet. Write something first."],
  ["RATE_LIMITED", "That was too often in a minute. Try again later."],
  ["MESSAGE_FAILED", "The server has not confirmed it. Try again."],
  ["CLOSED", "There is no connection."],
]);

/** The menu of the chat that is open. */
export class ChatMenu {
  /** @param {Messenger} messenger @param {() => void} left called when the chat is hidden */
  constructor(messenger, left) {
    this.messenger = messenger;
    this.left = left;
    /** @type {Chat | null} */
    this.chat = null;
    this.more = /** @type {HTMLButtonElement} */ (byId("more"));
    this.dialog = /** @type {HTMLDialogElement} */ (byId("chat-menu"));
    this.bar = byId("blocked");
    this.more.addEventListener("click", () => this.open());
    byId("chat-menu-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    byId("unblock").addEventListener("click", () => this.chat && void this.change("unblock", this.chat));
  }

  /** Show the chat that is open. @param {Chat | null} chat */
  render(chat) {
    if (chat !== this.chat && this.dialog.open) this.dialog.close();
    this.chat = chat;
    this.more.hidden = !chat || !this.messenger.chats.mode.isListed;
    const isBlocked = chat?.isBlocked ?? false;
    byId("composer").hidden = isBlocked;
    this.bar.hidden = !isBlocked;
    if (chat && isBlocked) {
      const text = byId("blocked-text");
      if (text.dataset.name !== chat.name) text.replaceChildren("You have blocked ", nameOf(chat.name), ". No messages pass between you.");
      text.dataset.name = chat.name;
    }
  }

  open() {
    const { chat } = this;
    if (!chat) return;
    byId("chat-menu-title").replaceChildren(nameOf(chat.name));
    byId("chat-menu-problem").textContent = "";
    /** @type {[Change, string, string][]} */
    const acts = [
      chat.isMuted
        ? ["unmute", "Unmute", "Its messages are announced again."]
        : ["mute", "Mute", "Its messages are counted, but not announced."],
      ["hide", "Hide", "It leaves the list until the next message."],
    ];
    if (chat.isBlocked) acts.push(["unblock", "Unblock", "You can write to each other again."]);
    else if (this.messenger.client.capabilities.has("block"))
      acts.push(["block", "Block", "No messages pass between you. Nobody is told."]);
    const rows = acts.map(([change, word, meaning]) => {
      const act = button(word, () => void this.change(change, chat));
      act.setAttribute("aria-describedby", `means-${change}`);
      const text = make("p", "small", meaning);
      text.id = `means-${change}`;
      return make("li", "", act, text);
    });
    byId("chat-menu-acts").replaceChildren(...rows);
    this.dialog.showModal();
  }

  /** @param {Change} change @param {Chat} chat */
  async change(change, chat) {
    const problem = byId("chat-menu-problem");
    problem.textContent = "";
    try {
      await this.messenger.client[change](chat.id);
    } catch (error) {
      const { code, message } = /** @type {import("./client/fastchat.d.ts").FastChatError} */ (error);
      const words = PROBLEMS.get(code) ?? `This did not work: ${message}.`;
      if (this.dialog.open) problem.textContent = words;
      else announce(words);
      return;
    }
    if (change === "unblock") {
      // Its messages could perhaps not be had before.
      chat.isLoaded = false;
      chat.problem = "";
    }
    this.messenger.events.changed();
    this.dialog.close();
    announce(`${chat.name} is ${DONE[change]}.`);
    if (change === "hide" && chat === this.chat) this.left();
  }
}
