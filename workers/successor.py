"""A worker process that takes the place of another one: see ``workers.predecessor``, and ``workers.inheriting``."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import deque
from time import monotonic
from typing import Any

from core.chat.shard import Shard
from core.chat.succession import SHARD, gather
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import EXIT_BOOT_FAILURE, WAITING
from core.process.logs import flush_logs
from core.process.succession import NOT_MOVED, Kind, succession_endpoint
from workers.connections import Connections
from workers.inheriting import TAKEN_OVER, Inheriting, Source, listening
from workers.store.shard_store import ShardStore
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")


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
        self._inheriting = Inheriting(shard, turn, connections)
        self._control = control
        #: The predecessor, once it passes on what is sent to it.
        self._source: Source | None = None
        #: Seconds in which no client was read from.
        self.pause = 0.0
        #: Whether the store is open: before, no turn of the loop has anything to do.
        self.has_store = False
        for worker in shard.exchange.others:
            shard.exchange.streams.block(worker)

    async def take_over(self) -> None:
        """Wait for the predecessor, and go on where it stops. Raises OSError, ValueError or ConfigurationError when that can't be."""
        loop = asyncio.get_running_loop()
        with listening(self._path, 1) as listener:
            self._control.send(WAITING, path=self._path)
            channel, _ = await loop.sock_accept(listener)
        source = Source(channel)
        with self._inheriting.without_collector():
            told = await source.receive(self._take)
            self._store.start()
            self.has_store = True
            count = await self._inheriting.finish()
        channel.send(TAKEN_OVER)
        self.pause = monotonic() - told["frozen_at"]
        self._shard.counters[NOT_MOVED] += told["not_moved"]
        _log.info(
            "this process has taken over",
            extra=fields(connections=count, seconds=round(self.pause, 3)),
        )
        # Whoever is connected now gets what was sent to the predecessor, and then what comes here.
        self._source = source
        loop.add_reader(channel.fileno(), self._read)

    def _take(self, records: list[dict[str, Any]], sockets: deque[socket.socket]) -> None:
        if records and records[0]["core"]["kind"] == SHARD:
            gather(self._shard, [records.pop(0)["core"]])
        self._inheriting.take(records, sockets)

    def _read(self) -> None:
        """Handle what the predecessor passes on."""
        assert self._source is not None, "it is read from"
        now = monotonic()
        try:
            packets = self._source.packets.read()
        except (OSError, ValueError) as error:
            _log.error(
                "the process before this one has ended before it had passed on everything, so this one ends too",
                extra=fields(reason=str(error)),
            )
            flush_logs()
            # Nobody knows what is missing. The next process gets all of that again.
            os._exit(EXIT_BOOT_FAILURE)
        for packet in packets:
            if packet.kind == Kind.ENVELOPE:
                self._receive(packet.body, now, passed_on=True)
            else:
                self._end(now)
        self._turn.schedule()

    def _end(self, now: float) -> None:
        """Go on with what comes directly: everything that was sent to the predecessor is here."""
        streams = self._shard.exchange.streams
        assert self._source is not None, "it ends once"
        asyncio.get_running_loop().remove_reader(self._source.channel.fileno())
        self._source.channel.close()
        self._source = None
        for worker in self._shard.exchange.others:
            for envelope in streams.unblock(worker) or ():
                self._receive(envelope, now)

    def _receive(self, envelope: bytes, now: float, *, passed_on: bool = False) -> None:
        try:
            self._shard.exchange.receive(envelope, now, passed_on=passed_on)
        except Exception:
            self._shard.counters["bus_errors_total"] += 1
            _log.exception("bug, or an envelope that can't be read")
