// @ts-check
/** The clock and the timers of a client. Times are in milliseconds. */

/** @typedef {import("./fastchat.d.ts").Clock} Clock */
/** @typedef {{id: unknown}} Timer */

export const SECOND = 1000;
/** What is left of a deadline for a client that stood still until the deadline was over. */
const LAST_LOOK = 1 * SECOND;

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
