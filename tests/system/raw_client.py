"""A client that can do wrong: one connection, byte by byte, with nothing done behind the test's back.

It shares no code with the server, and unlike `ChatClient` it answers no ping, sends any frame in any piece, and sees every frame
that comes. It blocks, and each wait has a deadline.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

#: Seconds that a test waits for something to come; a machine that is busy with other tests has to manage it.
PATIENCE: Final = 10.0

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


class Frame(NamedTuple):
    """A frame from the server."""

    opcode: int
    payload: bytes

    def message(self) -> tuple[str, dict[str, Any]]:
        """The type and the data of the message in a text frame."""
        assert self.opcode == TEXT, f"a text frame was expected, this came: {self}"
        message = json.loads(self.payload)
        assert message.keys() == {"type", "data"}, message
        return message["type"], message["data"]

    def close(self) -> tuple[int, str]:
        """The code and the reason in a Close frame; 1005, as RFC 6455 has it, stands for no code."""
        assert self.opcode == CLOSE, f"a Close frame was expected, this came: {self}"
        if not self.payload:
            return 1005, ""
        return struct.unpack_from("!H", self.payload)[0], self.payload[2:].decode()


class Ended(AssertionError):
    """The server closed the TCP connection while more was expected."""


def client_frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True
) -> bytes:
    """One frame as a client sends it; `rsv` is the three reserved bits as a number from 0 to 7."""
    size = len(payload)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    # As two numbers: byte by byte it takes longer than what many tests are about.
    masked = int.from_bytes(payload) ^ int.from_bytes((key * (size // 4 + 1))[:size])
    return head + key + masked.to_bytes(size)


def message(type_: str, /, **data: Any) -> bytes:
    """The text of a message."""
    return json.dumps({"type": type_, "data": data}).encode()


def text(type_: str, /, **data: Any) -> bytes:
    """A message in one frame."""
    return client_frame(TEXT, message(type_, **data))


def upgrade_request(path: str = "/ws", **headers: str | None) -> bytes:
    """A request for the upgrade. Keywords replace headers or add some (``_`` for ``-``), None leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


