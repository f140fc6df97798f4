// @ts-check
/**
 * MSG_ACK and READ, said again on the next connection when the server may not have read them on this one.
 *
 * Nothing answers them. But the server reads in order, so a PONG confirms whatever was said before its PING.
 */

/** Acknowledgements that wait for a PONG. */
const REMEMBERED_MAX = 10_000;

/** What was said and is not confirmed. */
export class Repeater {
  #link;
  /** Each with the number of PINGs before it. @type {{type: string, data: import("./wire.js").Data, after: number}[]} */
  #unconfirmed = [];
  /** PINGs sent and PONGs received on this connection. */
  #pings = 0;
  #pongs = 0;

  /** @param {import("./wire.js").Link} link */
  constructor(link) {
    this.#link = link;
  }

  /** Whether no PING waits for its PONG. */
  get isAnswered() {
    return this.#pings === this.#pongs;
  }

  /**
   * Say something that is not answered, and say it again after a reconnection unless a PONG has shown that it came.
   * @param {string} type
   * @param {import("./wire.js").Data} data
   */
  say(type, data) {
    const link = this.#link;
    if (type === "READ" && link.isOnline && !link.capabilities.has("receipts")) return;
    this.#unconfirmed.push({ type, data, after: this.#pings });
    if (this.#unconfirmed.length > REMEMBERED_MAX) this.#unconfirmed.shift();
    if (link.isOnline) link.write(type, data);
  }

  /** There is a new connection: say again what the server may not have. */
  begin() {
    for (const { type, data } of this.#unconfirmed.splice(0)) this.say(type, data);
  }

  /** The connection is lost. */
  lost() {
    this.#pings = this.#pongs = 0;
  }

  /** A PING goes out. */
  pinged() {
    this.#pings += 1;
  }

  /** A PONG came: what was said before its PING is confirmed. */
  ponged() {
    this.#pongs += 1;
    this.#unconfirmed = this.#unconfirmed.filter(({ after }) => after >= this.#pongs);
  }
}
