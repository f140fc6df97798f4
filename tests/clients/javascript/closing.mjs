// A connection that is just closing: nothing is sent on it, since a browser complains in its console. Prints what was sent.
//
//     node closing.mjs CLIENT

import { pathToFileURL } from "node:url";

const { Runner } = await import(new URL("runner.js", pathToFileURL(process.argv[2])));

const sent = [];
const states = { open: 1, closing: 2, closed: 3 };
let socket;

class WebSocketThere {
  constructor() {
    socket = this;
    this.readyState = states.open;
  }

  send(text) {
    sent.push(text);
  }
}

const runner = new Runner("ws://localhost/ws", WebSocketThere, () => ({}));
runner.write("before there is one");
runner.open();
for (const [name, state] of Object.entries(states)) {
  socket.readyState = state;
  runner.write(name);
}
console.log(JSON.stringify(sent));
