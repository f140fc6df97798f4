"""The bus: how shards reach each other. The only user of ZeroMQ.

Every worker binds one PULL socket in the run directory and connects a PUSH socket to every other worker's. The records of one loop turn
for one destination travel as one envelope. The sockets are used raw: `zmq.FD` is edge-triggered, so after a wake-up everything must be read
until there is nothing, or the rest would wait for the next message.

Queues are finite. When one is full, since its worker is dead or hopelessly behind, sending fails at once and the core is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import zmq

from core.chat.envelope import pack_envelope

#: Envelopes that may wait at each end. An envelope is a whole loop turn's worth, so this is seconds of traffic.
_HIGH_WATER_MARK: Final = 1000
#: Milliseconds that the last envelopes have to leave in.
_LINGER_MS: Final = 200
#: Envelopes read in one go, so that a busy bus does not keep the loop from its connections.
_READ_AT_ONCE: Final = 64
#: Milliseconds between attempts to reach a worker that is not there; a restarting one should not be waited for longer than it takes.
_RECONNECT_MS: Final = 20
_RECONNECT_MAX_MS: Final = 200


def _path(run_dir: str, worker: int) -> str:
    return f"{run_dir}/bus-{worker}"


class ZmqBus:
    """Implements ``core.chat.ports.Bus``. `listen` must be called once, before anything comes."""

    def __init__(self, run_dir: str, index: int, generation: int, workers: int) -> None:
        """Make the sockets. Raises OSError when the run directory can't be used."""
        self._index = index
        self._generation = generation
        self._context = zmq.Context(io_threads=1)
        self._inbox = self._socket(zmq.PULL)
        #: The name under which others find this worker.
        self.path = _path(run_dir, index)
        self._bind()
        #: Becomes readable when something changes for the inbox; edge-triggered.
        self._wakeup = int(self._inbox.getsockopt(zmq.FD))
        self._outboxes = {}
        for worker in range(workers):
            if worker != index:
                outbox = self._socket(zmq.PUSH)
                outbox.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
                outbox.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
                outbox.connect(f"ipc://{_path(run_dir, worker)}")
                self._outboxes[worker] = outbox
        #: worker -> the records of this loop turn.
        self._records: dict[int, list[bytes]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._received: Callable[[bytes, float], None] | None = None
        #: Envelopes sent, the records in them, envelopes received, and those refused because a queue was full.
        self._sent = 0
        self._records_sent = 0
        self._received_count = 0
        self._refused = 0

    def listen(self, loop: asyncio.AbstractEventLoop, received: Callable[[bytes, float], None]) -> None:
        """Give every envelope that comes to `received`, with the time."""
        self._loop = loop
        self._received = received
        loop.add_reader(self._wakeup, self._read)
        loop.call_soon(self._read)

    async def reopen(self) -> None:
        """Be found under the same name again, which was taken away; who is connected stays so. Raises OSError."""
        # ZeroMQ opens another listener beside the old one, which nobody can reach. To close that would remove the new name too.
        self._bind()

    def send(self, worker: int, record: bytes) -> None:
        """Put a record in this turn's envelope for `worker`."""
        records = self._records.get(worker)
        if records is None:
            self._records[worker] = [record]
        else:
            records.append(record)

    def stats(self) -> dict[str, Any]:
        """Return this part of the worker's report."""
        return {
            "bus_sent_total": self._sent,
            "bus_records_total": self._records_sent,
            "bus_received_total": self._received_count,
            "bus_refused_total": self._refused,
        }

    def flush(self) -> list[tuple[int, list[bytes]]]:
        """Send this turn's envelopes; the records of those that could not be sent, by worker."""
        if not self._records:
            return []
        turn, self._records = self._records, {}
        failed = []
        now = monotonic()
        for worker, records in turn.items():
            try:
                self._outboxes[worker].send(
                    pack_envelope(self._index, self._generation, now, records), zmq.NOBLOCK
                )
                self._sent += 1
                self._records_sent += len(records)
            except zmq.Again:
                self._refused += 1
                failed.append((worker, records))
        return failed

    def close(self) -> None:
        """Leave; what can't be sent within a moment is dropped."""
        if self._loop is not None:
            self._loop.remove_reader(self._wakeup)
        self.flush()
        self._context.destroy(linger=_LINGER_MS)

    def _bind(self) -> None:
        try:
            self._inbox.bind(f"ipc://{self.path}")
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"can't open {self.path} for the bus: {error.strerror}") from None

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set_hwm(_HIGH_WATER_MARK)
        socket.setsockopt(zmq.LINGER, 0)
        return socket

    def _read(self) -> None:
        assert self._loop is not None and self._received is not None, "listen() comes first"
        now = monotonic()
        for _ in range(_READ_AT_ONCE):
            try:
                envelope = self._inbox.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._received_count += 1
            self._received(envelope, now)
        self._loop.call_soon(self._read)
