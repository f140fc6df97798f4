"""A relay as most people would write it in Python: FastAPI on uvicorn, with what ``uvicorn[standard]`` chooses by itself.

``python -m bench.peers.fastapi_peer [PORT]``
"""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect


class User:
    """One client, as far as it said who it is."""

    def __init__(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.user_id = ""
        self.display_name = ""


#: User id -> who is connected.
Users = dict[str, User]


async def _send(user: User, kind: str, data: dict[str, Any]) -> None:
    await user.websocket.send_json({"type": kind, "data": data})


async def _reach(user: User | None, kind: str, data: dict[str, Any]) -> bool:
    """Send to somebody else, who may have gone or may just be going; whether the message was sent."""
    if user is None:
        return False
    try:
        await _send(user, kind, data)
    except (WebSocketDisconnect, RuntimeError):
        return False
    return True


async def _on_hello(users: Users, user: User, data: dict[str, Any]) -> None:
    user.user_id, user.display_name = data["user_id"], data["display_name"]
    users[user.user_id] = user
    await _send(user, "HELLO_ACK", {"user_id": user.user_id, "status": "connected"})


async def _on_open_chat(users: Users, user: User, data: dict[str, Any]) -> None:
    target_id = data["target_user_id"]
    participants = sorted([user.user_id, target_id])
    chat = {"chat_id": ":".join(participants), "participants": participants}
    name = data["target_display_name"]
    await _send(user, "CHAT_OPENED", {**chat, "target_user_id": target_id, "target_display_name": name})
    other = {"target_user_id": user.user_id, "target_display_name": user.display_name}
    await _reach(users.get(target_id), "CHAT_OPENED", {**chat, **other})


async def _on_msg(users: Users, user: User, data: dict[str, Any]) -> None:
    to, message_id = data["to"], data["message_id"]
    message = {
        "from": user.user_id,
        "to": to,
        "content": data["content"],
        "message_id": message_id,
        "timestamp": _now(),
    }
    status = "delivered" if await _reach(users.get(to), "MSG", message) else "stored"
    await _send(user, "MSG_ACK", {"message_id": message_id, "status": status})


async def _on_ping(users: Users, user: User, data: dict[str, Any]) -> None:
    await _send(user, "PONG", {"timestamp": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def create_app() -> FastAPI:
    """Create the application, with users of its own."""
    app = FastAPI()
    users: Users = {}
    handlers = {"MSG": _on_msg, "HELLO": _on_hello, "OPEN_CHAT": _on_open_chat, "PING": _on_ping}

    @app.websocket("/ws")
    async def websocket_endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        user = User(websocket)
        try:
            while True:
                message = json.loads(await websocket.receive_text())
                handler = handlers.get(message["type"])
                if handler is not None:
                    await handler(users, user, message["data"])
        except WebSocketDisconnect:
            if users.get(user.user_id) is user:
                del users[user.user_id]

    return app


class Server(uvicorn.Server):
    """Says when it listens, and where."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"ready ws://127.0.0.1:{port}/ws pid={os.getpid()}", flush=True)


if __name__ == "__main__":
    # The log would tell of every connection. Everything else is uvicorn's default.
    Server(
        uvicorn.Config(
            create_app(),
            host="127.0.0.1",
            port=int(sys.argv[1]) if len(sys.argv) > 1 else 0,
            log_level="warning",
        )
    ).run()
