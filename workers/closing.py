"""A connection between our Close frame and its end: reads and forgets, looks for the client's Close frame, and then says FIN.

RFC 6455 has the server close the TCP connection once both Close frames have been sent (7.1.1). A FIN behind our own Close frame alone
would end it too early: a proxy that reads it tears down both sides, with the client's answer on its way, and the client reads 1006 instead
of the code (D28). And a close with unread data would become a reset, which may destroy the Close frame; so all that comes is read.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from core.wire.frames import CloseWatch


class Closed(Protocol):
    """A connection that has been told its last frame."""

    def send_fin(self) -> None:
        """Send FIN: both sides have sent a Close frame."""

    def gone(self) -> None:
        """Note that the TCP connection has ended."""


class Closing(asyncio.BufferedProtocol):
    """Takes the place of picows on a connection that has been told its last frame."""

    __slots__ = ("_connection", "_scrap", "_watch")

    def __init__(self, connection: Closed, scrap: memoryview, answered: bool) -> None:
        """`scrap` is where bytes go that nobody wants; `answered`: the client's Close frame has come already."""
        self._connection = connection
        self._scrap = scrap
        self._watch = None if answered else CloseWatch()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scrap

    def buffer_updated(self, nbytes: int) -> None:
        if self._watch is not None and self._watch.feed(self._scrap[:nbytes]):
            self._watch = None
            self._connection.send_fin()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.gone()

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass
