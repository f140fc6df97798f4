"""A network that can be cut: a TCP proxy on localhost, in a thread.

`stall` holds all bytes of the connections that there are, in both directions, without closing anything, as a train in a tunnel does: only a
heartbeat finds out. New connections fail until `restore`. `cut` resets all connections.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import Final, Self

_CHUNK: Final = 65536


class StallingProxy:
    """Passes on what comes to `port` to the port of a server. A context manager."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        #: Each end of a connection -> the other one.
        self._other: dict[socket.socket, socket.socket] = {}
        self._lock = threading.Lock()
        self._is_open = True
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
        with self._lock:
            for end in list(self._other):
                self._close(end)
        self._selector.close()
        self._listener.close()

    def stall(self) -> None:
        """Nothing goes through any more; nobody is told."""
        with self._lock:
            self._is_open = False
            for end in self._other:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(end)

    def restore(self) -> None:
        """New connections go through; those that were stalled never will."""
        with self._lock:
            self._is_open = True

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            for end in list(self._other):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._close(end)

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.05):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                with self._lock:
                    if end is self._listener:
                        self._accept()
                    elif end in self._other:
                        self._pass_on(end)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if not self._is_open:
            client.close()
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        for end, other in ((client, server), (server, client)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._other[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(_CHUNK)
            if data:
                self._other[end].sendall(data)
                return
        except OSError:
            pass
        self._close(end)
        # What follows the end of one direction does not matter to the chat: both are closed.

    def _close(self, end: socket.socket) -> None:
        other = self._other.pop(end, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(end)
        end.close()
        if other is not None:
            self._close(other)
