"""A worker process that takes the place of another one: see ``workers.predecessor``.

While that one gives everything away and closes its store, this one makes the connections and gives their sockets to the event loop. Nothing
is read from them before the store is open and all sessions are resumed: what reaches one user depends on others being there.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from core.chat.shard import Shard
from core.chat.succession import SHARD, gather, resume
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import WAITING
from core.process.succession import NOT_MOVED, Kind, Packet, PacketReader, succession_endpoint
from core.wire.codec import from_json
from workers.connection import Connection
from workers.connections import Connections
from workers.store.shard_store import ShardStore
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")

#: Seconds that the predecessor may take for a packet, closing its store included.
_TIMEOUT: Final = 20.0
_TAKEN_OVER: Final = b"."


class Successor:
    """This process, as it takes the place of its predecessor. Use it once."""

    def __init__(
        self,
        run_dir: str,
        shard: Shard,
        store: ShardStore,
        turn: Turn,
        connections: Connections,
        control: ControlPipe,
    ) -> None:
        """From now on envelopes of other workers wait until the predecessor has passed on what they had sent to it."""
        self._path = succession_endpoint(run_dir, shard.index)
        self._shard = shard
        self._store = store
        self._turn = turn
        self._connections = connections
        self._control = control
        self._channel: socket.socket | None = None
        self._packets: PacketReader | None = None
        #: What the predecessor says when its store is closed; and until when it has to say something.
        self._closed: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._deadline = asyncio.timeout(None)
        #: Seconds in which no client was read from.
        self.pause = 0.0
        #: Whether the store is open: before, no turn of the loop has anything to do.
        self.has_store = False
        #: Sockets whose record has not come; and each connection with what had been read of it.
        self._sockets: deque[socket.socket] = deque()
        self._inherited: list[tuple[Connection, bytes]] = []
        self._adoptions: list[asyncio.Future[Any]] = []
        #: Connections whose sockets are adopted when all sessions are resumed.
        self._late: list[tuple[Connection, socket.socket]] = []
        #: How many records wait for the store; and set when none does.
        self._unresumed = 0
        self._all_resumed = asyncio.Event()
        self._all_resumed.set()
        connections.frozen = True
        for worker in shard.exchange.others:
            shard.exchange.streams.block(worker)

    async def take_over(self) -> None:
        """Wait for the predecessor, and go on where it stops. Raises OSError, ValueError or ConfigurationError when that can't be."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            listener.bind(self._path)
            os.chmod(self._path, 0o600)
            listener.listen(1)
            self._control.send(WAITING, path=self._path)
            channel, _ = await loop.sock_accept(listener)
            os.unlink(self._path)
        channel.setblocking(False)
        self._channel, self._packets = channel, PacketReader(channel)
        gc.disable()
        try:
            told = await self._receive_records(channel)
            self._store.start()
            self.has_store = True
            self._turn.schedule()
            await asyncio.gather(*self._adoptions)
            await self._all_resumed.wait()
            await self._adopt(self._late)
        finally:
            # What has been made stays, and the collector would look at all of it when everybody speaks at once.
            gc.freeze()
            gc.enable()
        self._connections.take_up(self._inherited)
        channel.send(_TAKEN_OVER)
        self.pause = monotonic() - told["frozen_at"]
        self._shard.counters[NOT_MOVED] += told["not_moved"]
        _log.info(
            "this process has taken over",
            extra=fields(connections=len(self._inherited), seconds=round(self.pause, 3)),
        )
        self._inherited.clear()
        self._adoptions.clear()
        self._late.clear()
        # Whoever is connected now gets what was sent to the predecessor, and then what comes here.
        loop.add_reader(channel.fileno(), self._read)

    async def _receive_records(self, channel: socket.socket) -> dict[str, Any]:
        """Take what comes until the predecessor has closed its store; what it says then."""
        loop = asyncio.get_running_loop()
        loop.add_reader(channel.fileno(), self._read_records)
        try:
            async with self._deadline:
                self._deadline.reschedule(loop.time() + _TIMEOUT)
                return await self._closed
        finally:
            loop.remove_reader(channel.fileno())

    def _read_records(self) -> None:
        assert self._packets is not None, "it is read from"
        loop = asyncio.get_running_loop()
        self._deadline.reschedule(loop.time() + _TIMEOUT)
        try:
            for packet in self._packets.read():
                if packet.kind == Kind.CLOSED:
                    self._closed.set_result(from_json(packet.body))
                else:
                    self._take(packet)
        except Exception as error:
            if not self._closed.done():
                self._closed.set_exception(error)

    def _take(self, packet: Packet) -> None:
        """Take some records, and have their sockets adopted."""
        self._sockets += packet.sockets
        began = len(self._inherited)
        for content in from_json(packet.body):
            self._resume(content["core"], content["connections"])
        early: list[tuple[Connection, socket.socket]] = []
        for connection, _ in self._inherited[began:]:
            # What one is to be written first that does not keep up is written when its session knows its user.
            (early if connection.backlog is None else self._late).append(
                (connection, self._sockets.popleft())
            )
        self._adoptions.append(self._adopt(early))

    def _adopt(self, taken: list[tuple[Connection, socket.socket]]) -> asyncio.Future[Any]:
        take_over = self._connections.take_over
        return asyncio.gather(*(take_over(connection, client) for connection, client in taken))

    def _resume(self, record: dict[str, Any], states: list[dict[str, Any]]) -> None:
        now = monotonic()
        if record["kind"] == SHARD:
            gather(self._shard, [record])
            return
        inherited = [
            self._connections.inherit(session["claimed"], state, session.get("expires", 0.0))
            for session, state in zip(record.get("sessions", []), states, strict=True)
        ]
        self._inherited += inherited
        self._unresumed += 1
        self._all_resumed.clear()
        sessions = [connection.session for connection, _ in inherited]
        resume(self._shard, record, sessions, self._resumed, now)

    def _resumed(self, now: float) -> None:
        self._unresumed -= 1
        if not self._unresumed:
            self._all_resumed.set()

    def _read(self) -> None:
        """Handle what the predecessor passes on."""
        assert self._packets is not None, "it is read from"
        now = monotonic()
        try:
            packets = self._packets.read()
        except (OSError, ValueError) as error:
            _log.error(
                "the process before this one has ended before it had passed on everything",
                extra=fields(reason=str(error)),
            )
            packets = [Packet(Kind.END, b"", [])]
        for packet in packets:
            if packet.kind == Kind.ENVELOPE:
                self._receive(packet.body, now, passed_on=True)
            else:
                self._end(now)
        self._turn.schedule()

    def _end(self, now: float) -> None:
        """Go on with what comes directly: everything that was sent to the predecessor is here."""
        channel, streams = self._channel, self._shard.exchange.streams
        assert channel is not None, "it ends once"
        asyncio.get_running_loop().remove_reader(channel.fileno())
        channel.close()
        self._channel = None
        for worker in self._shard.exchange.others:
            for envelope in streams.unblock(worker) or ():
                self._receive(envelope, now)

    def _receive(self, envelope: bytes, now: float, *, passed_on: bool = False) -> None:
        try:
            self._shard.exchange.receive(envelope, now, passed_on=passed_on)
        except Exception:
            self._shard.counters["bus_errors_total"] += 1
            _log.exception("bug, or an envelope that can't be read")
