// Plays scenarios.json for the JavaScript client; README.md beside that file says what the steps mean.
//
//     node play.mjs FASTCHAT_JS SCENARIOS_JSON [NAME]
//
// Prints one line of JSON for each scenario: {"name", "failure": null or what went wrong}.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import { Network, settle, VirtualClock } from "./virtual.mjs";

const CAPABILITIES = ["receipts", "resume", "history", "carbons", "presence_delta"];
/** Frames of these types are looked for anywhere among those that came, since their order means nothing. */
const UNORDERED = ["MSG_ACK", "READ"];
/** How each event is noted. */
const NOTED = {
  state: (event) => event,
  presence: (users) => ({ users: Object.fromEntries(users), scope: users.scope }),
  chat: (event) => event,
  chats: (entries) => entries,
  message: (event) => event,
  typing: (event) => event,
  receipt: ({ messageId, status, content }) => ({ messageId, status, content }),
  error: ({ code, message, details }) => ({ code, message, details }),
};

/** How all tokens of scenarios begin: nothing that is shown may have it. */
const SECRET = "secret-";

class Failed extends Error {}

const show = (value) => JSON.stringify(value);

/** Whether `came` is what a scenario wants: objects may have more fields, "*" is anything but null. */
function contains(came, wanted) {
  if (wanted === "*") return came !== null && came !== undefined;
  if (Array.isArray(wanted))
    return Array.isArray(came) && came.length === wanted.length && wanted.every((value, at) => contains(came[at], value));
  if (wanted !== null && typeof wanted === "object")
    return came !== null && typeof came === "object" && Object.entries(wanted).every(([name, value]) => contains(came[name], value));
  return came === wanted;
}

/** The same with other words in all strings: `named` is for whole strings, `within` for parts. */
function substitute(value, named, within = {}) {
  if (typeof value === "string") {
    for (const [name, word] of Object.entries(within)) value = value.replaceAll(name, word);
    return named[value] ?? value;
  }
  if (Array.isArray(value)) return value.map((item) => substitute(item, named, within));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [substitute(key, named, within), substitute(item, named, within)]));
}

class Player {
  clock = new VirtualClock();
  network = new Network();
  events = [];
  /** Event name -> how many of them have been looked at. */
  seen = {};
  sents = {};
  promises = {};
  throwNext = new Set();
  waitNext = new Set();
  /** Event name -> promises of its listener that are still to be settled, the oldest first. */
  waiting = {};
  closeNext = new Set();
  windowListeners = new Map();
  /** How often the function for tokens was asked, and those of its promises that are still to be settled, by number. */
  asked = 0;
  questions = [];

  constructor(FastChat, me, { random = 0.5, cursor = null, token = null }) {
    this.me = me;
    const { clock, network } = this;
    globalThis.addEventListener = (event, listener) => this.windowListeners.set(event, listener);
    globalThis.removeEventListener = (event) => this.windowListeners.delete(event);
    this.chat = new FastChat({
      url: "ws://server.test/ws",
      userId: me,
      displayName: "Me Myself",
      token: Array.isArray(token) ? () => this.tokenOf(token) : token,
      cursor,
      WebSocket: network.WebSocket,
      clock,
      random: () => random,
    });
    for (const [name, note] of Object.entries(NOTED))
      this.chat.on(name, (event) => {
        this.events.push([name, structuredClone(note(event))]);
        if (this.closeNext.delete(name)) this.chat.close();
        if (this.throwNext.delete(name)) throw new Error("thrown by the scenario");
        if (!this.waitNext.has(name)) return undefined;
        this.waiting[name] ??= [];
        return new Promise((resolve, reject) => this.waiting[name].push({ resolve, reject }));
      });
  }

  async run(steps, place = "") {
    for (const [number, step] of steps.entries()) {
      await settle();
      try {
        await this.step(step, `${place}${number}.`);
      } catch (error) {
        if (!(error instanceof Failed) || error.message.startsWith("step ")) throw error;
        throw new Failed(`step ${place}${number} ${show(step)}: ${error.message}`);
      }
    }
    await settle();
  }

  async step(step, place) {
    if ("server" in step) await this[`server_${step.server}`](step);
    else if ("client" in step) this.client(step);
    else if ("repeat" in step)
      for (let number = 0; number < step.repeat; number += 1)
        await this.run(substitute(step.steps, {}, { [`{${step.as}}`]: String(number) }), `${place}${number}.`);
    else if ("events" in step) this.checkEvents(step.events);
    else if ("sent" in step) this.checkSent(step);
    else if ("promise" in step) await this.checkPromise(step);
    else if ("time" in step) await this.clock.advance(step.time * 1000);
    else if ("stall" in step) await this.stall(step, place);
    else if ("attempt" in step) await this.attempt(...step.attempt);
    else if ("no_attempt" in step) await this.noAttempt(step.no_attempt);
    else this.checkClient(step);
  }

