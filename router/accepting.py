"""Accepts the connections of listening sockets, and can pause: who connects meanwhile waits in the backlog.

asyncio's servers can only end, and with its listener goes the backlog. The supervisor becomes another program while it listens
(``router.supervisor.upgrade``), and every connection that was accepted by then has to be served by the one before.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

#: Connections that are accepted before others have their turn.
_BATCH: Final = 32
#: Seconds without accepting when the system has nothing left for a connection.
_REST: Final = 1.0


class Accepting:
    """Calls `connected` with each connection, which is non-blocking, from `start` on. The listeners are closed by `close`."""

    def __init__(
        self, listeners: Sequence[socket.socket], connected: Callable[[socket.socket], None]
    ) -> None:
        self.listeners = listeners
        for listener in listeners:
            listener.setblocking(False)
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._rests: set[asyncio.TimerHandle] = set()
        self._closed = False

    def start(self) -> None:
        """Begin, or go on after a pause."""
        if self._closed:
            return
        for listener in self.listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def pause(self) -> None:
        """Accept nothing more."""
        for rest in self._rests:
            rest.cancel()
        self._rests.clear()
        for listener in self.listeners:
            self._loop.remove_reader(listener.fileno())

    def close(self) -> None:
        """End, and refuse who waits."""
        if self._closed:
            return
        self.pause()
        self._closed = True
        for listener in self.listeners:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # Most likely there is no descriptor left, and the listener stays readable: who waits is asked again a little later.
                self._loop.remove_reader(listener.fileno())
                self._rests = {rest for rest in self._rests if rest.when() > self._loop.time()}
                self._rests.add(
                    self._loop.call_later(_REST, self._loop.add_reader, listener, self._accept, listener)
                )
                return
            connection.setblocking(False)
            self._connected(connection)
