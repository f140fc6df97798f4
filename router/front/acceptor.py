"""Takes new connections from the listeners."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from typing import Any, Final

from core.events import fields
from router.front.sockets import now

_log = logging.getLogger("fastchat.front")

#: Connections taken from one listener before others have their turn.
_BATCH: Final = 32
#: Batches of one listener that are taken at the end: more than a backlog has. Who still comes then is refused.
_REST_BATCHES: Final = 256
#: The process or the machine has no descriptor or memory for one more: nothing that accepting again at once would mend.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Descriptors that are left for others than newcomers: ways to workers that were started again, and pages. What accepting takes of them
#: after all, one at a time, is free again after the ten seconds that a connection has here.
_SPARE_DESCRIPTORS: Final = 128
#: Seconds without accepting when there are too few. Who wants to connect meanwhile waits in the kernel's backlog.
_PAUSE: Final = 0.25
#: Seconds between two log lines that say so.
_LOG_INTERVAL: Final = 10.0


class Acceptor:
    """Gives every new connection to `welcome`, as a non-blocking socket and its address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listeners: list[socket.socket],
        welcome: Callable[[socket.socket, Any], None],
        count: Callable[[str], None],
    ) -> None:
        """Take over `listeners`, which belong to the acceptor from now on."""
        self._loop = loop
        self._listeners = listeners
        self._welcome = welcome
        self._count = count
        self._next_log = 0.0
        self._closed = False
        #: The kernel gives the lowest number that is free, so one from here on says that few are left.
        self._full_from = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS
        for listener in listeners:
            listener.setblocking(False)
            # A message is one write, so waiting for more would only delay it. Accepted sockets inherit this.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Begin to accept."""
        if not self._closed:
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def take_rest(self) -> None:
        """Accept those that wait in the backlogs, since nobody listens on these sockets after this process: the kernel would reset them."""
        for listener in self._listeners:
            for _ in range(_REST_BATCHES):
                if not self._accept(listener):
                    break

    def close(self) -> None:
        """Accept no more, and close this process's copies of the listeners."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: socket.socket) -> bool:
        """Accept a batch; whether more may wait."""
        for _ in range(_BATCH):
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(error.strerror)
                    return False
                continue  # that one connection failed before it was taken (accept(2) lists many reasons), the next may not
            descriptor = client.fileno()
            client.setblocking(False)
            self._welcome(client, address)
            if descriptor >= self._full_from:
                self._pause(os.strerror(errno.EMFILE))
                return False
        return True

    def _pause(self, reason: str | None) -> None:
        self._count("front_accept_pauses_total")
        if now() >= self._next_log:
            self._next_log = now() + _LOG_INTERVAL
            _log.warning("can't accept connections for a moment", extra=fields(reason=reason))
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        self._loop.call_later(_PAUSE, self.start)
