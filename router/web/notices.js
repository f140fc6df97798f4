// @ts-check
/**
 * Tells of messages that nobody looks at: with a notification while the page is hidden, and with a tone. Both are off until somebody turns them
 * on; the first message that waits is the occasion to offer it.
 *
 * Several tabs of one person tell once: a tab that somebody looks at holds a lock, and of the hidden ones the first tells.
 */

import { announce, byId } from "./dom.js";
import { fragmentOf } from "./names.js";

/** @typedef {import("./chat.js").Chat} Chat */
/** @typedef {import("./chats.js").Chats} Chats */
/** @typedef {import("./thread.js").Item} Item */
/** @typedef {import("./storage.js").Person} Person */

/** Characters of a message in a notification at most. */
const BODY_MAX = 200;
/** Milliseconds for which no other tab tells of the same message, and for which there is no second tone. */
const ONCE = 2000;
const PAUSE = 1000;

const canNotify = "Notification" in window && "serviceWorker" in navigator && "locks" in navigator;

export class Notices {
  /** @param {Person} person */
  constructor(person) {
    this.person = person;
    this.name = `fastchat:${person.userId}`;
    this.bar = byId("offer");
    this.notify = /** @type {HTMLInputElement} */ (byId("notify"));
    this.sound = /** @type {HTMLInputElement} */ (byId("sound"));
    /** Chats with a notification of this tab -> whether they were seen to have something unread since. @type {Map<string, boolean>} */
    this.told = new Map();
    this.lastTone = -PAUSE;
    /** Ends the lock of a page that is looked at. */
    this.release = () => {};
    byId("offer-yes").addEventListener("click", () => void this.turnOn());
    byId("offer-no").addEventListener("click", () => this.want({ notify: false }));
    this.notify.addEventListener("change", () => (this.notify.checked ? void this.turnOn() : this.want({ notify: false })));
    this.sound.addEventListener("change", () => {
      this.want({ sound: this.sound.checked });
      if (this.sound.checked) playTone();
    });
    byId("me").addEventListener("click", () => this.show());
    document.addEventListener("visibilitychange", () => this.watch());
    this.watch();
  }

  /** What the person has turned on; nothing of what was never asked. @returns {{notify?: boolean, sound?: boolean}} */
  get wanted() {
    return this.person.read("notices") ?? {};
  }

  /** @param {{notify?: boolean, sound?: boolean}} change */
  want(change) {
    this.person.write("notices", { ...this.wanted, ...change });
    this.bar.hidden = true;
    this.show();
  }

  /** Browsers ask only when somebody has clicked. */
  async turnOn() {
    const isAllowed = (await Notification.requestPermission()) === "granted";
    this.want({ notify: isAllowed });
    announce(isAllowed ? "Notifications are on." : byId("notify-note").textContent || "Notifications are off.");
  }

  /** Bring the switches up to date. */
  show() {
    const { notify = false, sound = false } = this.wanted;
    const isRefused = canNotify && Notification.permission === "denied";
    this.notify.checked = notify && canNotify && Notification.permission === "granted";
    this.notify.disabled = !canNotify || isRefused;
    this.sound.checked = sound;
    let note = "";
    if (!canNotify) note = "This browser has no notifications for this page.";
    else if (isRefused) note = "The browser blocks notifications for this page. Its settings can allow them.";
    byId("notify-note").textContent = note;
  }

  /** Somebody has written, and the chat is not the one that is looked at. @param {Chat} chat @param {Item} item @param {string} title */
  async tell(chat, item, title) {
    const { notify, sound } = this.wanted;
    if (notify === undefined && canNotify && Notification.permission !== "denied" && this.bar.hidden) {
      this.bar.hidden = false;
      announce(byId("offer-text").textContent ?? "");
    }
    if (!canNotify && sound) this.play();
    if (!canNotify || !(notify || sound)) return;
    const isHidden = document.visibilityState !== "visible";
    const { held = [] } = await navigator.locks.query();
    if (isHidden && held.some(({ name }) => name === this.name)) return;
    await navigator.locks.request(`${this.name}:${item.key}`, { ifAvailable: true }, async (lock) => {
      if (!lock) return;
      if (sound) this.play();
      if (isHidden && notify) await this.display(chat, item, title);
      await new Promise((resolve) => setTimeout(resolve, ONCE));
    });
  }

  /** @param {Chat} chat @param {Item} item @param {string} title */
  async display(chat, item, title) {
    const registration = await navigator.serviceWorker.getRegistration();
    if (!registration?.active || Notification.permission !== "granted") return;
    this.told.set(chat.id, false);
    /** `renotify`: another message of the chat is told again, though there is one notification for a chat. */
    const options = {
      body: item.content.slice(0, BODY_MAX),
      tag: this.tagOf(chat.id),
      renotify: true,
      silent: true, // the tone is a switch of its own
      icon: "/icon-192.png",
      data: { page: location.pathname + location.search, fragment: fragmentOf(chat.id) },
    };
    await registration.showNotification(title, options);
  }

  /** @param {string} id of the other side; empty for what all tags begin with */
  tagOf(id) {
    return `${this.person.userId} ${id}`;
  }

  /** Take away the notifications of what was read, on whichever device. @param {Chats} chats */
  tidy(chats) {
    for (const [id, wasUnread] of this.told) {
      const unread = chats.byId.get(id)?.unread ?? 0;
      if (unread) this.told.set(id, true);
      else if (wasUnread) void this.clear((tag) => tag === this.tagOf(id));
      if (!unread && wasUnread) this.told.delete(id);
    }
  }

  /** @param {(tag: string) => boolean} isMeant whether a notification with this tag is to go */
  async clear(isMeant) {
    const registration = await navigator.serviceWorker.getRegistration();
    for (const each of (await registration?.getNotifications()) ?? []) if (isMeant(each.tag)) each.close();
  }

  /** Say to the other tabs whether this one is looked at. A lock ends with its tab, however that ends. */
  watch() {
    if (!canNotify) return;
    this.release();
    if (document.visibilityState !== "visible") return;
    void this.clear((tag) => tag.startsWith(this.tagOf("")));
    const isOver = new Promise((resolve) => {
      this.release = () => resolve(undefined);
    });
    void navigator.locks.request(this.name, { mode: "shared" }, () => isOver);
  }

  /** One tone for messages that come at once. */
  play() {
    if (performance.now() - this.lastTone < PAUSE) return;
    this.lastTone = performance.now();
    playTone();
  }
}

/** Two short notes. Browsers play nothing on a page before it was used. */
function playTone() {
  if (navigator.userActivation?.hasBeenActive === false) return;
  const context = new AudioContext();
  const volume = context.createGain();
  const tone = context.createOscillator();
  const at = context.currentTime;
  tone.frequency.setValueAtTime(660, at);
  tone.frequency.setValueAtTime(880, at + 0.1);
  volume.gain.setValueAtTime(0.15, at);
  volume.gain.exponentialRampToValueAtTime(0.001, at + 0.4);
  tone.connect(volume).connect(context.destination);
  tone.start(at);
  tone.stop(at + 0.4);
  tone.onended = () => void context.close();
}
