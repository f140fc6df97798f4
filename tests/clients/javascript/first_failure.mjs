// What the client tells of the first failure at each of some places.
//
//     node first_failure.mjs FASTCHAT_JS WS_MODULE URL ...
//
// Prints one line of JSON for each: {"state", "lost", "closed", "connect": the error of connect(), "warnings": [...]}.

import { pathToFileURL } from "node:url";

const [source, ws, ...urls] = process.argv.slice(2);
const { FastChat, newId } = await import(pathToFileURL(source).href);
const { WebSocket } = await import(pathToFileURL(ws).href);
let warnings = [];
console.warn = (...said) => warnings.push(said.join(" "));

for (const url of urls) {
  warnings = [];
  const chat = new FastChat({ url, userId: newId(), displayName: "Client", WebSocket });
  const connect = chat.connect().then(
    () => null,
    ({ code, message }) => ({ code, message }),
  );
  const { state, lost, closed } = await new Promise((resolve) => {
    chat.on("state", (event) => ["waiting", "closed"].includes(event.state) && resolve(event));
  });
  chat.close();
  console.log(JSON.stringify({ state, lost, closed, connect: await connect, warnings }));
}
