"""One WebSocket of one user under load: a greenlet reads, and tells whoever made the connection what came and how it ended.

Written for gevent, which locust runs on: ``websocket-client`` uses plain sockets, and these give way to other greenlets.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import gevent
import websocket
from gevent.event import Event

#: Seconds until an answer counts as missing, a PONG too.
ANSWER_TIMEOUT: Final = 5.0

#: SO_LINGER on, for 0 seconds: closing sends a TCP reset and nothing else.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

Message = dict[str, Any]

#: Takes the type and the data of a message, and when it came by ``time.perf_counter``.
Received = Callable[[str, Message, float], None]


class Connection:
    """An open connection; connects when it is made. Raises OSError or ``websocket.WebSocketException`` when it cannot.

    `received` is called for each message, and `ended` once with the reason, both in the greenlet that reads. `ended` is not
    called for what `close` or `reset` ended.
    """

    def __init__(self, url: str, received: Received, ended: Callable[[Connection, str], None]) -> None:
        # Several greenlets send: the one that talks, the heartbeat, and the reader for acknowledgements and pongs.
        self._socket = websocket.WebSocket(enable_multithread=True)
        self._socket.connect(url, timeout=ANSWER_TIMEOUT)
        self._socket.settimeout(None)
        self._received = received
        self._ended = ended
        #: Set when nothing can be sent any more, for whatever reason.
        self.over = Event()
        self._reader = gevent.spawn(self._read)

    def send(self, kind: str, data: Message) -> None:
        """Send a message. Where that is impossible the connection ends, which `ended` is told."""
        try:
            self._socket.send(json.dumps({"type": kind, "data": data}))
        except (OSError, websocket.WebSocketException) as error:
            self._end(f"connection lost: {type(error).__name__}")

    def close(self) -> None:
        """Close politely: wait for the close frame of the server, but not for ever."""
        if not self.over.is_set():
            self.over.set()
            try:
                self._socket.send_close()
                self._reader.join(timeout=ANSWER_TIMEOUT)
            except (OSError, websocket.WebSocketException):
                pass  # it ended from the other side at the same time
        self._release()

    def reset(self) -> None:
        """Break off with a TCP reset, without a close frame, as when a network fails."""
        self.over.set()
        if self._socket.sock is not None:
            self._socket.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._release()

    def _read(self) -> None:
        reason = "the reader ended"
        try:
            while True:
                opcode, payload = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(payload[:2], "big")
                    reason = f"closed by the server: {code} {payload[2:].decode()}"
                    return
                message = json.loads(payload)
                self._received(message["type"], message["data"], time.perf_counter())
        except (OSError, websocket.WebSocketException) as error:
            reason = f"connection lost: {type(error).__name__}"
        finally:
            self._end(reason)

    def _end(self, reason: str) -> None:
        if not self.over.is_set():
            self.over.set()
            self._release()
            self._ended(self, reason)

    def _release(self) -> None:
        self._socket.shutdown()