  // -- The server --

  get link() {
    const link = this.network.links.at(-1);
    if (!link) throw new Failed("the client has not tried to connect");
    return link;
  }

  async server_accept() {
    if (!this.link.waiting) throw new Failed("no attempt is waiting");
    this.link.accept();
    await settle();
  }

  server_refuse({ status }) {
    if (!this.link.waiting) throw new Failed("no attempt is waiting");
    this.link.refuse(status);
  }

  async server_greet({ hello = {}, absent = [], ack = {} }) {
    await this.server_accept();
    this.server_expect({ type: "HELLO", data: hello, absent });
    const greeting = { user_id: this.me, status: "connected", capabilities: CAPABILITIES, cursor: "e.0", resumed: "full", ...ack };
    const data = Object.fromEntries(Object.entries(greeting).filter(([, value]) => value !== null));
    this.server_send({ type: "HELLO_ACK", data });
  }

  server_expect({ type, data: wanted = {}, absent = [] }) {
    let waiting = this.link.frames.filter((frame) => frame.type === type && !frame.taken);
    if (!UNORDERED.includes(type)) waiting = waiting.slice(0, 1);
    const found = waiting.find(({ data }) => contains(data, wanted) && !absent.some((name) => name in data));
    if (!found) throw new Failed(`did not come; not taken are ${show(this.link.frames.filter(({ taken }) => !taken))}`);
    found.taken = true;
  }

  server_expect_none({ type }) {
    const left = this.link.frames.filter((frame) => frame.type === type && !frame.taken);
    if (left.length > 0) throw new Failed(`there is ${show(left)}`);
  }

  server_send({ type, data }) {
    this.link.tell(JSON.stringify({ type, data }));
  }

  server_send_text({ text }) {
    this.link.tell(text);
  }

  server_close({ code, reason }) {
    this.link.end(code, reason);
  }

  server_drop() {
    this.link.end(1006);
  }

  server_silent() {
    this.link.silent = true;
  }

  server_pongs({ on }) {
    this.link.pongs = on;
  }

  server_connections({ open }) {
    const count = this.network.links.filter((link) => link.open).length;
    if (count !== open) throw new Failed(`${count} are open`);
  }

  server_closed_by_client({ code }) {
    if (this.link.closedByClient !== code) throw new Failed(`the client closed with ${this.link.closedByClient}`);
  }

  // -- The client --

  /** The next answer of the function that is the option `token`. */
  tokenOf(answers) {
    const answer = answers[Math.min(this.asked, answers.length - 1)];
    const number = this.asked++;
    if (answer === "closes") this.chat.close();
    if (answer === "throws") throw new Error("thrown by the scenario");
    if (answer === "rejects") return Promise.reject(new Error("rejected by the scenario"));
    if (answer === "later") return new Promise((resolve, reject) => (this.questions[number] = { resolve, reject }));
    return answer?.promise === undefined ? answer : Promise.resolve(answer.promise);
  }

  client({ client: method, args = [], as: name = method, event, fails, question, token }) {
    if (method === "connect") args = args.map((seconds) => seconds * 1000);
    if (method === "network_online") this.windowListeners.get("online")?.();
    else if (method === "listener_throws") this.throwNext.add(event);
    else if (method === "listener_waits") this.waitNext.add(event);
    else if (method === "listener_ends") {
      this.waitNext.delete(event);
      const { resolve, reject } = this.waiting[event].shift();
      if (fails) reject(new Error("rejected by the scenario"));
      else resolve();
    } else if (method === "close_at") this.closeNext.add(event);
    else if (method === "answer") this.questions[question].resolve(token);
    else {
      const made = this.chat[method](...args);
      if (method === "send") this.sents[name] = made;
      else if (made) this.note(name, made);
    }
  }

  /** Remember what becomes of a promise. */
  note(name, promise) {
    const noted = { is: "pending" };
    this.promises[name] = noted;
    promise.then(
      (value) => Object.assign(noted, { is: "resolved", value }),
      (error) => Object.assign(noted, { is: "rejected", error: error.code }),
    );
  }

  checkSent({ sent: name, ...wanted }) {
    const { status, error, content, original } = this.sents[name];
    const came = { status, error: error?.code ?? null, content, original };
    if (!contains(came, wanted)) throw new Failed(`it is ${show(came)}`);
  }

