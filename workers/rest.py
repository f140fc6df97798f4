"""How a worker process comes to rest before its clients go to others: it reads from none of them, and all have their answers."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from core.chat.shard import Shard
from core.process.control import RESTART_REASON
from core.process.succession import NOT_MOVED
from core.wire.protocol import CloseCode
from workers.connection import Connection
from workers.connections import Connections

#: Seconds in which what is under way has to come to an end, and between two looks.
PATIENCE: Final = 2.0
POLL: Final = 0.002
#: Seconds of those that a client has for the rest of a frame.
_FRAME_PATIENCE: Final = 0.5


class Stays(Exception):
    """The process goes on serving; the message says why, as a part of a sentence."""


class Rest:
    """Use it once: `come`, then `movable`."""

    def __init__(self, shard: Shard, connections: Connections) -> None:
        self._shard = shard
        self._connections = connections
        #: When it stopped reading from clients.
        self.began_at = 0.0
        #: Since when a client has been in the middle of a frame.
        self._halves_since: float | None = None

    async def come(self) -> None:
        """Stop reading from clients, and wait until they have their answers. Raises Stays; then `Connections.thaw`."""
        self.began_at = monotonic()
        self._connections.freeze()
        deadline = self.began_at + PATIENCE
        while (busy := self._asked()) is not None:
            if monotonic() >= deadline:
                raise Stays(busy)
            await asyncio.sleep(POLL)

    def movable(self) -> list[Connection]:
        """Close the connections that are in the middle of a frame, and return all others."""
        movable, halves = self._connections.movable()
        self._close(halves)
        return movable

    def _asked(self) -> str | None:
        """Return what clients wait for, or who is in the middle of a frame; None if nothing."""
        open_requests = len(self._shard.exchange) + self._shard.messages.open
        movable, halves = self._connections.movable()
        waiting = sum(not connection.session.is_settled for connection in movable)
        if open_requests or waiting or self._connections.adopting:
            return f"{open_requests} requests, {waiting} connections with commands that wait"
        if halves and self._frame_deadline_passed():
            self._close(halves)
            return None
        return f"{len(halves)} connections in the middle of a frame" if halves else None

    def _frame_deadline_passed(self) -> bool:
        now = monotonic()
        if self._halves_since is None:
            self._halves_since = now
        return now >= self._halves_since + _FRAME_PATIENCE

    def _close(self, halves: list[Connection]) -> None:
        now = monotonic()
        self._shard.counters[NOT_MOVED] += len(halves)
        for connection in halves:
            connection.session.close(CloseCode.RESTARTING, RESTART_REASON, now)
