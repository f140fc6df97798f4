"""Taking over what other processes had: users, sessions, and connections with their sockets (``workers.successor``, ``workers.gathering``).

While those give everything away, the connections are made here, and their sockets are given to the event loop. Nothing is read from them
before the store is open and all sessions are resumed: what reaches one user depends on others being there.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from core.chat.shard import Shard
from core.chat.succession import resume
from core.process.succession import Kind, Packet, PacketReader
from core.wire.codec import from_json
from workers.connection import Connection
from workers.connections import Connections
from workers.turn import Turn

#: What the other process is told when everything has been taken over.
TAKEN_OVER: Final = b"."
#: Seconds that it may take for a packet, closing its store included.
_TIMEOUT: Final = 20.0

#: Some records, each with the states of its connections; and sockets in their order, of which these records take those that they need.
Take = Callable[[list[dict[str, Any]], deque[socket.socket]], None]


@contextmanager
def listening(path: str, backlog: int) -> Iterator[socket.socket]:
    """Listen at `path` for who gives something away. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(backlog)
        yield listener
        with suppress(OSError):  # somebody may have swept it away
            os.unlink(path)


class Source:
    """A process that gives away what it has, as the one hears it that gets it."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self.channel = channel
        self.packets = PacketReader(channel)
        #: Sockets whose record has not come.
        self._sockets: deque[socket.socket] = deque()
        #: What it says when its store is closed; and until when it has to say something.
        self._closed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._deadline = asyncio.timeout(None)

    async def receive(self, take: Take) -> dict[str, Any]:
        """Give `take` all records; what the process says when its store is closed. Raises OSError, ValueError, and whatever `take` does."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self.channel.fileno(), self._read, take)
        try:
            async with self._deadline:
                self._deadline.reschedule(loop.time() + _TIMEOUT)
                return await self._closed
        finally:
            loop.remove_reader(self.channel.fileno())

    def _read(self, take: Take) -> None:
        self._deadline.reschedule(asyncio.get_running_loop().time() + _TIMEOUT)
        try:
            for packet in self.packets.read():
                self._handle(packet, take)
        except Exception as error:
            if not self._closed.done():
                self._closed.set_exception(error)

    def _handle(self, packet: Packet, take: Take) -> None:
        if packet.kind == Kind.CLOSED:
            self._closed.set_result(from_json(packet.body))
        else:
            self._sockets += packet.sockets
            take(from_json(packet.body), self._sockets)


class Inheriting:
    """What is taken over: `take` it while it comes, and `finish` when the store is open."""

    def __init__(self, shard: Shard, turn: Turn, connections: Connections) -> None:
        """From now on connections are read from only after `finish`."""
        self._shard = shard
        self._turn = turn
        self._connections = connections
        #: Each connection with what had been read of it.
        self._inherited: list[tuple[Connection, bytes]] = []
        self._adoptions: list[asyncio.Future[Any]] = []
        #: Connections whose sockets are adopted when all sessions are resumed.
        self._late: list[tuple[Connection, socket.socket]] = []
        #: How many records wait for the store; and set when none does.
        self._unresumed = 0
        self._all_resumed = asyncio.Event()
        self._all_resumed.set()
        connections.frozen = True

    @contextmanager
    def without_collector(self) -> Iterator[None]:
        """Make what stays without garbage collection, which would look at all of it when everybody speaks at once."""
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.enable()

    def take(self, records: list[dict[str, Any]], sockets: deque[socket.socket]) -> None:
        """Take the records of users and strangers, and have their sockets adopted."""
        began = len(self._inherited)
        for content in records:
            self._resume(content["core"], content["connections"])
        early: list[tuple[Connection, socket.socket]] = []
        for connection, _ in self._inherited[began:]:
            # What one is to be written first that does not keep up is written when its session knows its user.
            (early if connection.backlog is None else self._late).append((connection, sockets.popleft()))
        self._adoptions.append(self._adopt(early))

    async def finish(self) -> int:
        """Wait until all users are there, and read from their clients; how many these are."""
        self._turn.schedule()
        await asyncio.gather(*self._adoptions)
        await self._all_resumed.wait()
        await self._adopt(self._late)
        self._connections.take_up(self._inherited)
        count = len(self._inherited)
        self._inherited.clear()
        self._adoptions.clear()
        self._late.clear()
        return count

    def _adopt(self, taken: list[tuple[Connection, socket.socket]]) -> asyncio.Future[Any]:
        take_over = self._connections.take_over
        return asyncio.gather(*(take_over(connection, client) for connection, client in taken))

    def _resume(self, record: dict[str, Any], states: list[dict[str, Any]]) -> None:
        inherited = [
            self._connections.inherit(session["claimed"], state)
            for session, state in zip(record.get("sessions", []), states, strict=True)
        ]
        self._inherited += inherited
        self._unresumed += 1
        self._all_resumed.clear()
        sessions = [connection.session for connection, _ in inherited]
        resume(self._shard, record, sessions, self._resumed, monotonic())

    def _resumed(self, now: float) -> None:
        self._unresumed -= 1
        if not self._unresumed:
            self._all_resumed.set()
