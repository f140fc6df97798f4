"""Connections that have been told the last thing they will hear.

Closing a socket in which bytes wait unread makes the kernel send RST, and that destroys what the client has not read yet: the very answer
that says what was wrong. So the server says that it has finished (FIN), throws away what still comes, and closes when the client
has closed too, after a moment, or when a client goes on and on.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from router.deadlines import Deadlines
from router.peeked_socket import reset

#: Bytes of one connection that are thrown away before it is closed the hard way.
_BYTES_MAX: Final = 1024 * 1024
#: Seconds that a client has to read its answer and close.
LINGER_SECONDS: Final = 2.0


class Lingering:
    """Takes over sockets that are to be closed with an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        #: socket -> bytes of it that were thrown away.
        self._discarded: dict[socket.socket, int] = {}
        self._deadlines: Deadlines[socket.socket] = Deadlines(LINGER_SECONDS, self._close)
        self._scrap = memoryview(bytearray(64 * 1024))

    def add(self, client: socket.socket, last_words: bytes, now: float) -> bool:
        """Write `last_words`, then close in good order; the socket is no longer the caller's.

        False when they did not fit: the client does not read, and the connection was reset.
        """
        try:
            written = client.send(last_words)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            client.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            written = 0
        except OSError:
            client.close()
            return True
        if written != len(last_words):
            reset(client)
            return False
        self._discarded[client] = 0
        self._deadlines.start(client, now)
        self._loop.add_reader(client.fileno(), self._discard, client)
        return True

    def stood_still(self, seconds: float, now: float) -> None:
        """The front stood still (``core.stalls``)."""
        self._deadlines.stood_still(seconds, now)

    def tick(self, now: float) -> None:
        """Close those that had their time."""
        self._deadlines.expire(now)

    def __len__(self) -> int:
        return len(self._discarded)

    def _discard(self, client: socket.socket) -> None:
        try:
            size = client.recv_into(self._scrap)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._discarded[client] += size
        if not size or self._discarded[client] > _BYTES_MAX:
            self._close(client)

    def _close(self, client: socket.socket) -> None:
        self._loop.remove_reader(client.fileno())
        self._deadlines.cancel(client)
        del self._discarded[client]
        client.close()
