"""A relay on picows, uvloop and orjson: the least that does the job, one write per frame. It checks nothing.

``python -m bench.peers.picows_peer [PORT]``
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

#: User id -> connection.
Connections = dict[str, "Connection"]


class Connection(WSListener):
    """One client."""

    def __init__(self, connections: Connections) -> None:
        self._connections: Final = connections
        self._transport: WSTransport | None = None
        #: From HELLO; empty before.
        self._user_id = ""
        self._display_name = ""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.TEXT:
            message = orjson.loads(frame.get_payload_as_memoryview())
            self._on_message(message["type"], message["data"])
        elif kind == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._connections.get(self._user_id) is self:
            del self._connections[self._user_id]

    def _on_message(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "MSG":
            self._on_msg(data)
        elif kind == "HELLO":
            self._user_id, self._display_name = data["user_id"], data["display_name"]
            self._connections[self._user_id] = self
            self._send("HELLO_ACK", {"user_id": self._user_id, "status": "connected"})
        elif kind == "OPEN_CHAT":
            self._on_open_chat(data["target_user_id"], data["target_display_name"])
        elif kind == "PING":
            self._send("PONG", {"timestamp": _now()})

    def _on_msg(self, data: dict[str, Any]) -> None:
        to, message_id = data["to"], data["message_id"]
        recipient = self._connections.get(to)
        if recipient is not None:
            message = {
                "from": self._user_id,
                "to": to,
                "content": data["content"],
                "message_id": message_id,
                "timestamp": _now(),
            }
            recipient._send("MSG", message)
        status = "stored" if recipient is None else "delivered"
        self._send("MSG_ACK", {"message_id": message_id, "status": status})

    def _on_open_chat(self, target_id: str, target_name: str) -> None:
        participants = sorted([self._user_id, target_id])
        chat = {"chat_id": ":".join(participants), "participants": participants}
        self._send("CHAT_OPENED", chat | {"target_user_id": target_id, "target_display_name": target_name})
        target = self._connections.get(target_id)
        if target is not None:
            other = {"target_user_id": self._user_id, "target_display_name": self._display_name}
            target._send("CHAT_OPENED", chat | other)

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        assert self._transport is not None, "connected"
        self._transport.send(WSMsgType.TEXT, orjson.dumps({"type": kind, "data": data}))


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


async def serve(port: int) -> None:
    """Listen on `port`, or on a free one when it is 0, until a signal ends the process."""
    connections: Connections = {}

    def accept(request: WSUpgradeRequest) -> Connection | None:
        return Connection(connections) if request.path == b"/ws" else None

    server = await ws_create_server(accept, "127.0.0.1", port)
    port = server.sockets[0].getsockname()[1]
    print(f"ready ws://127.0.0.1:{port}/ws pid={os.getpid()}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
