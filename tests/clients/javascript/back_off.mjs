// When the clients of a server that restarts come back, in virtual time.
//
//     node back_off.mjs FASTCHAT_JS CLIENTS CODE FAILURES RANDOM
//
// So many clients are online, lose their connection with the close code, and then fail so many times more; RANDOM is `real` or a number.
// Prints the seconds from the last failure to the next attempt of each, as one list of JSON.

import { pathToFileURL } from "node:url";
import { Network, settle, VirtualClock } from "./virtual.mjs";

const [source, count, code, failures, random] = process.argv.slice(2);
const { FastChat, newId } = await import(pathToFileURL(source).href);
const delays = [];

for (let number = 0; number < Number(count); number += 1) {
  const clock = new VirtualClock();
  const network = new Network();
  const options = random === "real" ? {} : { random: () => Number(random) };
  const who = { url: "ws://server.test/ws", userId: newId(), displayName: "Client" };
  const chat = new FastChat({ ...who, WebSocket: network.WebSocket, clock, ...options });
  chat.connect();
  network.links[0].accept();
  network.links[0].tell(JSON.stringify({ type: "HELLO_ACK", data: { user_id: chat.userId, status: "connected" } }));
  await settle();
  network.links[0].end(Number(code));
  await settle();
  for (let failure = 0; failure < Number(failures); failure += 1) {
    await clock.advance(chat.retryAt - clock.now());
    network.links.at(-1).refuse();
    await settle();
  }
  const known = network.links.length;
  const delay = chat.retryAt - clock.now();
  if (delay >= 1) {
    await clock.advance(delay - 0.5);
    if (network.links.length !== known) throw new Error("a client came before it said it would");
  }
  await clock.advance(1);
  if (network.links.length !== known + 1) throw new Error("a client did not come when it said it would");
  delays.push(delay / 1000);
  chat.close();
}
console.log(JSON.stringify(delays));
