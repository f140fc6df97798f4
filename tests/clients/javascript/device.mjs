// One client of a real server, led by lines of JSON on its standard input.
//
//     node device.mjs FASTCHAT_JS WS_MODULE OPTIONS
//
// WS_MODULE is the package ws, or "native" for the WebSocket of Node itself; OPTIONS are those of FastChat, as JSON. A line
// {"call": method, "args": [...], "as": name} calls a method. What happens is printed as {"event": name, "value": ...}, and what a promise
// of that name becomes as {"promise": name, "value" or "error": ...}; those of a Sent are name.accepted, name.delivered, name.read.
// With {"token": {"ask": true}} in OPTIONS the client has a function for tokens: each question is printed as {"ask": number}, and a line
// {"answer": number, "token": ...} answers it, with null for a failure. At the end of the input the client is closed.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [source, ws, options] = process.argv.slice(2);
const { FastChat } = await import(pathToFileURL(source).href);
const WebSocket = ws === "native" ? globalThis.WebSocket : (await import(pathToFileURL(ws).href)).WebSocket;
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const questions = [];
const ask = () =>
  new Promise((resolve, reject) => {
    questions.push((token) => (token === null ? reject(new Error("no token")) : resolve(token)));
    print({ ask: questions.length - 1 });
  });
const given = JSON.parse(options);
const chat = new FastChat({ ...given, token: given.token?.ask ? ask : given.token, WebSocket });

const tell = (event) => (value) => print({ event, value });
for (const event of ["state", "chat", "chats", "message", "typing"]) chat.on(event, tell(event));
chat.on("presence", (online) => tell("presence")(Object.fromEntries(online)));
chat.on("receipt", ({ messageId, status, error }) => tell("receipt")({ messageId, status, error: error?.code ?? null }));
chat.on("error", ({ code, message }) => tell("error")({ code, message }));

function follow(name, promise) {
  promise.then(
    (value) => print({ promise: name, value: value instanceof Object && "accepted" in value ? value.status : (value ?? null) }),
    ({ code, message }) => print({ promise: name, error: { code, message } }),
  );
}

for await (const line of createInterface({ input: process.stdin })) {
  const { call, args = [], as: name = call, answer, token } = JSON.parse(line);
  if (answer !== undefined) {
    questions[answer](token);
    continue;
  }
  const made = chat[call](...args);
  if (call === "send") for (const which of ["accepted", "delivered", "read"]) follow(`${name}.${which}`, made[which]);
  else if (made) follow(name, made);
}
chat.close();
