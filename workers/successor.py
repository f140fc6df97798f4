"""A worker process that takes the place of another one: see ``workers.predecessor``."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from core.chat.shard import Shard
from core.chat.succession import SHARD, gather, resume
from core.events import fields
from core.process.child import ControlPipe
from core.process.control import WAITING
from core.process.succession import NOT_MOVED, Kind, Packet, receive_packet, succession_endpoint
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
        #: Seconds in which no client was read from.
        self.pause = 0.0
        #: Whether the store is open: before, no turn of the loop has anything to do.
        self.has_store = False
        self._resumed: list[asyncio.Future[None]] = []
        #: Each connection with what had been read of it, and its socket.
        self._inherited: list[tuple[tuple[Connection, bytes], socket.socket]] = []
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
        channel.settimeout(_TIMEOUT)
        packets = [receive_packet(channel)]
        while packets[-1].kind != Kind.CLOSED:
            packets.append(receive_packet(channel))
        told = from_json(packets.pop().body)
        self._store.start()
        self.has_store = True
        self._channel = channel
        for packet in packets:
            self._resume(packet)
        self._turn.schedule()
        await asyncio.gather(*self._resumed)
        # What reaches one user depends on others being there, so nobody is read from before.
        take_over = self._connections.take_over
        await asyncio.gather(
            *(take_over(connection, client, unread) for (connection, unread), client in self._inherited)
        )
        channel.send(_TAKEN_OVER)
        self.pause = monotonic() - told["frozen_at"]
        self._shard.counters[NOT_MOVED] += told["not_moved"]
        _log.info(
            "this process has taken over",
            extra=fields(connections=len(self._inherited), seconds=round(self.pause, 3)),
        )
        self._inherited.clear()
        self._resumed.clear()
        # Whoever is connected now gets what was sent to the predecessor, and then what comes here.
        loop.add_reader(channel.fileno(), self._read)

    def _resume(self, packet: Packet) -> None:
        now = monotonic()
        content: dict[str, Any] = from_json(packet.body)
        record, states = content["core"], content["connections"]
        if record["kind"] == SHARD:
            gather(self._shard, [record])
            return
        sessions = record.get("sessions", [])
        inherited = [
            self._connections.inherit(session["claimed"], state, session.get("expires", 0.0))
            for session, state in zip(sessions, states, strict=True)
        ]
        resumed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resumed.append(resumed)
        sessions = [connection.session for connection, _ in inherited]
        self._inherited += zip(inherited, packet.sockets, strict=True)
        resume(self._shard, record, sessions, lambda now: resumed.set_result(None), now)

    def _read(self) -> None:
        """Handle what the predecessor passes on."""
        channel = self._channel
        assert channel is not None, "it is read from"
        streams = self._shard.exchange.streams
        now = monotonic()
        try:
            packet = receive_packet(channel)
        except (OSError, ValueError) as error:
            _log.error(
                "the process before this one has ended before it had passed on everything",
                extra=fields(reason=str(error)),
            )
            packet = Packet(Kind.END, b"", [])
        if packet.kind == Kind.ENVELOPE:
            self._receive(packet.body, now, passed_on=True)
        else:
            asyncio.get_running_loop().remove_reader(channel.fileno())
            channel.close()
            self._channel = None
            for worker in self._shard.exchange.others:
                for envelope in streams.unblock(worker) or ():
                    self._receive(envelope, now)
        self._turn.schedule()

    def _receive(self, envelope: bytes, now: float, *, passed_on: bool = False) -> None:
        try:
            self._shard.exchange.receive(envelope, now, passed_on=passed_on)
        except Exception:
            self._shard.counters["bus_errors_total"] += 1
            _log.exception("bug, or an envelope that can't be read")
