// @ts-check
/** The clock and the timers of a client, and its heartbeat. Times are in milliseconds. */

/** @typedef {import("./fastchat.d.ts").Clock} Clock */
/** @typedef {{id: unknown}} Timer */

export const SECOND = 1000;
/** What is left of a deadline for a client that stood still until the deadline was over. */
const LAST_LOOK = 1 * SECOND;

/** PING at even distances, and how long nothing may come after one. */
const PING_INTERVAL = 15 * SECOND;
const PONG_TIMEOUT = 5 * SECOND;

/** Milliseconds since 1970 as Date.now() had them when the program began; but this clock is never put back or forward. */
export const now = () => performance.timeOrigin + performance.now();

/** The clock of a client that was given no other. @type {Clock} */
const REAL = {
  now,
  setTimeout: (run, delay) => setTimeout(run, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** The timers that a client sets on one clock. */
export class Timers {
  #clock;

  /** @param {Clock} [clock] */
  constructor(clock = REAL) {
    this.#clock = clock;
  }

  /** The time of the clock. */
  now() {
    return this.#clock.now();
  }

  /**
   * Call `run` after so many milliseconds, unless `stop` comes before.
   * @param {number} delay
   * @param {() => void} run
   * @returns {Timer}
   */
  after(delay, run) {
    return { id: this.#clock.setTimeout(run, delay) };
  }

  /**
   * Call `run` when the server has not done something in so many milliseconds. A client that stood still, like a device that slept, reads
   * first what came meanwhile.
   * @param {number} delay
   * @param {() => void} run
   * @returns {Timer}
   */
  deadline(delay, run) {
    const timer = this.after(delay - LAST_LOOK, () => {
      timer.id = this.#clock.setTimeout(run, LAST_LOOK);
    });
    return timer;
  }

  /** Forget a timer. @param {Timer | null} [timer] */
  stop(timer) {
    this.#clock.clearTimeout(timer?.id);
  }
}

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
   * @param {Timers} timers
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
