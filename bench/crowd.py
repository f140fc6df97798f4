"""Thousands of connections in one process that mostly do nothing, for measuring what an idle one costs, storms, and presence.

Just sockets and epoll, since a machine with two cores has the server to run too. The clients come from several loopback addresses, or
the ephemeral ports might not suffice.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
from base64 import b64encode
from collections.abc import Container, Iterable, Sequence
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

#: Clients for each source address.
_PER_ADDRESS: Final = 1000
#: Seconds after which what has not been answered never will be.
_PATIENCE: Final = 60.0
#: Seconds after which nothing comes any more.
_SILENCE: Final = 5.0
#: The server's heartbeat, which closes who does not answer it (D27), and the answer, masked with zeros.
_HEARTBEAT: Final = b"\x89\x06alive?"
_ALIVE: Final = b"\x8a\x86" + bytes(4) + b"alive?"
#: What is kept of what a client got, to find an answer that comes in pieces.
_TAIL: Final = 32


def text_frame(kind: str, **data: object) -> bytes:
    """Return a message as a client sends it: masked."""
    payload = json.dumps({"type": kind, "data": data}).encode()
    size = len(payload)
    head = bytes([0x81, 0x80 | size]) if size < 126 else b"\x81\xfe" + struct.pack("!H", size)
    # A mask of zeros is one, and leaves the bytes as they are.
    return head + bytes(4) + payload


class Crowd:
    """Clients by the index of their user."""

    def __init__(self, url: str, users: Sequence[str]) -> None:
        parts = urlsplit(url)
        assert parts.port is not None, url
        self._port = parts.port
        self.users = users
        self._sockets: dict[int, socket.socket] = {}
        #: Of everybody, to see who has got something.
        self._poll = select.epoll()
        self._by_descriptor: dict[int, int] = {}

    def connect(self, indices: Sequence[int], receive_buffer: int = 0) -> list[float]:
        """Connect all at once, each saying HELLO right behind its upgrade; seconds until each has its HELLO_ACK. Raises RuntimeError.

        `receive_buffer` is how many bytes the kernel keeps for who does not read; 0 leaves that to the kernel.
        """
        requests = {}
        for index in indices:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.bind((f"127.0.0.{2 + index // _PER_ADDRESS}", 0))
            sock.setblocking(False)
            error = sock.connect_ex(("127.0.0.1", self._port))
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            self._sockets[index] = sock
            hello = text_frame("HELLO", user_id=self.users[index], display_name=f"User {index}")
            requests[index] = upgrade() + hello
        times = self.exchange(requests, b'"HELLO_ACK"')
        for index in indices:
            descriptor = self._sockets[index].fileno()
            self._by_descriptor[descriptor] = index
            self._poll.register(descriptor, select.EPOLLIN)
        return times

    def exchange(self, requests: dict[int, bytes], answer: bytes) -> list[float]:
        """Send each client's request as soon as it can; seconds until each has got something with `answer` in it. Raises RuntimeError."""
        began, times = monotonic(), []
        with select.epoll() as poll:
            waiting = {self._sockets[index].fileno(): index for index in requests}
            received = dict.fromkeys(requests, b"")
            unsent = dict(requests)
            for descriptor in waiting:
                poll.register(descriptor, select.EPOLLOUT)
            while waiting:
                if monotonic() > began + _PATIENCE:
                    raise RuntimeError(
                        f"{len(waiting)} of {len(requests)} clients have got no {answer.decode()}"
                    )
                for descriptor, _ in poll.poll(1.0):
                    index = waiting[descriptor]
                    if index in unsent:
                        self._sockets[index].sendall(unsent.pop(index))
                        poll.modify(descriptor, select.EPOLLIN)
                        continue
                    data = self._read(self._sockets[index])
                    if not data:
                        raise RuntimeError(f"the server closed a connection: {received[index]!r}")
                    seen = received[index] + data
                    if answer in seen:
                        poll.unregister(descriptor)
                        del waiting[descriptor]
                        times.append(monotonic() - began)
                    received[index] = seen[-_TAIL:]
        return times

    def send(self, index: int, frame: bytes) -> None:
        """Send a frame."""
        self._sockets[index].sendall(frame)

    def drain(self, indices: Container[int] | None = None) -> int:
        """Read and forget what has come to everybody, or to some; bytes. Raises RuntimeError if the server has closed a connection."""
        total = 0
        for descriptor, _ in self._poll.poll(0):
            index = self._by_descriptor[descriptor]
            if indices is not None and index not in indices:
                continue
            data = self._read(self._sockets[index])
            if not data:
                raise RuntimeError("the server closed a connection")
            total += len(data)
        return total

    @staticmethod
    def _read(sock: socket.socket) -> bytes:
        """Read what has come to one client, and answer a heartbeat in it."""
        data = sock.recv(65536)
        if _HEARTBEAT in data:
            sock.sendall(_ALIVE)
        return data

    def count(self, index: int, hello: bytes, what: bytes, enough: int) -> int:
        """Connect a client again and read until `what` has come `enough` times, or nothing comes any more; how often it came."""
        found, rest = 0, b""
        with socket.create_connection(("127.0.0.1", self._port), _PATIENCE) as sock:
            sock.sendall(upgrade() + hello)
            sock.settimeout(_SILENCE)
            while found < enough:
                try:
                    data = sock.recv(65536)
                except TimeoutError:
                    break
                if not data:
                    break
                seen = rest + data
                found += seen.count(what)
                rest = seen[-len(what) + 1 :]
        return found

    def leave(self, indices: Iterable[int]) -> None:
        """Close connections without a Close frame, as when the network goes away."""
        for index in indices:
            sock = self._sockets.pop(index)
            self._poll.unregister(sock)
            del self._by_descriptor[sock.fileno()]
            sock.close()

    def leave_all(self) -> None:
        """Close all."""
        self.leave(list(self._sockets))


def upgrade() -> bytes:
    """Return the request for an upgrade."""
    key = b64encode(os.urandom(16)).decode()
    return (
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
