"""Clients for many messages: a hundred thousand frames in seconds, out and in, from one thread. They know only the wire."""

from __future__ import annotations

import fcntl
import json
import select
import socket
import struct
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.system.raw_client import PING, TEXT, Ended, Frame, RawClient, client_frame

#: Seconds that the whole of a crowd may take.
PATIENCE: Final = 60.0
_CHUNK: Final = 256 * 1024


def quick_text(type_: str, /, **data: Any) -> bytes:
    """A message in one frame, masked with zeros: a valid mask, and the only one that costs nothing here."""
    payload = json.dumps({"type": type_, "data": data}).encode()
    size = len(payload)
    head = (
        bytes([0x80 | TEXT, 0x80 | size])
        if size < 126
        else struct.pack("!BBH", 0x80 | TEXT, 0x80 | 126, size)
    )
    return head + bytes(4) + payload


class Frames:
    """Takes bytes and gives the frames that are complete."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes."""
        data = self._data + data
        start, end = 0, len(data)
        while end - start >= 2:
            size, head = data[start + 1], 2
            if size == 126:
                size, head = int.from_bytes(data[start + 2 : start + 4], "big"), 4
            elif size == 127:
                size, head = int.from_bytes(data[start + 2 : start + 10], "big"), 10
            if end - start < head + size:
                break
            yield Frame(data[start] & 0x0F, data[start + head : start + head + size])
            start += head + size
        self._data = data[start:]


def send_all(
    clients: Sequence[RawClient], batches: Sequence[bytes], answers: Sequence[int]
) -> list[list[Frame]]:
    """Each client sends its batch as fast as it is taken, and reads until it has as many messages as it has `answers` to get; these.

    PRESENCE does not count. AssertionError when it takes too long, Ended when the server closes a connection.
    """
    by_descriptor = {client.socket.fileno(): index for index, client in enumerate(clients)}
    left = [memoryview(batch) for batch in batches]
    parsers = [Frames() for _ in clients]
    found: list[list[Frame]] = [[] for _ in clients]
    poll = select.poll()
    for client in clients:
        client.socket.setblocking(False)
        poll.register(client.socket, select.POLLIN | select.POLLOUT)
    deadline = time.monotonic() + PATIENCE
    while by_descriptor:
        assert time.monotonic() < deadline, (
            f"got {[len(frames) for frames in found]} answers of {list(answers)}"
        )
        for descriptor, event in poll.poll(1000):
            index = by_descriptor[descriptor]
            client = clients[index]
            if event & select.POLLOUT:
                left[index] = left[index][client.socket.send(left[index][:_CHUNK]) :]
                if not left[index]:
                    poll.modify(client.socket, select.POLLIN)
            if event & ~select.POLLOUT:
                data = client.socket.recv(_CHUNK)
                if not data:
                    raise Ended(f"the server closed the connection after {len(found[index])} answers")
                frames = parsers[index].feed(data)
                found[index] += [
                    f for f in frames if f.opcode == TEXT and b'"PRESENCE"' not in f.payload[:24]
                ]
                if len(found[index]) >= answers[index] and not left[index]:
                    poll.unregister(client.socket)
                    del by_descriptor[descriptor]
    return found


class SlowReader:
    """Reads a connection in small portions. What comes in a portion is given as frames, pongs and pings left out."""

    def __init__(self, client: RawClient, portion: int) -> None:
        self._client = client
        self._portion = portion
        self._frames = Frames()

    def waiting(self) -> int:
        """Bytes that have come and were not read."""
        number = fcntl.ioctl(self._client.socket, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", number)[0])

    def portion(self, timeout: float = 10.0) -> list[Frame]:
        """The next portion, less if less has come; and a ping, since a client from which nothing is heard is taken for dead (D27)."""
        sock: socket.socket = self._client.socket
        self._client.send(client_frame(PING, b"here"))
        sock.settimeout(timeout)
        data = sock.recv(self._portion)
        if not data:
            raise Ended("the server closed the connection")
        return [frame for frame in self._frames.feed(data) if frame.opcode < PING]
