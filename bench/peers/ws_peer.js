// A relay on Node and `ws`. Usage: node ws_peer.js [PORT]

"use strict";

const { WebSocketServer } = require("ws");

const connections = new Map(); // user id -> connection

function send(connection, type, data) {
  connection.send(JSON.stringify({ type, data }));
}

function onHello(connection, data) {
  connection.userId = data.user_id;
  connection.displayName = data.display_name;
  connections.set(data.user_id, connection);
  send(connection, "HELLO_ACK", { user_id: data.user_id, status: "connected" });
}

function onOpenChat(connection, data) {
  const participants = [connection.userId, data.target_user_id].sort();
  const opened = { chat_id: participants.join(":"), participants };
  const { target_user_id, target_display_name } = data;
  send(connection, "CHAT_OPENED", { ...opened, target_user_id, target_display_name });
  const target = connections.get(target_user_id);
  if (target !== undefined) {
    const other = { target_user_id: connection.userId, target_display_name: connection.displayName };
    send(target, "CHAT_OPENED", { ...opened, ...other });
  }
}

function onMsg(connection, data) {
  const { to, content, message_id } = data;
  const recipient = connections.get(to);
  if (recipient !== undefined) {
    const timestamp = new Date().toISOString();
    send(recipient, "MSG", { from: connection.userId, to, content, message_id, timestamp });
  }
  send(connection, "MSG_ACK", { message_id, status: recipient === undefined ? "stored" : "delivered" });
}

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2] ?? 0), path: "/ws" });

server.on("connection", (connection) => {
  connection.on("message", (payload) => {
    const { type, data } = JSON.parse(payload);
    if (type === "MSG") onMsg(connection, data);
    else if (type === "HELLO") onHello(connection, data);
    else if (type === "OPEN_CHAT") onOpenChat(connection, data);
    else if (type === "PING") send(connection, "PONG", { timestamp: new Date().toISOString() });
  });
  connection.on("close", () => {
    if (connections.get(connection.userId) === connection) connections.delete(connection.userId);
  });
  connection.on("error", () => connection.terminate());
});

server.on("listening", () => {
  console.log(`ready ws://127.0.0.1:${server.address().port}/ws pid=${process.pid}`);
});
