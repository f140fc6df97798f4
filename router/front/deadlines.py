"""Deadlines of one length for many connections, without a timer for each.

All deadlines of one kind are equally long, so the order in which they start is the order in which they expire, and a dict keeps it:
starting and cancelling are one look-up each, and a tick looks no further than the first that has time left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.chat.stalls import later

Connection = TypeVar("Connection")


class Deadlines(Generic[Connection]):
    """Calls `expired(connection)` once `seconds` have passed since `start`, unless it was cancelled; right to a tick.

    The connection is still known here then, so `expired` can see whether something that it does has cancelled the deadline after all.
    """

    __slots__ = ("_due", "_expired", "seconds")

    def __init__(self, seconds: float, expired: Callable[[Connection], None]) -> None:
        self.seconds = seconds
        self._expired = expired
        #: connection -> when its time is up, in the order of that time.
        self._due: dict[Connection, float] = {}

    def start(self, connection: Connection, now: float) -> None:
        """Start the deadline of a connection that has none running here."""
        self._due[connection] = now + self.seconds

    def cancel(self, connection: Connection) -> None:
        """Forget a connection; nothing happens when it is not known."""
        self._due.pop(connection, None)

    def stood_still(self, seconds: float, now: float) -> None:
        """Note that the process stood still for so long, until now (``core.chat.stalls``)."""
        for connection, due in self._due.items():
            self._due[connection] = later(due, seconds, now + self.seconds)

    def expire(self, now: float) -> None:
        """Expire everything whose time is up; to be called regularly."""
        late = []
        for connection, due in self._due.items():
            if due > now:
                break
            late.append(connection)
        for connection in late:
            # One that was cancelled by what happened to another before it is not late any more.
            if connection in self._due:
                self._expired(connection)
                self.cancel(connection)

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[Connection]:
        """Return all connections with a running deadline, as of now: what happens to them meanwhile does no harm."""
        return iter(list(self._due))

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._due
