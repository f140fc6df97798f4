// @ts-check
/** PING at even distances, and how it is noticed that nothing comes any more. */

import { SECOND } from "./timers.js";

/** @typedef {import("./timers.js").Timer} Timer */

const PING_INTERVAL = 15 * SECOND;
const PONG_TIMEOUT = 5 * SECOND;

/** The heartbeat of the connections of one client. */
export class Heartbeat {
  #timers;
  #ping;
  #silent;
  /** Frames received. */
  #heard = 0;
  /** @type {Timer | null} */
  #pingTimer = null;
  /** @type {Timer | null} */
  #pongTimer = null;

  /**
   * @param {import("./timers.js").Timers} timers
   * @param {() => void} ping says PING
   * @param {(problem: string) => void} silent is called when nothing has come after a PING
   */
  constructor(timers, ping, silent) {
    this.#timers = timers;
    this.#ping = ping;
    this.#silent = silent;
  }

  /** The client is online. */
  begin() {
    this.#pingTimer = this.#timers.after(PING_INTERVAL, () => this.beat());
  }

  /** Anything came. */
  heard() {
    this.#heard += 1;
  }

  /** Say PING now; the next one follows after the interval. */
  beat() {
    const heard = this.#heard;
    this.#ping();
    this.stop();
    this.#pongTimer = this.#timers.deadline(PONG_TIMEOUT, () => {
      if (this.#heard === heard) this.#silent(`no answer to PING within ${PONG_TIMEOUT / SECOND} s`);
    });
    this.begin();
  }

  /** The connection is over. */
  stop() {
    this.#timers.stop(this.#pingTimer);
    this.#timers.stop(this.#pongTimer);
  }
}
