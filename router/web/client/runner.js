// @ts-check
/** What feeds the machine and does as it asks: the WebSocket, the console, and the browser's word that the network is back. */

/** @typedef {import("./machine.js").Machine} Machine */
/** @typedef {{reason: string, status?: number}} Fault */
/**
 * What the machine asks for.
 * @typedef {object} Outside
 * @property {() => string | null} open begins to connect; then `opened` or `lost` must be called. What is wrong, if that can't be done
 * @property {(text: string) => void} write sends text on the connection, if there is one
 * @property {() => void} close ends the connection in good order; nothing of it is reported any more
 * @property {() => void} abort ends the connection, or the attempt, at once; nothing of it is reported any more
 * @property {(problem: string) => void} report says why there is no connection: once in each outage
 * @property {() => void} ended is called when the client has ended for good
 */

/** States of a WebSocket on which nothing more can be sent. */
const CLOSING = 2;
const CLOSED = 3;

/**
 * Runs one machine, which it has made.
 * @implements {Outside}
 */
export class Runner {
  #url;
  #WebSocket;
  /** @type {any} */
  #socket = null;
  #hasStarted = false;

  /** @param {string} url @param {new (url: string) => any} WebSocket @param {(outside: Outside) => Machine} make the machine */
  constructor(url, WebSocket, make) {
    this.#url = url;
    this.#WebSocket = WebSocket;
    this.machine = make(this);
  }

  /** Let the machine begin, unless it has begun or ended. */
  start() {
    if (this.#hasStarted || this.machine.closed) return;
    this.#hasStarted = true;
    globalThis.addEventListener?.("online", this.#networkIsBack);
    this.machine.start();
  }

  // -- What the machine asks for --

  /** Begin to connect. What is wrong with the URL, if that can't be done. */
  open() {
    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
    } catch (error) {
      return `this URL can't be opened: ${error}`;
    }
    const { machine } = this;
    this.#socket = socket;
    /** @type {Fault} */
    let fault = { reason: "the connection can't be made" };
    socket.onopen = () => {
      fault = { reason: "the connection broke" };
      machine.opened();
    };
    socket.onmessage = (/** @type {any} */ { data }) => machine.received(data);
    // `onclose` follows.
    socket.onerror = (/** @type {any} */ event) => {
      fault = faultIn(event) ?? fault;
    };
    socket.onclose = (/** @type {any} */ { code, reason }) =>
      machine.lost(code, reason || (code === 1006 ? fault.reason : ""), fault.status);
    return null;
  }

  /** Send text on the connection, unless it is just closing: a browser complains then, and `onclose` follows. @param {string} text */
  write(text) {
    const socket = this.#socket;
    if (socket && socket.readyState !== CLOSING && socket.readyState !== CLOSED) socket.send(text);
  }

  /** End the connection in good order, or give up connecting. */
  close() {
    this.#forget()?.close(1000);
  }

  /** End the connection at once, or give up connecting. */
  abort() {
    const socket = this.#forget();
    // The package ws would wait long for a dead server.
    if (socket?.terminate) socket.terminate();
    else socket?.close(1000);
  }

  /** Say that there is no connection. @param {string} problem */
  report(problem) {
    console.warn(`FastChat: can't connect to ${addressOf(this.#url)}: ${problem}`);
  }

  /** The client has ended for good. */
  ended() {
    globalThis.removeEventListener?.("online", this.#networkIsBack);
  }

  // -- Inside --

  #networkIsBack = () => this.machine.networkIsBack();

  /** The connection is no concern of the machine's any more. */
  #forget() {
    const socket = this.#socket;
    this.#socket = null;
    // The package ws wants somebody to listen to its errors.
    if (socket) socket.onopen = socket.onmessage = socket.onclose = socket.onerror = () => {};
    return socket;
  }
}

/** A URL without what may be secret: user, password, and query. @param {string} url */
const addressOf = (url) =>
  String(url)
    .split("?")[0]
    .replace(/\/\/[^/@]*@/, "//");

/** What an `error` event of a socket tells. In Node that is why; browsers keep it to themselves. @param {any} event @returns {Fault | null} */
function faultIn({ message, error }) {
  const said = message || error?.message || error?.errors?.map((/** @type {any} */ each) => each.message).join("; ") || error?.code;
  const status = /^Unexpected server response: (\d+)$/.exec(said)?.[1];
  if (status) return { reason: `the server answers HTTP ${status}, and no WebSocket`, status: Number(status) };
  return said ? { reason: String(said) } : null;
}
