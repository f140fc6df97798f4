// @ts-check
/**
 * Listeners, and the order in which they are called.
 *
 * Messages are shown strictly one after the other: the next one when the listeners of the one before are done, promises included. While
 * nobody listens to messages they wait. All other events are told at once. A listener that fails stops no other listener, neither the program
 * nor the client.
 */

import { FastChatError } from "./models.js";

/** @typedef {import("./inbox.js").Item} Item */
/** @typedef {(value: any) => unknown} Listener */

/** The listeners of one client. */
export class Events {
  #shown;
  /** Event name -> listeners. @type {Map<string, Set<Listener>>} */
  #listeners = new Map();
  /** Messages that are still to be shown; and whether listeners have one now. @type {Item[]} */
  #coming = [];
  #isShowing = false;
  #hasEnded = false;

  /** @param {(item: Item, isWell: boolean) => void} shown is called when the listeners of a message are done, `isWell` if none has failed */
  constructor(shown) {
    this.#shown = shown;
  }

  /** Call `listener` at every event of this name; the function that is returned ends that. @param {string} event @param {Listener} listener */
  on(event, listener) {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    this.#showNext();
    return () => void listeners.delete(listener);
  }

  /** Show a message, behind those that wait. @param {Item} item */
  show(item) {
    this.#coming.push(item);
    this.#showNext();
  }

  /** Show no more messages. */
  end() {
    this.#hasEnded = true;
  }

  /**
   * Call the listeners. Whether none has failed: at once or, where one gave a promise, as a promise.
   * @param {string} event
   * @param {unknown} value
   * @returns {boolean | Promise<boolean>}
   */
  emit(event, value) {
    const listeners = [...(this.#listeners.get(event) ?? [])];
    if (event === "error" && listeners.length === 0) console.warn("FastChat:", value);
    const results = listeners.map((listener) => this.#call(event, listener, value));
    if (results.every((result) => typeof result === "boolean")) return !results.includes(false);
    return Promise.all(results).then((all) => !all.includes(false));
  }

  #showNext() {
    while (this.#coming.length > 0 && !this.#isShowing && this.#listeners.get("message")?.size && !this.#hasEnded) {
      const item = /** @type {Item} */ (this.#coming.shift());
      this.#isShowing = true;
      const done = (/** @type {boolean} */ isWell) => {
        this.#isShowing = false;
        this.#shown(item, isWell);
      };
      const told = this.emit("message", item.message);
      if (typeof told === "boolean") done(told);
      else told.then(done).then(() => this.#showNext());
    }
  }

  /**
   * Call one listener. Whether it has not failed.
   * @param {string} event
   * @param {Listener} listener
   * @param {unknown} value
   * @returns {boolean | Promise<boolean>}
   */
  #call(event, listener, value) {
    const failed = (/** @type {unknown} */ cause) => {
      const error = new FastChatError("LISTENER", `a listener of \`${event}\` failed: ${wordsOf(cause)}`, {}, cause);
      if (event === "error") console.error("FastChat:", error);
      else this.emit("error", error);
      return false;
    };
    try {
      const result = /** @type {any} */ (listener(value));
      return typeof result?.then === "function" ? Promise.resolve(result).then(() => true, failed) : true;
    } catch (cause) {
      return failed(cause);
    }
  }
}

/** Anything can be thrown, even what can't be a string. @param {unknown} cause */
function wordsOf(cause) {
  try {
    return String(cause);
  } catch {
    return "it threw no error";
  }
}
