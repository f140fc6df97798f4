// @ts-check
/**
 * Tokens that prove who the user is: none, a string, or a function that is asked for one before each HELLO. What a token is, is never shown.
 */

import { again } from "./backoff.js";
import { FastChatError } from "./models.js";
import { SECOND } from "./timers.js";

/** @typedef {import("./fastchat.d.ts").Token} Token */
/** @typedef {import("./timers.js").Timer} Timer */

/** The time that a function has to give a token. */
const TOKEN_TIMEOUT = 15 * SECOND;
const TOKEN = /^[!-~]{1,8192}$/;

/** Where the tokens of one client come from. */
export class Tokens {
  #source;
  #timers;
  #random;
  /** The question that is not answered yet, and its timer or that of the next one. @type {object | null} */
  #question = null;
  /** @type {Timer | null} */
  #timer = null;
  /** How often renewing has failed on this connection. */
  #failures = 0;

  /**
   * Throws TypeError for what can be no token.
   * @param {Token | null} source
   * @param {import("./timers.js").Timers} timers
   * @param {() => number} random
   */
  constructor(source, timers, random) {
    this.#source = source === null ? null : checked(source);
    this.#timers = timers;
    this.#random = random;
  }

  /** Whether HELLO says a token at all. */
  get isGiven() {
    return this.#source !== null;
  }

  /** Whether it is a function, which can give a newer one. */
  get isFunction() {
    return typeof this.#source === "function";
  }

  /** Whether a question is not answered yet. */
  get isAsking() {
    return this.#question !== null;
  }

  /** Go on with another token. Throws TypeError for what can be none. @param {Token} source */
  replace(source) {
    this.#source = checked(source);
  }

  /**
   * Get a token, null where there is none to say, and go on with it; but not when it is asked again or `stop` is called before.
   * @param {(token: string | null) => void} goOn
   * @param {(error: FastChatError) => void} fail
   */
  ask(goOn, fail) {
    this.#timers.stop(this.#timer);
    this.#question = null;
    const source = this.#source;
    if (typeof source !== "function") return goOn(source);
    const question = {};
    this.#question = question;
    const settle = (/** @type {string | null} */ token, /** @type {string} */ problem, /** @type {unknown} */ cause = undefined) => {
      if (this.#question !== question) return;
      this.#question = null;
      this.#timers.stop(this.#timer);
      if (problem) fail(new FastChatError("TOKEN", problem, {}, cause));
      else goOn(token);
    };
    this.#timer = this.#timers.deadline(TOKEN_TIMEOUT, () => settle(null, "the function `token` did not answer in time"));
    new Promise((resolve) => resolve(source())).then(
      (token) => settle(token, isToken(token) ? "" : "the function `token` did not give a token"),
      (cause) => settle(null, "the function `token` failed", cause),
    );
  }

  /**
   * Get a new token for the connection that is there, and go on with it. A failure is told, and it is asked again after a while.
   * @param {(token: string | null) => void} goOn
   * @param {(error: FastChatError) => void} tell
   */
  renew(goOn, tell) {
    const went = (/** @type {string | null} */ token) => {
      this.#failures = 0;
      goOn(token);
    };
    this.ask(went, (error) => {
      this.later(again(this.#random, this.#failures), () => this.renew(goOn, tell));
      this.#failures += 1;
      tell(error);
    });
  }

  /** Do something about the token after so many milliseconds. @param {number} delay @param {() => void} run */
  later(delay, run) {
    this.#timers.stop(this.#timer);
    this.#timer = this.#timers.after(delay, run);
  }

  /** The attempt or the connection is over: an answer is not wanted any more. */
  stop() {
    this.#timers.stop(this.#timer);
    this.#question = null;
    this.#failures = 0;
  }
}

/** @param {unknown} value */
const isToken = (value) => typeof value === "string" && TOKEN.test(value);

/** @param {Token} token @returns {Token} */
function checked(token) {
  if (typeof token !== "function" && !isToken(token))
    throw new TypeError("`token` must be 1 to 8192 visible ASCII characters, or a function");
  return token;
}
