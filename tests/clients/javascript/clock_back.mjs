// The computer's clock is put back by an hour while somebody types. The argument is the client; exits with 1 when typing is not repeated.

import assert from "node:assert/strict";
import { Network, settle } from "./virtual.mjs";

let passed = 0;
let wrong = 0;
const [date, monotonic] = [Date.now, performance.now.bind(performance)];
Date.now = () => date() + passed + wrong;
performance.now = () => monotonic() + passed;

const { FastChat } = await import(process.argv[2]);
const network = new Network();
const chat = new FastChat({ url: "ws://x/", userId: "me", displayName: "Me Myself", WebSocket: network.WebSocket });
chat.connect();
const [link] = network.links;
link.accept();
link.tell(JSON.stringify({ type: "HELLO_ACK", data: { user_id: "me", status: "connected", capabilities: ["receipts"] } }));
await settle();
const typed = () => link.frames.filter(({ type }) => type === "TYPING").length;

chat.typing("peer", true);
assert.equal(typed(), 1);
wrong = -3_600_000;
passed += 8000;
chat.typing("peer", true);
assert.equal(typed(), 2, "it is repeated after 8 s");
wrong = 3_600_000;
passed += 1000;
chat.typing("peer", true);
assert.equal(typed(), 2, "and not after one more, though the clock is an hour ahead");

// A wait for the next attempt is as long as it is, whatever the clock says.
link.end(1006);
await settle();
const { now } = await import(process.argv[2]);
const wait = chat.retryAt - now();
assert.ok(wait <= 500, `${wait} ms`);
chat.close();
