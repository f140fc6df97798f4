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
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from core.chat.envelope import RecordKind, record_head, unpack_envelope
from core.chat.shard import Shard
from core.chat.succession import export, unfinished
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import LEAVING, RESTART_REASON
from core.process.succession import DESCRIPTORS_MAX, NOT_MOVED, Kind, send_packet
from core.wire.codec import to_json
from core.wire.protocol import CloseCode
from workers.bus import ZmqBus
from workers.connection import Connection
from workers.connections import Connections
from workers.inheritance import let_go, state_of
from workers.store.shard_store import ShardStore
from workers.turn import Turn

_log = logging.getLogger("fastchat.worker")

#: Seconds in which what is under way has to come to an end, and between two looks.
_PATIENCE: Final = 2.0
_LOOK: Final = 0.002
#: Seconds of those that a client has for the rest of a frame.
_FRAME_PATIENCE: Final = 0.5
#: Seconds that the successor may take for a packet, and the store for its last commit.
_TIMEOUT: Final = 10.0
#: Seconds that the successor has for opening the store and loading the users; then it is killed.
_TAKE_OVER_PATIENCE: Final = 60.0
#: Seconds that other workers have for their last record.
_LAST_PATIENCE: Final = 5.0
#: Records in a packet. The successor has something to do from the first one on, and a system call is shared by many.
RECORDS: Final = 32


class Stays(Exception):
    """The process goes on serving; the message says why, as a part of a sentence."""


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
        #: When it stopped reading from clients.
        self.frozen_at = 0.0
        #: Since when a client has been in the middle of a frame.
        self._halves_since: float | None = None
        #: The connections that the successor gets. This process keeps its copies of the sockets until that one has taken over.
        self._leaving: list[Connection] = []
        #: Workers whose last record has not come.
        self._others = set(shard.exchange.others)
        self._all_passed_on = asyncio.Event()
        self._note_ended()

    async def come_to_rest(self) -> None:
        """Stop reading from clients, and wait until they have their answers. Raises Stays; then `stay`."""
        self.frozen_at = monotonic()
        self._connections.freeze()
        deadline = monotonic() + _PATIENCE
        while (busy := self._asked()) is not None:
            if monotonic() >= deadline:
                raise Stays(busy)
            await asyncio.sleep(_LOOK)

    async def finish(self) -> None:
        """Handle no envelope of other workers any more, and wait until all that has come is done. Raises Stays; then `stay`."""
        self._bus.listen(asyncio.get_running_loop(), self._collect)
        self._store.hurry(True)
        deadline = monotonic() + _PATIENCE
        while (busy := unfinished(self._shard)) is not None or self._connections.adopting:
            if monotonic() >= deadline:
                raise Stays(busy or "sockets on their way from the fronts")
            self._turn.schedule()
            await asyncio.sleep(_LOOK)

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
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_TIMEOUT)
            channel.connect(path)
            self._leaving = self.all_movable()
            self._store.begin_close(_TIMEOUT)
            self._send_records(channel)
            self._store.close(_TIMEOUT)
            # The successor counts on, since nobody would see it in this process any more.
            told = {"frozen_at": self.frozen_at, "not_moved": self._shard.counters[NOT_MOVED]}
            send_packet(channel, Kind.CLOSED, to_json(told))
            await until_taken_over(channel)
            self._channel = channel
            with suppress(OSError):  # whoever has taken over serves the clients, or is dead
                await self._pass_on_the_rest()
                send_packet(channel, Kind.END)
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

    def all_movable(self) -> list[Connection]:
        """Close the connections that are in the middle of a frame, and return all others."""
        movable, halves = self._connections.movable()
        self._close(halves)
        return movable

    def worker_gone(self, worker: int) -> None:
        """Note that another worker is dead: nothing more comes from that process."""
        self._others.discard(worker)
        self._note_ended()

    # -- Inside --

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

    def _send_records(self, channel: socket.socket) -> None:
        by_session = {connection.session: connection for connection in self._leaving}
        records: list[dict[str, Any]] = []
        connections: list[Connection] = []
        for record, sessions in export(self._shard, by_session, monotonic()):
            about = [by_session[session] for session in sessions]
            records.append({"core": record, "connections": [*map(state_of, about)]})
            connections += about
            if len(records) == RECORDS:
                send_records(channel, records, connections)
                records, connections = [], []
        send_records(channel, records, connections)

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


async def until_taken_over(channel: socket.socket) -> None:
    """Wait until the other process says that it has taken over. Raises OSError when it does not."""
    channel.setblocking(False)
    try:
        async with asyncio.timeout(_TAKE_OVER_PATIENCE):
            taken = await asyncio.get_running_loop().sock_recv(channel, 1)
    except TimeoutError:
        raise TimeoutError(f"it has not taken over within {_TAKE_OVER_PATIENCE:g} s") from None
    if not taken:
        raise ConnectionResetError("it has ended before it took over")
    channel.settimeout(_TIMEOUT)


def send_records(
    channel: socket.socket, records: list[dict[str, Any]], connections: list[Connection]
) -> None:
    """Send records, and the sockets of the connections that they are about. Raises OSError when the other process is gone."""
    descriptors = [connection.descriptor for connection in connections]
    while len(descriptors) > DESCRIPTORS_MAX:
        send_packet(channel, Kind.RECORDS, to_json([]), descriptors[:DESCRIPTORS_MAX])
        del descriptors[:DESCRIPTORS_MAX]
    send_packet(channel, Kind.RECORDS, to_json(records), descriptors)
    for connection in connections:
        let_go(connection)


def say_goodbye(connections: Iterable[Connection]) -> None:
    """Close connections that a process was to get which has failed."""
    for connection in connections:
        connection.session.closed = True
        connection.close(CloseCode.RESTARTING, RESTART_REASON)


def abandon(connections: Iterable[Connection]) -> None:
    """End with connections that another process has now."""
    for connection in connections:
        if connection.stream is not None:
            connection.stream.abort()
