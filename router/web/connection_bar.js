// @ts-check
/** Says how the connection is, when it is not well: calmly, in words, and with what can be done about it. */

import { announce, byId } from "./dom.js";
import { now } from "./fastchat.js";
import { hasLogin } from "./login.js";
import { tokenIn } from "./storage.js";

/** Milliseconds for which a connection may be away without a word. */
const CALM = 900;
/** Failed attempts in a row after which a first connection may have another reason. */
const SUSPICIOUS = 3;
const REPLACED = 4001;
/** Why a connection was ended that comes back by itself, as far as that is worth a word. A device that slept (4002) knows that it did. */
const RESTARTING = [1001, 1012];
const BUSY = 1013;

/** What is said of a token that the server does not take, by its word for why; where users log in, they know of no tokens. */
const REFUSED = new Map(
  hasLogin
    ? [
        ["missing", "Log in to chat here."],
        ["expired", "Your login has run out. What you write waits until you log in again."],
      ]
    : [
        ["missing", "This server wants a token that proves who you are."],
        ["expired", "Your token has run out. What you write waits for a new one."],
      ],
);
const [WHAT, RENEWAL] = hasLogin ? ["login", "Log in again to stay connected"] : ["token", "With a new one you stay connected"];
/** How the server says that a user id, which only a token can bring along, is none that it knows. */
const NO_USER = "VALIDATION: `user_id`";

/** @typedef {"connecting" | "online" | "waiting" | "closed"} State */

export class ConnectionBar {
  /**
   * @param {() => void} act called by the button: try at once, or begin anew
   * @param {(token: string) => void} use called with the token that was given
   */
  constructor(act, use) {
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
    this.lost = "";
    this.wasOnline = false;
    this.isTold = false;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.since = now();
    /** When the token of the connection ends, if it is about to; else 0. */
    this.endsAt = 0;
    /** Where a token is given, and what has the focus there. */
    this.proof = byId(hasLogin ? "login" : "proof");
    this.field = /** @type {HTMLInputElement} */ (byId("proof-token"));
    byId("proof").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = tokenIn(this.field.value);
      byId("proof-problem").textContent = token ? "" : "This is not a token: one has three parts, with dots between them.";
      this.field.setAttribute("aria-invalid", String(!token));
      if (!token) {
        this.field.focus();
        return;
      }
      this.field.value = "";
      use(token);
    });
  }

  /**
   * @param {State} state
   * @param {Partial<import("./client/fastchat.d.ts").StateChange>} more `retryAt` on the scale of `now`
   */
  show(state, more) {
    if (this.state === "online" && state !== "online") this.since = now();
    this.state = state;
    this.retryAt = more.retryAt ?? 0;
    this.endsAt = 0;
    this.proof.hidden = true;
    if (state === "waiting") this.lost = wordsFor(more.lost);
    if (state === "waiting" && ++this.failures >= SUSPICIOUS && !this.wasOnline) void this.findOut();
    if (state === "online") {
      if (this.isTold) announce("Connected again.");
      this.wasOnline = true;
      this.isTold = false;
      this.failures = 0;
    }
    if (state === "closed" && more.closed) {
      const { code, reason, refused } = more.closed;
      const why = reason ? `: ${reason}` : "";
      this.isTold = false;
      if (refused || reason.startsWith(NO_USER))
        this.ask(REFUSED.get(refused ?? "") ?? `The server does not take your ${WHAT}: ${reason.replace(/^\w+: /, "")}.`);
      else if (code === REPLACED)
        this.say("You are connected in more places than the server allows, so this one was disconnected.", "Use it here");
      else this.say(`The server has ended the connection (${code}${why}).`, "Connect again");
    }
    this.tick();
  }

  /** Once a second while there is something to count. */
  tick() {
    window.clearTimeout(this.timer);
    const isCalm = this.state === "connecting" || this.state === "waiting";
    if (this.endsAt) {
      this.ask(`Your ${WHAT} ends in ${Math.max(0, Math.ceil((this.endsAt - now()) / 1000))} s. ${RENEWAL}.`);
    } else if (!isCalm) {
      this.bar.hidden = this.state === "online";
      return;
    } else if (now() - this.since >= CALM) {
      this.sayWaiting();
    }
    this.timer = window.setTimeout(() => this.tick(), this.bar.hidden ? CALM : 1000 - (now() % 1000) + 1);
  }

  sayWaiting() {
    const seconds = Math.ceil((this.retryAt - now()) / 1000);
    const what = this.wasOnline ? "Reconnecting" : "Connecting";
    const place = navigator.onLine ? this.hint || this.lost : "This device is offline. ";
    const when = this.state === "waiting" && seconds > 0 ? ` in ${seconds} s` : "";
    this.say(`${place}${what}${when}…`, "Try now");
    this.button.hidden = this.state !== "waiting";
  }

  /** The token of the connection ends in so many seconds. @param {number} seconds */
  expires(seconds) {
    this.endsAt = now() + 1000 * seconds;
    this.isTold = false;
    this.tick();
  }

  /** Another token is there. */
  renewed() {
    this.endsAt = 0;
    this.since = now();
    this.isTold = false;
    this.bar.hidden = true;
    announce("The new token is used.");
  }

  /** Ask for a token. @param {string} text why */
  ask(text) {
    this.say(text, "");
    this.button.hidden = true;
    this.proof.hidden = false;
    if (document.activeElement === document.body && this.state === "closed") (hasLogin ? this.proof : this.field).focus();
  }

  /** @param {string} text @param {string} act */
  say(text, act) {
    const isLost = this.wasOnline && (this.state === "connecting" || this.state === "waiting");
    if (!this.isTold) announce(isLost ? "The connection is lost. Reconnecting." : text);
    this.isTold = true;
    this.text.textContent = text;
    this.button.textContent = act;
    this.button.hidden = false;
    this.bar.hidden = false;
    this.bar.dataset.state = this.state;
  }

  /** A browser does not tell why a WebSocket was refused; whether pages are answered says something. */
  async findOut() {
    const answers = await fetch("/healthz", { cache: "no-store" }).then(
      (answer) => answer.ok,
      () => false,
    );
    this.hint = answers ? `The server is there, but refuses to connect ${location.origin}: it may have to be allowed. ` : "";
  }
}

/** @param {import("./client/fastchat.d.ts").Closed | null} [lost] @returns {string} why a connection has ended, in words; empty if there is nothing to say */
function wordsFor(lost) {
  if (RESTARTING.includes(lost?.code ?? 0)) return "The server is restarting. ";
  return lost?.code === BUSY ? `The server has no room for this connection${lost.reason && `: ${lost.reason}`}. ` : "";
}