  async checkPromise({ promise: name, ...wanted }) {
    if (!this.promises[name]) {
      const [sent, which] = name.split(".");
      this.note(name, this.sents[sent][which]);
      await settle();
    }
    if (!contains(this.promises[name], wanted)) throw new Failed(`it is ${show(this.promises[name])}`);
  }

  checkEvents(wanted) {
    for (const [name, expected] of Object.entries(wanted)) {
      const came = this.events.filter(([kind]) => kind === name).map(([, event]) => event);
      const fresh = came.slice(this.seen[name] ?? 0);
      this.seen[name] = came.length;
      if (!contains(fresh, expected)) throw new Failed(`the events \`${name}\` are ${show(fresh)}`);
    }
  }

  checkClient(step) {
    for (const [name, wanted] of Object.entries(step)) {
      if (name === "attempts") {
        if (this.network.links.length !== wanted) throw new Failed(`it has tried ${this.network.links.length} times`);
      } else if (name === "asked") {
        if (this.asked !== wanted) throw new Failed(`it was asked ${this.asked} times`);
      } else if (name === "retryIn") {
        const wait = (this.chat.retryAt - this.clock.now()) / 1000;
        if (wait < wanted[0] - 1e-6 || wait > wanted[1] + 1e-6) throw new Failed(`the next attempt is in ${wait} s`);
      } else if (name === "warnings") {
        const fresh = warnings.splice(0);
        const fit = fresh.length === wanted.length && fresh.every((text, at) => text.includes(wanted[at]));
        if (!fit) throw new Failed(`the warnings are ${show(fresh)}`);
      } else if (name === "presence") {
        const came = Object.fromEntries(this.chat.presence);
        if (!contains(came, wanted) || !contains(wanted, came)) throw new Failed(`presence is ${show(came)}`);
      } else if (name === "listed") {
        const came = this.chat.chatList.map(({ userId }) => userId);
        if (!contains(came, wanted)) throw new Failed(`the list is ${show(came)}`);
      } else if (!contains(this.chat[name], wanted)) throw new Failed(`${name} is ${show(this.chat[name])}`);
    }
  }

  // -- Time --

  async stall({ stall: seconds, steps = [] }, place) {
    const { links } = this.network;
    for (const link of links) link.hold();
    await this.run(steps, place);
    await this.clock.stall(seconds * 1000);
    for (const link of [...links]) if (link.isHeld) link.release();
  }

  async attempt(least, most) {
    const known = this.network.links.length;
    const began = this.clock.now();
    if (least === 0 && this.network.links.at(-1)?.waiting) return; // it came without time passing
    if (least > 0) {
      await this.clock.advance(least * 1000 - 1);
      if (this.network.links.length > known) throw new Failed("the client tried too early");
    }
    while (this.network.links.length === known) {
      const left = began + most * 1000 - this.clock.now();
      if (left < -2) throw new Failed("the client did not try in time");
      await this.clock.advance(Math.min(10, Math.max(left, 1)));
    }
  }

  async noAttempt(seconds) {
    const known = this.network.links.length;
    await this.clock.advance(seconds * 1000);
    if (this.network.links.length > known) throw new Failed("the client tried to connect");
  }
}

/** What the client has said to the console and nobody has looked at. */
const warnings = [];
console.warn = (...said) => warnings.push(said.map(String).join(" "));

const [source, list, only] = process.argv.slice(2);
const { FastChat } = await import(pathToFileURL(source).href);
const { users, scenarios } = JSON.parse(readFileSync(list, "utf8"));
const named = Object.fromEntries(Object.entries(users).map(([name, id]) => [`@${name}`, id]));

for (const scenario of scenarios) {
  if ((only && scenario.name !== only) || !(scenario.only ?? ["javascript"]).includes("javascript")) continue;
  let failure = null;
  let unexpected = null;
  warnings.length = 0;
  const notice = (error) => (unexpected = error);
  process.once("unhandledRejection", notice);
  process.once("uncaughtException", notice);
  try {
    const player = new Player(FastChat, users.me, scenario);
    await player.run(substitute(scenario.steps, named));
    player.chat.close();
    await settle();
    if (player.clock.waiting > 0) throw new Failed(`${player.clock.waiting} timers are left after close()`);
    if (inspect([player.events, player.chat, warnings], { depth: 9, showHidden: true }).includes(SECRET))
      throw new Failed("a token is shown");
    if (player.windowListeners.size > 0) throw new Failed("a listener of the browser's events is left after close()");
    if (unexpected) throw unexpected;
  } catch (error) {
    failure = error instanceof Failed ? error.message : String(error.stack);
  }
  process.off("unhandledRejection", notice);
  process.off("uncaughtException", notice);
  console.log(JSON.stringify({ name: scenario.name, failure }));
}
