// @ts-check
/** Says how the connection is, when it is not well: calmly, in words, and with what can be done about it. */

import { announce, byId } from "./dom.js";

/** Milliseconds for which a connection may be away without a word. */
const CALM = 900;
/** Failed attempts in a row after which a first connection may have another reason. */
const SUSPICIOUS = 3;
const REPLACED = 4001;

/** @typedef {"connecting" | "online" | "waiting" | "closed"} State */

export class ConnectionBar {
  /** @param {() => void} act called by the button: try at once, or begin anew */
  constructor(act) {
    this.bar = byId("connection");
    this.text = byId("connection-text");
    this.button = /** @type {HTMLButtonElement} */ (byId("connection-act"));
    this.button.addEventListener("click", act);
    /** @type {State} */
    this.state = "connecting";
    this.retryAt = 0;
    this.failures = 0;
    /** What the server itself has to say about why it can't be reached. */
    this.hint = "";
    this.wasOnline = false;
    this.isTold = false;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.since = Date.now();
  }

  /**
   * @param {State} state
   * @param {{retryAt?: number, closed?: {code: number, reason: string} | null}} more `retryAt` in milliseconds since 1970
   */
  show(state, more) {
    if (this.state === "online" && state !== "online") this.since = Date.now();
    this.state = state;
    this.retryAt = more.retryAt ?? 0;
    if (state === "waiting" && ++this.failures >= SUSPICIOUS && !this.wasOnline) void this.findOut();
    if (state === "online") {
      if (this.isTold) announce("Connected again.");
      this.wasOnline = true;
      this.isTold = false;
      this.failures = 0;
    }
    if (state === "closed" && more.closed) {
      const { code, reason } = more.closed;
      const why = reason ? `: ${reason}` : "";
      this.say(
        code === REPLACED
          ? "You are connected in more places than the server allows, so this one was disconnected."
          : `The server has ended the connection (${code}${why}).`,
        code === REPLACED ? "Use it here" : "Connect again",
      );
    }
    this.tick();
  }

  /** Once a second while there is something to count. */
  tick() {
    window.clearTimeout(this.timer);
    const isCalm = this.state === "connecting" || this.state === "waiting";
    if (!isCalm) {
      this.bar.hidden = this.state === "online";
      return;
    }
    if (Date.now() - this.since >= CALM) this.sayWaiting();
    this.timer = window.setTimeout(() => this.tick(), this.bar.hidden ? CALM : 1000 - (Date.now() % 1000) + 1);
  }

  sayWaiting() {
    const seconds = Math.ceil((this.retryAt - Date.now()) / 1000);
    const what = this.wasOnline ? "Reconnecting" : "Connecting";
    const place = navigator.onLine ? this.hint : "This device is offline. ";
    const when = this.state === "waiting" && seconds > 0 ? ` in ${seconds} s` : "";
    this.say(`${place}${what}${when}…`, "Try now");
    this.button.hidden = this.state !== "waiting";
  }

  /** @param {string} text @param {string} act */
  say(text, act) {
    if (!this.isTold) announce(this.state === "closed" || !this.wasOnline ? text : "The connection is lost. Reconnecting.");
    this.isTold = true;
    this.text.textContent = text;
    this.button.textContent = act;
    this.button.hidden = false;
    this.bar.hidden = false;
    this.bar.dataset.state = this.state;
  }

  /** A browser does not tell why a WebSocket was refused; whether pages are answered says something. */
  async findOut() {
    const answers = await fetch("/healthz", { cache: "no-store" }).then((answer) => answer.ok, () => false);
    this.hint = answers ? `The server is there, but refuses to connect ${location.origin}: it may have to be allowed. ` : "";
  }
}
