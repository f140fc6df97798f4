// @ts-check
/** Where one writes: grows with the text, counts when it gets long, keeps a draft for each chat. */

import { byId } from "./dom.js";
import { CONTENT_MAX, counted, lengthOf } from "./text.js";

/** Characters that are left when the counter shows. */
const COUNTER_FROM = 100;
/** Pixels that the field may be high. */
const HEIGHT_MAX = 200;
/** Milliseconds after the last key when the draft is kept. */
const DRAFT_DELAY = 400;

/**
 * @typedef {object} ComposerEvents
 * @property {(userId: string, text: string) => void} send
 * @property {(userId: string, isTyping: boolean) => void} typing
 * @property {(userId: string, text: string) => void} draft
 */

export class Composer {
  /** @param {ComposerEvents} events */
  constructor(events) {
    this.events = events;
    this.form = /** @type {HTMLFormElement} */ (byId("composer"));
    this.field = /** @type {HTMLTextAreaElement} */ (byId("text"));
    this.button = /** @type {HTMLButtonElement} */ (byId("send"));
    this.counter = byId("counter");
    /** The other side of the chat that is open. @type {string | null} */
    this.userId = null;
    /** @type {number | undefined} */
    this.draftTimer = undefined;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    const line = byId("line");
    // The field keeps the focus, and with it the keyboard of a phone.
    line.addEventListener("pointerdown", (event) => event.preventDefault());
    line.addEventListener("click", () => this.breakLine());
    this.field.addEventListener("input", () => this.changed());
    // Enter sends on phones too, so that it means the same everywhere; they have no Shift+Enter, so there is a button for a second line.
    this.field.addEventListener("keydown", (event) => {
      // An Enter that ends the composition of a Japanese or Chinese word is not one that sends.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.send();
    });
  }

  /** Write to somebody else. @param {string} userId @param {string} name @param {string} draft */
  open(userId, name, draft) {
    this.keepDraft();
    this.userId = userId;
    this.field.value = draft;
    this.field.setAttribute("aria-label", `Message to ${name}`);
    this.field.placeholder = "Write a message";
    this.fit();
  }

  /** No chat is open any more. */
  close() {
    this.keepDraft();
    this.userId = null;
  }

  /** Save what has not been sent. */
  keepDraft() {
    window.clearTimeout(this.draftTimer);
    this.draftTimer = undefined;
    if (this.userId !== null) this.events.draft(this.userId, this.field.value);
  }

  /** Go to another line, where the cursor is. */
  breakLine() {
    const { field } = this;
    field.focus();
    field.setRangeText("\n", field.selectionStart, field.selectionEnd, "end");
    field.scrollTop = field.scrollHeight;
    this.changed();
  }

  changed() {
    if (this.userId === null) return;
    this.fit();
    this.events.typing(this.userId, this.field.value.trim() !== "");
    this.draftTimer ??= window.setTimeout(() => this.keepDraft(), DRAFT_DELAY);
  }

  send() {
    const text = this.field.value.trim();
    if (this.userId === null || !text || lengthOf(text) > CONTENT_MAX) {
      this.field.focus();
      return;
    }
    this.field.value = "";
    this.fit();
    this.keepDraft();
    this.events.send(this.userId, text);
    this.field.focus();
  }

  /** Height, counter and button, as the text is now. */
  fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, HEIGHT_MAX)}px`;
    this.field.style.overflowY = this.field.scrollHeight > HEIGHT_MAX ? "auto" : "hidden";
    const text = this.field.value.trim();
    const left = CONTENT_MAX - lengthOf(text);
    const isOver = left < 0;
    this.counter.hidden = left > COUNTER_FROM;
    this.counter.classList.toggle("over", isOver);
    if (isOver) this.counter.textContent = `${counted(-left, "character")} too many: at most ${CONTENT_MAX} can be sent`;
    else this.counter.textContent = this.counter.hidden ? "" : `${counted(left, "character")} left`;
    this.field.setAttribute("aria-invalid", String(isOver));
    // Not `disabled`: it stays reachable, so that its reason is heard.
    this.button.setAttribute("aria-disabled", String(isOver || !text));
    this.button.title = isOver ? "The message is too long" : "Send (Enter)";
  }
}
