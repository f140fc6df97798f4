"""The peer: sends what a script says, byte for byte, and reads what comes with wsproto, which shares nothing with the server.

wsproto makes the handshake and parses what the server sends; what it does not like is an error of the server's. Everything that is sent
after the handshake is bytes of the script, right or wrong. Each wait has a deadline.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self
from uuid import uuid4

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from tests.rfc6455.case import CLOSE, TEXT, Await, Event, Script, close, frame

#: Seconds in which something has to come; a machine that is busy with other tests has to manage it.
PATIENCE: Final = 30.0


class Outcome(NamedTuple):
    """What came of a script."""

    events: list[Event]
    #: What the server's Close frame says; None and nothing when the connection ended without one.
    code: int | None
    reason: str
    #: Whether the connection ended with a TCP reset, which may destroy what is on its way.
    reset: bool


class Peer:
    """One connection, upgraded; a context manager. It offers compression, as browsers do; what the server took is in `extensions`."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._frames = FrameProtocol(client=True, extensions=[])
        self._deadline = time.monotonic() + PATIENCE
        self._parts: list[bytes] = []
        self.events: list[Event] = []
        self.code: int | None = None
        self.reason = ""
        self.ended = self.reset = False
        self.extensions = self._upgrade()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def hello(self) -> None:
        """Say HELLO, and wait until the session is open."""
        data = {"user_id": str(uuid4()), "display_name": "The peer"}
        self.socket.sendall(frame(TEXT, json.dumps({"type": "HELLO", "data": data}).encode()))
        self.wait_for(2)
        kinds = [json.loads(event.payload)["type"] for event in self.events]
        assert kinds == ["HELLO_ACK", "PRESENCE"], kinds
        self.events.clear()

    def run(self, script: Script) -> Outcome:
        """Do what the script says, until the connection has ended."""
        with suppress(
            BrokenPipeError, ConnectionResetError
        ):  # the server has had enough: what it said is still to be read
            for step in script.steps:
                if isinstance(step, Await):
                    self.wait_for(step.events)
                else:
                    self._deadline = time.monotonic() + PATIENCE
                    self.socket.sendall(step)
            if script.ending.by == "peer":
                self.wait_for(len(script.events))
                self.socket.sendall(close(1000))
        self._deadline = time.monotonic() + PATIENCE
        while self.code is None and not self.ended:
            self._read()
        with suppress(OSError):
            self.socket.sendall(close(1000))
        while not self.ended:
            self._read()
        return Outcome(self.events, self.code, self.reason, self.reset)

    def wait_for(self, count: int) -> None:
        """Wait until so many events have come, or the connection has ended."""
        self._deadline = time.monotonic() + PATIENCE
        while len(self.events) < count and self.code is None and not self.ended:
            self._read()

    def _upgrade(self) -> list[str]:
        handshake = WSConnection(ConnectionType.CLIENT)
        request = Request(host="localhost", target="/ws", extensions=[PerMessageDeflate()])
        self.socket.sendall(handshake.send(request))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            came = self.socket.recv(4096, socket.MSG_PEEK)
            assert came, f"the server ended the connection in the middle of its head: {head!r}"
            # No further than the end of the head, of which a part may have come before: what follows is for the other parser.
            end = (head + came).find(b"\r\n\r\n")
            head += self.socket.recv(len(came) if end < 0 else end + 4 - len(head))
        handshake.receive_data(head)
        (event,) = handshake.events()
        assert isinstance(event, AcceptConnection), event
        return [extension.name for extension in event.extensions]

    def _read(self) -> None:
        left = self._deadline - time.monotonic()
        assert left > 0, f"nothing more came after {self.events[-3:]}, code {self.code}"
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionResetError:
            data, self.reset = b"", True
        if not data:
            self.ended = True
            return
        assert self.code is None, f"more came behind the Close frame: {data[:40]!r}"
        self._frames.receive_bytes(data)
        for came in self._frames.received_frames():
            self._take(came.opcode, came.payload, came.message_finished)

    def _take(self, opcode: Opcode, payload: object, finished: bool) -> None:
        assert self.code is None, "a frame came behind the Close frame"
        if opcode == CLOSE:
            assert isinstance(payload, tuple)
            self.code, self.reason = int(payload[0]), payload[1] or ""
            return
        assert isinstance(payload, str | bytes | bytearray)
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        if opcode == Opcode.PONG:
            self.events.append(Event("pong", data))
            return
        assert opcode in (Opcode.TEXT, Opcode.BINARY), f"nobody asked for {opcode!r}"
        self._parts.append(data)
        if finished:
            whole, self._parts = b"".join(self._parts), []
            self.events.append(_event(opcode, whole))


def _event(opcode: Opcode, payload: bytes) -> Event:
    if opcode == Opcode.BINARY:
        return Event("binary", payload)
    if payload.startswith(b'{"type":"ERROR",'):
        return Event("error", json.loads(payload)["data"]["code"].encode())
    return Event("text", payload)
