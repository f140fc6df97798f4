"""The terminal that the server was started in, which ends it by being closed.

SIGHUP alone does not tell: to the server it means that keys are to be read again, and when a terminal is closed the kernel sends it to the
session's leader only, which may be make. So the terminal itself is watched. Whoever starts the server with nohup, which leaves SIGHUP
ignored, wants it to outlive the terminal.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Callable


class Terminal:
    """Calls `closed` once when the controlling terminal is hung up, if there is one. Create it before SIGHUP gets a handler."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, closed: Callable[[], None], taken_up: int | None = None
    ) -> None:
        """Watch the descriptor that another program has watched; None if there is no such program, and -1 if it has watched none."""
        self._loop = loop
        self._closed = closed
        self._watched: select.epoll | None = None
        self._descriptor = _open() if taken_up is None else taken_up
        if self._descriptor == -1:
            return
        # What people type is none of ours. A hang-up is told also to who asks for nothing, but the loop always asks for input.
        self._watched = select.epoll()
        self._watched.register(self._descriptor, 0)
        loop.add_reader(self._watched.fileno(), self._hung_up)

    @property
    def descriptor(self) -> int:
        """What is watched; -1 for nothing."""
        return self._descriptor

    def close(self) -> None:
        """Watch it no more."""
        if self._watched is not None:
            self._loop.remove_reader(self._watched.fileno())
            self._watched.close()
            self._watched = None
            os.close(self._descriptor)
            self._descriptor = -1

    def _hung_up(self) -> None:
        self.close()
        self._closed()


def _open() -> int:
    """Open the terminal; -1 if there is none, or if its end is none of ours."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return -1
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1  # as in a service
