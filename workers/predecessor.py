"""A worker process that gives its place to another one: its clients stay connected, and nothing under way is lost.

    serving --> frozen: reads from no client --> quiet: nothing is under way --> the successor has everything --> passing on --> exit
       ^           |
       +-----------+  what is under way does not come to an end in time

Clients are not read from; what they had asked of other workers is answered first. Then envelopes of other workers are collected, and what
they had asked here is answered. Now the process is quiet: users, sessions and sockets go to the successor while the store closes; when it
is closed, the successor opens it. What other workers have sent since then is passed on, until each of them has sent its last record
(MOVED_ON).
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from core.chat.envelope import RecordKind, record_head, unpack_envelope
from core.chat.shard import Shard
from core.chat.succession import export, unfinished
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import LEAVING
from core.process.succession import NOT_MOVED, Kind, send_packet
from workers.bus import ZmqBus
from workers.connection import Connection
from workers.connections import Connections
from workers.heir import TIMEOUT, Heir, abandon, say_goodbye
from workers.rest import PATIENCE, POLL, Rest, Stays
from workers.store.shard_store import ShardStore
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")

#: Seconds that other workers have for their last record.
_LAST_PATIENCE: Final = 5.0


class Predecessor:
    """This process, as it goes. Use it once."""

    def __init__(
        self,
        shard: Shard,
        store: ShardStore,
        bus: ZmqBus,
        turn: Turn,
        connections: Connections,
        control: ControlPipe,
    ) -> None:
        self._shard = shard
        self._store = store
        self._bus = bus
        self._turn = turn
        self._connections = connections
        self._control = control
        self._channel: socket.socket | None = None
        #: Envelopes that came since the shard handles none any more.
        self._collected: list[bytes] = []
        self.rest = Rest(shard, connections)
        #: The connections that the successor gets. This process keeps its copies of the sockets until that one has taken over.
        self._leaving: list[Connection] = []
        #: Workers whose last record has not come.
        self._others = set(shard.exchange.others)
        self._all_passed_on = asyncio.Event()
        self._note_ended()

    async def finish(self) -> None:
        """Handle no envelope of other workers any more, and wait until all that has come is done; `rest` comes before.

        Raises Stays; then `stay`.
        """
        self._bus.listen(asyncio.get_running_loop(), self._collect)
        self._store.hurry(True)
        deadline = monotonic() + PATIENCE
        while (busy := unfinished(self._shard)) is not None or self._connections.adopting:
            if monotonic() >= deadline:
                raise Stays(busy or "sockets on their way from the fronts")
            self._turn.schedule()
            await asyncio.sleep(POLL)

    def stay(self, received: Callable[[bytes, float], None]) -> None:
        """Go on serving after all: `received` takes envelopes again, and those that were collected."""
        self._store.hurry(False)
        self._bus.listen(asyncio.get_running_loop(), received)
        collected, self._collected = self._collected, []
        for envelope in collected:
            received(envelope, monotonic())
        self._connections.thaw()

    async def hand_on(self, path: str) -> None:
        """Give everything to the process that waits at `path`, and pass on what still comes.

        Raises OSError when that one fails before it has taken over.
        """
        self._control.send(LEAVING)
        gc.disable()  # this process ends, and somebody waits
        self._leaving = self.rest.movable()
        connections = {connection.session: connection for connection in self._leaving}
        heir = Heir(path)
        with heir.channel:
            self._store.begin_close(TIMEOUT)
            for record, sessions in export(self._shard, connections, monotonic()):
                heir.add(record, [connections[session] for session in sessions])
            heir.send()
            self._store.close(TIMEOUT)
            # The successor counts on, since nobody would see it in this process any more.
            told = {"frozen_at": self.rest.began_at, "not_moved": self._shard.counters[NOT_MOVED]}
            await heir.finish(told)
            if heir.failure is not None:
                raise heir.failure
            self._channel = heir.channel
            with suppress(OSError):  # whoever has taken over serves the clients, or is dead
                await self._pass_on_the_rest()
                send_packet(heir.channel, Kind.END)
        self._shard.exchange.broadcast(RecordKind.MOVED_ON, 0, b"")
        self._bus.flush()
        abandon(self._leaving)

    async def _pass_on_the_rest(self) -> None:
        for envelope in self._collected:
            self._pass_on(envelope)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_PATIENCE):
                await self._all_passed_on.wait()
        if self._others:
            _log.error(
                "other workers did not say that they send nothing more to this process",
                extra=fields(workers=sorted(self._others)),
            )

    def say_goodbye(self) -> None:
        """Close the connections that the successor, which has failed, was to get."""
        say_goodbye(self._leaving)

    def worker_gone(self, worker: int) -> None:
        """Note that another worker is dead: nothing more comes from that process."""
        self._others.discard(worker)
        self._note_ended()

    # -- Inside --

    def _collect(self, envelope: bytes, now: float) -> None:
        if self._channel is None:
            self._collected.append(envelope)
        else:
            self._pass_on(envelope)

    def _pass_on(self, envelope: bytes) -> None:
        assert self._channel is not None, "the successor has everything else"
        send_packet(self._channel, Kind.ENVELOPE, envelope)
        worker, _, _, records = unpack_envelope(envelope)
        if any(record_head(record).kind == RecordKind.MOVED_ON for record in records):
            self._others.discard(worker)
            self._note_ended()

    def _note_ended(self) -> None:
        if not self._others:
            self._all_passed_on.set()
