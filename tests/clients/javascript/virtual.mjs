// A clock that stands still unless it is moved, and a WebSocket in memory.

/** Let all promises and callbacks run that can run without time passing. */
export async function settle() {
  // Each await of a client takes a turn of the microtask queue; a macrotask waits until that queue is empty.
  await new Promise((resolve) => setImmediate(resolve));
}

export class VirtualClock {
  #now = 1_000_000_000;
  #timers = new Map();
  #next = 1;

  now = () => this.#now;

  setTimeout = (run, delay) => {
    const timer = this.#next++;
    this.#timers.set(timer, { run, at: this.#now + Math.max(0, delay), timer });
    return timer;
  };

  clearTimeout = (timer) => {
    this.#timers.delete(timer);
  };

  /** Let time pass, in milliseconds: timers fire in order, each followed by all that it causes. */
  async advance(duration) {
    const until = this.#now + duration;
    await settle();
    for (;;) {
      let first = null;
      for (const timer of this.#timers.values()) if (timer.at <= until && (!first || timer.at < first.at)) first = timer;
      if (!first) break;
      this.#now = Math.max(this.#now, first.at);
      this.#timers.delete(first.timer);
      first.run();
      await settle();
    }
    this.#now = until;
  }

  /** So much time passes in which nothing of this program runs; then all timers that are due fire. */
  async stall(duration) {
    this.#now += duration;
    await this.advance(0);
  }

  /** How many timers wait. */
  get waiting() {
    return this.#timers.size;
  }
}

/** All connection attempts of a client, the newest last; `WebSocket` is what the client makes them with. */
export class Network {
  links = [];

  constructor() {
    const { links } = this;
    this.WebSocket = class extends Link {
      constructor(url) {
        super(url);
        links.push(this);
      }
    };
  }
}

/** One attempt, and the connection that it becomes. The upper half is the client's, as browsers have it; the lower is the server's. */
class Link {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  frames = [];
  closedByClient = null;
  silent = false;
  pongs = true;
  /** What comes while the client stands still. */
  #held = null;
  #state = "connecting";

  constructor(url) {
    this.url = url;
  }

  send(text) {
    if (this.#state === "connecting") throw new Error("InvalidStateError: the connection is not open yet");
    if (typeof text !== "string") throw new Error("the client sent something that is no text");
    if (this.#state !== "open" || this.silent) return; // as browsers do
    const { type, data } = JSON.parse(text);
    this.frames.push({ type, data, taken: false });
    if (type === "PING" && this.pongs) this.tell(JSON.stringify({ type: "PONG", data: { timestamp: "2024-01-01T12:00:00.000Z" } }));
  }

  close(code = 1000, reason = "") {
    if (this.#state === "closed" || this.closedByClient !== null) return;
    this.closedByClient = code;
    const wasOpen = this.#state === "open";
    this.#state = "closing";
    if (!this.silent) this.#end(wasOpen ? code : 1006, reason);
  }

  get waiting() {
    return this.#state === "connecting";
  }

  get open() {
    return this.#state === "open";
  }

  accept() {
    this.#state = "open";
    this.onopen?.({});
  }

  /** With a status of HTTP, as the package ws tells it; without one, as browsers tell everything. */
  refuse(status) {
    this.onerror?.(status ? { message: `Unexpected server response: ${status}` } : {});
    this.#end(1006, "");
  }

  /** Send to the client. */
  tell(text) {
    this.#bring(() => {
      if (!this.silent && this.#state === "open") this.onmessage?.({ data: text });
    });
  }

  /** The server ends the connection. What it has sent before comes first. */
  end(code, reason = "") {
    if (!this.silent) this.#end(code, reason);
  }

  get isHeld() {
    return this.#held !== null;
  }

  hold() {
    this.#held = [];
  }

  release() {
    const held = this.#held;
    this.#held = null;
    for (const come of held) this.#bring(come);
  }

  #bring(come) {
    if (this.#held) this.#held.push(come);
    else queueMicrotask(come);
  }

  #end(code, reason) {
    this.#bring(() => {
      if (this.#state === "closed") return;
      this.#state = "closed";
      this.onclose?.({ code, reason, wasClean: code !== 1006 });
    });
  }
}