class RawClient:
    """One connection of one user, on a connected socket; a context manager. Frames that nobody asked for stay in `inbox`."""

    def __init__(self, sock: socket.socket, user_id: str | None = None, name: str = "Somebody") -> None:
        self.socket = sock
        self.user_id = user_id or str(uuid4())
        self.name = name
        self.inbox: list[Frame] = []
        self._received = b""

    @classmethod
    def to(
        cls,
        port: int,
        user_id: str | None = None,
        name: str = "Somebody",
        *,
        host: str = "127.0.0.1",
        source: str | None = None,
    ) -> Self:
        """Connect, without a request yet; from the address `source`, if that matters."""
        address = None if source is None else (source, 0)
        return cls(socket.create_connection((host, port), PATIENCE, source_address=address), user_id, name)

    @classmethod
    def upgraded(cls, port: int, user_id: str | None = None, name: str = "Somebody", **headers: str) -> Self:
        """Connect and upgrade."""
        client = cls.to(port, user_id, name)
        client.send(upgrade_request(**headers))
        status, _ = client.response()
        assert status == 101, f"the upgrade was answered with {status}"
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    # -- Out --

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(data)

    def dribble(self, data: bytes) -> None:
        """Send bytes as they are, each in a segment of its own."""
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(data)):
            self.send(data[index : index + 1])

    def say(self, type_: str, /, **data: Any) -> None:
        """Send a message."""
        self.send(text(type_, **data))

    def hello_bytes(self, **data: Any) -> bytes:
        """This user's HELLO in one frame."""
        return text("HELLO", **{"user_id": self.user_id, "display_name": self.name, **data})

    def hello(self, **data: Any) -> dict[str, Any]:
        """Say HELLO; the data of HELLO_ACK."""
        self.send(self.hello_bytes(**data))
        return self.receive("HELLO_ACK")

    def end_of_sending(self) -> None:
        """Close this side only (a TCP FIN)."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End the connection with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # -- In --

    def response(self) -> tuple[int, Mapping[str, str]]:
        """The status and the headers (names in lower case) of the HTTP response; what follows stays to be read."""
        deadline = time.monotonic() + PATIENCE
        while b"\r\n\r\n" not in self._received:
            self._read_more(deadline)
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        headers = dict(line.split(":", 1) for line in lines)
        return int(status_line.split()[1]), {name.lower(): value.strip() for name, value in headers.items()}

    def frame(self, timeout: float = PATIENCE) -> Frame:
        """The next frame, from the inbox if there is one. Raises Ended, or TimeoutError."""
        if self.inbox:
            return self.inbox.pop(0)
        return self._next(time.monotonic() + timeout)

    def receive(self, type_: str, /, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """The data of the next message of this type with these fields; what comes before it goes to the inbox, but no ERROR may."""
        for index, waiting in enumerate(self.inbox):
            if waiting.opcode == TEXT:
                kind, data = waiting.message()
                if kind == type_ and fields.items() <= data.items():
                    del self.inbox[index]
                    return data
        deadline = time.monotonic() + timeout
        while True:
            came = self._next(deadline)
            if came.opcode == TEXT:
                kind, data = came.message()
                if kind == type_ and fields.items() <= data.items():
                    return data
                assert kind != "ERROR", f"{type_} {fields or ''} was expected, this came: {data}"
            assert came.opcode != CLOSE, f"{type_} {fields or ''} was expected, this came: {came.close()}"
            self.inbox.append(came)

    def error(self, code: str, timeout: float = PATIENCE) -> dict[str, Any]:
        """The data of the next ERROR, which must have this code."""
        data = self.receive("ERROR", timeout)
        assert data["code"] == code, data
        return data

    def pong(self, payload: bytes, timeout: float = PATIENCE) -> None:
        """Wait for the pong with this payload; what comes before it goes to the inbox."""
        self._await(PONG, timeout, payload)

    def ping(self, timeout: float = PATIENCE) -> bytes:
        """Wait for a ping; its payload."""
        return self._await(PING, timeout).payload

    def closed(self, timeout: float = PATIENCE) -> tuple[int, str]:
        """Wait for the Close frame, answer it, then wait for the end of the connection; the code and the reason."""
        deadline = time.monotonic() + timeout
        code, reason = self._await(CLOSE, timeout).close()
        with suppress(OSError):
            self.send(client_frame(CLOSE, code.to_bytes(2, "big")))
        self.end(deadline - time.monotonic() + 1.0)
        return code, reason

    def end(self, timeout: float = PATIENCE) -> None:
        """Wait until the server has closed the TCP connection; no frame may come before. A reset is an end too."""
        deadline = time.monotonic() + timeout
        try:
            came = self._next(deadline)
        except Ended:
            return
        raise AssertionError(f"the end of the connection was expected, this came: {came}")

    def until_end(self, timeout: float = PATIENCE) -> None:
        """Read and forget whatever comes, until the server has closed the TCP connection. Raises TimeoutError if it does not."""
        deadline = time.monotonic() + timeout
        with suppress(Ended):
            while True:
                self._read_more(deadline)

    def everything(self) -> list[tuple[str, dict[str, Any]]]:
        """All messages that the server has sent so far; a ping's round trip makes sure of it. Close frames are not expected."""
        payload = os.urandom(8)
        self.send(client_frame(PING, payload))
        self.pong(payload)
        taken, self.inbox = self.inbox, []
        return [came.message() for came in taken if came.opcode == TEXT]

    def _await(self, opcode: int, timeout: float, payload: bytes | None = None) -> Frame:
        for index, waiting in enumerate(self.inbox):
            if waiting.opcode == opcode and payload in (None, waiting.payload):
                return self.inbox.pop(index)
        deadline = time.monotonic() + timeout
        while True:
            came = self._next(deadline)
            if came.opcode == opcode and payload in (None, came.payload):
                return came
            self.inbox.append(came)

    def _next(self, deadline: float) -> Frame:
        while (came := self._parse()) is None:
            self._read_more(deadline)
        return came

    def _parse(self) -> Frame | None:
        data = self._received
        if len(data) < 2:
            return None
        assert data[0] & 0x80, "the server fragments nothing"
        assert not data[0] & 0x70, "the server sets no reserved bit"
        assert not data[1] & 0x80, "a server's frames are not masked"
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start or len(data) < start + size:
            return None
        self._received = data[start + size :]
        return Frame(data[0] & 0x0F, data[start : start + size])

    def _read_more(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"nothing more came; unread: {self.inbox} {self._received!r}")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"nothing more came; unread: {self.inbox} {self._received!r}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            raise Ended(f"the server closed the connection; unread: {self.inbox} {self._received!r}")
        self._received += data
