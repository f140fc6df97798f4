// A relay on uWebSockets.js, which is C++ under Node. Usage: node uws_peer.js [PORT]
//
// The package `uwebsockets` carries the project's prebuilt binaries; the project itself publishes none in the registry.

"use strict";

const uws = require("uwebsockets");

const connections = new Map(); // user id -> connection

function send(connection, type, data) {
  connection.send(JSON.stringify({ type, data }));
}

function onHello(connection, data) {
  const user = connection.getUserData();
  user.id = data.user_id;
  user.displayName = data.display_name;
  connections.set(data.user_id, connection);
  send(connection, "HELLO_ACK", { user_id: data.user_id, status: "connected" });
}

function onOpenChat(connection, data) {
  const user = connection.getUserData();
  const participants = [user.id, data.target_user_id].sort();
  const opened = { chat_id: participants.join(":"), participants };
  const { target_user_id, target_display_name } = data;
  send(connection, "CHAT_OPENED", { ...opened, target_user_id, target_display_name });
  const target = connections.get(target_user_id);
  if (target !== undefined) {
    send(target, "CHAT_OPENED", { ...opened, target_user_id: user.id, target_display_name: user.displayName });
  }
}

function onMsg(connection, data) {
  const { to, content, message_id } = data;
  const recipient = connections.get(to);
  if (recipient !== undefined) {
    const timestamp = new Date().toISOString();
    send(recipient, "MSG", { from: connection.getUserData().id, to, content, message_id, timestamp });
  }
  send(connection, "MSG_ACK", { message_id, status: recipient === undefined ? "stored" : "delivered" });
}

const app = uws.App();

app.ws("/ws", {
  // The others take as much; with uWebSockets' own limits, what a slow reader has not read would be dropped unnoticed.
  maxPayloadLength: 64 * 1024,
  maxBackpressure: 16 * 1024 * 1024,
  upgrade(response, request, context) {
    // What the user is called comes with HELLO; the object is the connection's own from the beginning.
    response.upgrade(
      { id: undefined, displayName: undefined },
      request.getHeader("sec-websocket-key"),
      request.getHeader("sec-websocket-protocol"),
      request.getHeader("sec-websocket-extensions"),
      context,
    );
  },
  message(connection, payload) {
    const { type, data } = JSON.parse(Buffer.from(payload));
    if (type === "MSG") onMsg(connection, data);
    else if (type === "HELLO") onHello(connection, data);
    else if (type === "OPEN_CHAT") onOpenChat(connection, data);
    else if (type === "PING") send(connection, "PONG", { timestamp: new Date().toISOString() });
  },
  close(connection) {
    const { id } = connection.getUserData();
    if (connections.get(id) === connection) connections.delete(id);
  },
});

app.listen("127.0.0.1", Number(process.argv[2] ?? 0), (listener) => {
  if (!listener) throw new Error("the port is taken");
  console.log(`ready ws://127.0.0.1:${uws.us_socket_local_port(listener)}/ws pid=${process.pid}`);
});
