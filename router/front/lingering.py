"""Connections that have been told the last thing they will hear.

Closing a socket in which bytes wait unread makes the kernel send RST, and that destroys what the client has not read yet: the very answer
that says what was wrong. So the server says that it has finished (FIN), throws away what still comes, and closes when the client
has closed too, after a moment, or when a client goes on and on.

An answer to a request, or to the client's own Close frame, is followed by FIN at once. Behind a Close frame of ours FIN waits for the
client's, or for the end of that moment: a proxy that reads FIN tears down both sides, with the client's answer on its way, and the client
reads 1006 instead of the code (D28).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

from core.wire.frames import CloseWatch
from router.front.deadlines import Deadlines

#: Bytes of one connection that are thrown away before it is closed the hard way.
_BYTES_MAX: Final = 1024 * 1024
#: Seconds that a client has to read its answer and close.
LINGER_SECONDS: Final = 2.0
#: SO_LINGER, switched on, with a time of 0.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class _Ending:
    """How far the end of one connection is."""

    __slots__ = ("close_watch", "discarded", "is_shared")

    def __init__(self, close_watch: CloseWatch | None, is_shared: bool) -> None:
        #: Looks for the client's Close frame; None when FIN has been said.
        self.close_watch = close_watch
        #: Another process may have the socket too: it is not read from, and its end is one for both.
        self.is_shared = is_shared
        #: Bytes that were thrown away.
        self.discarded = 0


class Lingering:
    """Takes over sockets that are to be closed with an answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._endings: dict[socket.socket, _Ending] = {}
        self._deadlines: Deadlines[socket.socket] = Deadlines(LINGER_SECONDS, self._close)
        self._scrap = memoryview(bytearray(64 * 1024))

    def add(self, client: socket.socket, last_words: bytes, now: float, *, awaits_close: bool) -> bool:
        """Write `last_words`, then close in good order; the socket is no longer the caller's.

        `awaits_close`: they are a Close frame that the client has not sent one before. False when they did not fit: the client does not
        read, and the connection was reset.
        """
        try:
            written = client.send(last_words)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            if not awaits_close:
                client.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            written = 0
        except OSError:
            client.close()
            return True
        if written != len(last_words):
            reset(client)
            return False
        self._start(client, _Ending(CloseWatch() if awaits_close else None, is_shared=False), now)
        return True

    def share(self, client: socket.socket, now: float) -> None:
        """Close a socket in good order behind a Close frame, which has been written, though a worker may have a copy of it."""
        self._start(client, _Ending(None, is_shared=True), now)

    def tick(self, now: float) -> None:
        """Close those that had their time."""
        self._deadlines.expire(now)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the front stood still (``core.chat.stalls``)."""
        self._deadlines.stood_still(seconds, now)

    def cut_short(self) -> None:
        """Close all, whether they had their time or not."""
        for client in list(self._endings):
            self._close(client)

    def __len__(self) -> int:
        return len(self._endings)

    def _start(self, client: socket.socket, ending: _Ending, now: float) -> None:
        self._endings[client] = ending
        self._deadlines.start(client, now)
        read = self._peek if ending.is_shared else self._discard
        self._loop.add_reader(client.fileno(), read, client, ending)

    def _discard(self, client: socket.socket, ending: _Ending) -> None:
        try:
            size = client.recv_into(self._scrap)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        ending.discarded += size
        if not size or ending.discarded > _BYTES_MAX:
            self._close(client)
        elif ending.close_watch is not None and ending.close_watch.feed(self._scrap[:size]):
            ending.close_watch = None
            with suppress(OSError):  # it is broken, which the next look will find
                client.shutdown(socket.SHUT_WR)

    def _peek(self, client: socket.socket, ending: _Ending) -> None:
        """Do the same without taking anything from who has the socket too."""
        try:
            size = client.recv_into(self._scrap, 0, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size or CloseWatch().feed(self._scrap[:size]):
            self._close(client)
        elif size == len(self._scrap):
            self._loop.remove_reader(client.fileno())  # what is behind can't be seen
        else:
            # Nothing takes the bytes away: be woken only when there are more.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size + 1)

    def _close(self, client: socket.socket) -> None:
        self._loop.remove_reader(client.fileno())
        self._deadlines.cancel(client)
        if self._endings.pop(client).is_shared:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        client.close()


def reset(client: socket.socket) -> None:
    """Close with RST: the kernel keeps nothing of what the client has not read."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    client.close()
