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
    const isCumulative = type === "READ" && link.isOnline && link.capabilities.has("chats");
    if (type === "READ" && link.isOnline && !isCumulative && !link.capabilities.has("receipts")) return;
    // It covers the earlier ones.
    if (isCumulative) this.#unconfirmed = this.#unconfirmed.filter((said) => said.type !== "READ" || said.data.from !== data.from);
    this.keep(type, data);
    if (link.isOnline) link.write(type, data);
  }

  /** Say something on the next connection. @param {string} type @param {import("./wire.js").Data} data */
  keep(type, data) {
    this.#unconfirmed.push({ type, data, after: this.#pings });
    if (this.#unconfirmed.length > REMEMBERED_MAX) this.#unconfirmed.shift();
  }

  /** The READs that are not confirmed. @returns {any[]} */
  reads() {
    return this.#unconfirmed.filter(({ type }) => type === "READ").map(({ data }) => data);
  }

  /** There is a new connection: say again what the server may not have, but for READs that are cumulative, which are returned. @returns {any[]} */
  begin() {
    const isCumulative = this.#link.capabilities.has("chats");
    const reads = isCumulative ? this.reads() : [];
    for (const { type, data } of this.#unconfirmed.splice(0)) if (type !== "READ" || !isCumulative) this.say(type, data);
    return reads;
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
