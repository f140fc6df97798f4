"""All connections of a worker: takes their sockets over, knows who is here, refuses for want of memory, and closes all at the end.

`Connections` is also what the connections share (``workers.connection.Host``).
"""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from core.chat.shard import Shard
from core.events import fields
from core.process.control import DRAINED, MEMORY_FULL
from core.process.handover import IN_FLIGHT_MAX, Ticket
from core.wire.protocol import CloseCode
from workers.address_counts import AddressCounts
from workers.adoption import adopt, adopt_unread
from workers.connection import Connection
from workers.draining import Draining
from workers.heartbeat import TimerWheel
from workers.host import Host
from workers.inheritance import feed, is_movable, restore
from workers.memory_ceiling import MemoryCeiling
from workers.rounds import Rounds
from workers.slow_readers import SlowReaders
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")

#: Descriptors that a worker keeps for itself and for sockets on their way: several fronts may have their fill in flight at once.
_SPARE_DESCRIPTORS: Final = 4 * IN_FLIGHT_MAX
#: Seconds between two looks at who has not ended.
_LOOK: Final = 0.01
_NO_MEMORY: Final = "this server has no memory for more; reconnect later"


class Connections:
    """Those of one worker. Make it within its event loop."""

    def __init__(
        self,
        shard: Shard,
        turn: Turn,
        memory: MemoryCeiling,
        counts: AddressCounts | None,
        make: Callable[[Host[Connection], Ticket, float], Connection],
    ) -> None:
        """Start without any. `counts` is where connections are counted by address, when a limit asks for it; `make` makes a connection."""
        self.shard = shard
        self.turn = turn
        self.rounds = Rounds(asyncio.get_running_loop(), turn.schedule)
        self.wheel = TimerWheel(monotonic())
        self.slow_readers = SlowReaders(monotonic())
        self.scrap = memoryview(bytearray(64 * 1024))
        self.writes = 0
        self.frames = 0
        self.frozen = False
        self._memory = memory
        self._counts = counts
        self._make = make
        self._open: set[Connection] = set()
        #: Tasks that hand a socket to the event loop; the loop itself keeps only weak references.
        self._adopting: set[asyncio.Task[None]] = set()
        self._max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS
        #: Connections that were refused for want of memory.
        self._refused = 0
        #: Bytes that waited for clients to read them, at the last sample.
        self._outbox = 0
        #: Code and reason with which all are closed, once they are; and set when the last one has gone after that.
        self._closing: tuple[int, str] | None = None
        self._empty = asyncio.Event()
        #: Once all are to be closed one after the other.
        self._draining: Draining | None = None

    # -- Coming --

    def capacity(self) -> int:
        """Return how many more sockets can be taken over now."""
        return self._max - len(self._open) - len(self._adopting)

    def adopt(self, ticket: Ticket, client: socket.socket) -> None:
        """Take over a socket that a front has handed over."""
        if self._counts is not None:
            self._counts.enter(ticket)
        task = asyncio.get_running_loop().create_task(self._adopt(ticket, client))
        self._adopting.add(task)
        task.add_done_callback(self._adopted)

    def _adopted(self, task: asyncio.Task[None]) -> None:
        self._adopting.discard(task)
        self._note_empty()

    async def _adopt(self, ticket: Ticket, client: socket.socket) -> None:
        client.setblocking(False)
        now = monotonic()
        connection = self._make(self, ticket, now)
        refused = self._memory.full
        if refused:
            self._refused += 1
            # So that the HELLO that comes along makes no user of it.
            connection.session.abandon(now)
        try:
            await adopt(connection, client, ticket.carried)
        except OSError as error:
            about = fields(
                connection=ticket.label, user=ticket.user_id, address=ticket.address, reason=error.strerror
            )
            _log.info("a client was gone before it could be taken over", extra=about)
            client.close()
            if self._counts is not None and connection not in self._open:
                self._counts.leave(ticket.address)
            return
        if refused:
            self.shard.count_close("server", int(CloseCode.TRY_AGAIN_LATER), _NO_MEMORY)
            connection.close(CloseCode.TRY_AGAIN_LATER, _NO_MEMORY)
        elif self.frozen:
            connection.pause_reading()
        elif self._closing is not None and not connection.session.closed:
            # It was on its way while all others were told to go.
            connection.session.close(*self._closing, monotonic())

    # -- Going to another process --

    @property
    def adopting(self) -> int:
        """How many sockets are on their way from a front."""
        return len(self._adopting)

    def freeze(self) -> None:
        """Read from nobody, until `thaw`; what is written still goes out."""
        self.frozen = self.shard.hook_calls.paused = True
        for connection in self._open:
            connection.pause_reading()

    def thaw(self) -> None:
        """Read again from everybody who is not held."""
        self.frozen = self.shard.hook_calls.paused = False
        for connection in list(self._open):
            self.rounds.go_on(connection)

    def movable(self) -> tuple[list[Connection], list[Connection]]:
        """Return the connections that another process can take over now, and those that can't yet, since half of a frame has come.

        Those are read from until it is whole. Connections that are ending are in neither.
        """
        movable, halves = [], []
        for connection in self._open:
            stream = connection.stream
            if stream is None or connection.session.closed:
                continue
            if is_movable(connection):
                connection.pause_reading()
                movable.append(connection)
            else:
                stream.resume_reading()
                halves.append(connection)
        return movable, halves

    def inherit(self, user_id: str, state: dict[str, Any]) -> tuple[Connection, bytes]:
        """Make a connection that another process had, and return it with what that has read and not handled; then `take_over`.

        What the user has proven comes with the record of the session.
        """
        ticket = Ticket(0, user_id, state["address"], 0, b"", state["label"])
        connection = self._make(self, ticket, monotonic())
        return connection, restore(connection, state)

    async def take_over(self, connection: Connection, client: socket.socket) -> None:
        """Give the socket of a connection that was inherited to the event loop; then `take_up`."""
        if self._counts is not None:
            self._counts.inherit(connection.address)
        try:
            await adopt_unread(connection, client)
        except OSError:
            client.close()
            if self._counts is not None:
                self._counts.leave(connection.address)
            connection.gone()

    def take_up(self, inherited: Iterable[tuple[Connection, bytes]]) -> None:
        """Go on with all that were taken over, whose sessions have been resumed: with what had been read, and with reading."""
        self.frozen = False
        now = monotonic()
        for connection, unread in inherited:
            if unread:
                feed(connection, unread)
            if connection.held_until > now:
                connection.hold(connection.held_until)
            else:
                connection.resume_reading()

    async def ended(self, patience: float) -> None:
        """Wait for those that are ending, at the latest for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._open:  # noqa: ASYNC110 - nobody says when
                    await asyncio.sleep(_LOOK)

    # -- Coming and going --

    def entered(self, connection: Connection) -> None:
        """See ``workers.connection.Host``."""
        self._open.add(connection)
        if self._draining is not None:
            self._draining.add(connection)

    # -- Going --

    def left(self, connection: Connection) -> None:
        """See ``workers.connection.Host``."""
        if self._counts is not None and connection in self._open:
            self._counts.leave(connection.address)
        self._open.discard(connection)
        if self._draining is not None:
            self._draining.forget(connection)
        self.slow_readers.forget(connection)
        self._note_empty()

    def drain(self, seconds: float) -> None:
        """Close all within so many seconds, one after the other, and all that still come. Another call changes nothing."""
        if self._draining is None:
            self._draining = Draining(self._open, seconds, monotonic(), random.random)

    @property
    def drained(self) -> bool:
        """Whether all that were to be closed one after the other have gone."""
        return self._draining is not None and not self._open and not self._adopting

    async def close_all(self, code: int, reason: str, patience: float) -> None:
        """Close all, and those that are on their way; return when they have gone, at the latest after `patience` seconds."""
        self._closing = code, reason
        now = monotonic()
        for connection in list(self._open):
            connection.session.close(code, reason, now)
        self._note_empty()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._empty.wait()

    def _note_empty(self) -> None:
        if self._closing is not None and not self._open and not self._adopting:
            self._empty.set()

    # -- Time --

    def tick(self, now: float) -> None:
        """Do what is due; called several times a second."""
        self.wheel.turn(now)
        if self._draining is not None:
            self._draining.tick(now)

    def stood_still(self, seconds: float, now: float) -> None:
        """Give everybody the time back in which the worker stood still, until now."""
        for connection in self._open:
            connection.stood_still(seconds, now)

    def sample(self, now: float) -> None:
        """Look, once a second, who has stopped reading and is to be closed, and whether there is memory for more connections."""
        self._outbox = self.slow_readers.sample(now)
        if not self._open:
            self._open.clear()  # else it keeps the table that a crowd needed
        memory, was_full = self._memory, self._memory.full
        memory.sample(now)
        if memory.full != was_full:
            about = fields(used_mib=memory.used >> 20, limit_mib=memory.limit >> 20)
            if memory.full:
                _log.error("the memory limit is reached: new connections are refused", extra=about)
            else:
                _log.warning("there is memory again: new connections are taken", extra=about)

    def stats(self) -> dict[str, Any]:
        """Return what is measured here, by the names of ``core.process.metrics``."""
        return {
            "connections": len(self._open),
            MEMORY_FULL: int(self._memory.full),
            DRAINED: int(self.drained),
            "memory_refused_total": self._refused,
            "outbox_bytes": self._outbox,
            "metered_total": self.rounds.metered,
            "slowed_total": self.rounds.slowed,
            "writes_total": self.writes,
            "frames_total": self.frames,
        }
