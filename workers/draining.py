"""Closes the connections of a worker one after the other, so that their clients come back to other servers without a storm.

The closes are spread evenly over the seconds of the drain. Before a close the client is not read from any more, and what it has asked for
is decided and answered: a client that sends while it is told to go would otherwise not know what became of its last messages. That takes a
commit, or 5 s in the worst case, after which the core answers MESSAGE_FAILED (D26).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

from core.process.control import RESTART_REASON
from core.wire.protocol import CloseCode

#: Seconds over which clients that are closed in one tick come back, at random. The closes themselves are spread, so it need not be long.
RETURN_SPREAD: Final = 1.0
#: Seconds that a connection has until what it has asked for is decided; the core decides everything within 5 s.
SETTLE_PATIENCE: Final = 5.5
#: Seconds between two ticks that count at most: a worker that stood still spreads the rest over what is left, and closes none in a heap.
_TICK_MAX: Final = 0.5


class Leaving(Protocol):
    """The session of a connection that is to be closed (``core.chat.session``)."""

    closed: bool

    def stop_reading(self) -> None:
        """Read nothing more from the client."""

    @property
    def is_settled(self) -> bool:
        """Whether everything that the client has asked for is decided."""

    def close(self, code: int, reason: str, now: float, delay: float | None = None) -> None:
        """Close the connection, and tell the client to reconnect after so many seconds."""


class Drained(Protocol):
    """A connection that is to be closed."""

    @property
    def session(self) -> Leaving: ...


class Draining:
    """The drain of one worker: `tick` several times a second. `chance` returns numbers from 0 to 1, 1 excluded."""

    def __init__(
        self, connections: Iterable[Drained], seconds: float, now: float, chance: Callable[[], float]
    ) -> None:
        self._until = now + seconds
        self._last = now
        self._chance = chance
        #: Who is still to be told, in order; and who is not read from any more, until when at the latest.
        self._waiting: dict[Drained, None] = dict.fromkeys(connections)
        self._settling: dict[Drained, float] = {}
        #: The part of a close that is due.
        self._due = 0.0

    def add(self, connection: Drained) -> None:
        """Drain a connection too that was on its way when the drain began."""
        self._waiting[connection] = None

    def forget(self, connection: Drained) -> None:
        """Forget a connection that is gone."""
        self._waiting.pop(connection, None)
        self._settling.pop(connection, None)

    def tick(self, now: float) -> None:
        """Begin with those that are due, and close those that are settled."""
        for connection in self._take_due(now):
            connection.session.stop_reading()
            self._settling[connection] = now + SETTLE_PATIENCE
        for connection, until in list(self._settling.items()):
            session = connection.session
            if session.closed or session.is_settled or now >= until:
                del self._settling[connection]
                if not session.closed:
                    session.close(CloseCode.RESTARTING, RESTART_REASON, now, self._chance() * RETURN_SPREAD)

    def _take_due(self, now: float) -> list[Drained]:
        elapsed, self._last = min(now - self._last, _TICK_MAX), now
        left = self._until - now
        count = len(self._waiting)
        if left > 0.0:
            self._due += count * elapsed / (left + elapsed)
            count = min(count, math.floor(self._due))
            self._due -= count
        due = list(islice(self._waiting, count))
        for connection in due:
            del self._waiting[connection]
        return due
