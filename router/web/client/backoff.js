// @ts-check
/** When to connect again: exponential back-off with full jitter, so that clients that lost one server come back spread out. */

import { SECOND } from "./timers.js";
import { OVERLOADED, RESTARTING, SLEPT } from "./wire.js";

const BACKOFF_FIRST = 0.5 * SECOND;
const BACKOFF_MAX = 30 * SECOND;
/** A connection that was online for so long counts as good: the next loss is the first again. */
const STABLE_AFTER = 10 * SECOND;
/** The time over which clients spread, by close code: those of a server that restarts, and devices that slept. @type {Record<number, number>} */
const SPREAD = { 1001: 3 * SECOND, 1012: 3 * SECOND, 4002: 1 * SECOND };
/** How the close reason of 1012 ends when the server says when to come back. */
const SUGGESTION = /; reconnect in (\d{1,9}(?:\.\d{1,9})?) s$/;
/** An overloaded server is left alone for so long at least; then as after so many failures. */
const OVERLOAD_PAUSE = 1 * SECOND;
const OVERLOAD_TRIES = 3;
/** A request that has failed is not sent again before this. */
const AGAIN_AFTER = 0.5 * SECOND;

/** The waits between the connections of one client. */
export class Backoff {
  #random;
  /** Attempts since the last connection that was good, and how the last one ended. */
  #tries = 0;
  #lastCode = 0;

  /** @param {() => number} random */
  constructor(random) {
    this.#random = random;
  }

  /**
   * The wait after a connection ended with `code` and `reason`, having been online for so many milliseconds.
   * @param {number} code
   * @param {string} reason
   * @param {number} onlineFor
   */
  next(code, reason, onlineFor) {
    if (onlineFor >= STABLE_AFTER) this.#tries = 0;
    // A device that slept has not failed; only one that is told so again at once may be in a loop.
    if (code === SLEPT && this.#lastCode !== SLEPT) this.#tries = 0;
    this.#lastCode = code;
    if (code === OVERLOADED) this.#tries = Math.max(this.#tries, OVERLOAD_TRIES);
    const suggested = code === RESTARTING ? SUGGESTION.exec(reason) : null;
    // A server that says when has spread its clients already. The back-off still holds for one that is sent from server to server.
    const least = suggested ? Math.min(BACKOFF_MAX, Number(suggested[1]) * SECOND) : 0;
    const delay = Math.max(least, jitter(this.#random, this.#tries, suggested ? 0 : SPREAD[code]));
    this.#tries += 1;
    return code === OVERLOADED ? delay + OVERLOAD_PAUSE : delay;
  }
}

/**
 * The wait before a request is sent again that has failed and was repeated so often.
 * @param {() => number} random
 * @param {number} tries
 */
export const again = (random, tries) => AGAIN_AFTER + jitter(random, tries);

/** @param {() => number} random @param {number} tries @param {number} [least] */
function jitter(random, tries, least = 0) {
  return random() * Math.max(least, Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** tries));
}
