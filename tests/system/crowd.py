"""Thousands of sockets in one process that say little or nothing: just sockets and epoll, from several of this machine's addresses."""

from __future__ import annotations

import errno
import resource
import select
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Self

import pytest

#: Sockets for each source address, or the ephemeral ports might not suffice.
PER_ADDRESS: Final = 1000
#: What this process has open beside them.
_OTHERS: Final = 500
#: Bytes that are kept of what each has received.
_KEPT: Final = 4096


def as_many_as(wanted: int, least: int) -> int:
    """How many sockets of `wanted` this process may have; it is allowed them by this. Skips the test when that is less than `least`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    possible = wanted if unlimited else min(wanted, hard - _OTHERS)
    if possible < least:
        pytest.skip(f"{least + _OTHERS} file descriptors are needed and {hard} are allowed: ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < possible + _OTHERS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible + _OTHERS, hard))
    if possible < wanted:
        print(f"{possible} sockets instead of {wanted}, since {hard} file descriptors are allowed")
    return possible


class Crowd:
    """`count` connections to a port on 127.0.0.1, from addresses that begin with `network`; a context manager.

    Each sends what `words` has for its index as soon as it is connected: who is many takes long to come, and must not have been silent
    for so long.
    """

    def __init__(
        self,
        port: int,
        count: int,
        words: Callable[[int], bytes] = lambda _: b"",
        network: str = "127.0.4",
        per_address: int = PER_ADDRESS,
    ) -> None:
        self._words = words
        self._poll = select.epoll()
        self._by_descriptor: dict[int, int] = {}
        self.sockets: list[socket.socket] = []
        #: The first bytes that each has received.
        self.received = [b""] * count
        #: Those that the server has ended, which are closed then.
        self.ended: set[int] = set()
        for index in range(count):
            sock = socket.socket()
            self.sockets.append(sock)
            sock.setsockopt(socket.SOL_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
            sock.bind((f"{network}.{1 + index // per_address}", 0))
            sock.setblocking(False)
            error = sock.connect_ex(("127.0.0.1", port))
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            self._by_descriptor[sock.fileno()] = index
            if error == 0:
                self._connected(index)
            self._poll.register(sock, select.EPOLLIN if error == 0 else select.EPOLLOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._poll.close()
        for sock in self.sockets:
            sock.close()

    def _connected(self, index: int) -> None:
        """It sends its words, which a new socket takes at once; that the server has ended it already is seen at the next look."""
        if words := self._words(index):
            with suppress(ConnectionError):
                self.sockets[index].send(words)

    def look(self) -> None:
        """Take in what has come."""
        for descriptor, events in self._poll.poll(0, len(self.sockets)):
            index = self._by_descriptor[descriptor]
            sock = self.sockets[index]
            try:
                if events == select.EPOLLOUT:
                    self._poll.modify(sock, select.EPOLLIN)
                    self._connected(index)
                    continue
                data = sock.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                self.received[index] = (self.received[index] + data)[:_KEPT]
            else:
                self.ended.add(index)
                self._poll.unregister(sock)
                sock.close()

    def leave(self, indices: Iterable[int]) -> None:
        """These close."""
        for index in indices:
            if index not in self.ended:
                self.ended.add(index)
                self._poll.unregister(self.sockets[index])
                self.sockets[index].close()
