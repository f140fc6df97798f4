"""The bus: how shards reach each other. The only user of ZeroMQ.

Every worker binds one PULL socket in the run directory and connects a PUSH socket to every other worker's. A path belongs to one process
of a worker; the supervisor says which process that is (`connect`, `move_on`). The records of one loop turn for one destination travel as
one envelope. The sockets are used raw: `zmq.FD` is edge-triggered, so after a wake-up everything must be read until there is nothing, or
the rest would wait for the next message.

Queues are finite. When one is full, since its worker is dead or hopelessly behind, sending fails at once and the core is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

import zmq

from core.chat.envelope import RecordKind, pack_envelope, pack_record
from core.process.bus import bus_endpoint

#: Envelopes that may wait at each end. An envelope is a whole loop turn's worth, so this is seconds of traffic.
_HIGH_WATER_MARK: Final = 1000
#: Milliseconds that the last envelopes have to leave in.
_LINGER_MS: Final = 200
#: The same for the process that a successor takes the place of: it reads until it has all.
_LAST_LINGER_MS: Final = 5000
#: Envelopes read in one go, so that a busy bus does not keep the loop from its connections.
_READ_AT_ONCE: Final = 64
#: Milliseconds between attempts to reach a worker that is not there; a restarting one should not be waited for longer than it takes.
_RECONNECT_MS: Final = 20
_RECONNECT_MAX_MS: Final = 200


def remove_left_over(run_dir: str, worker: int, running: int | None = None) -> None:
    """Remove the paths of killed processes of a worker; `running` is the generation of the one that runs, if there is one."""
    kept = None if running is None else bus_endpoint(run_dir, worker, running)
    for path in Path(run_dir).glob(f"bus-{worker}-*"):
        if str(path) != kept:
            path.unlink(missing_ok=True)


class ZmqBus:
    """Implements ``core.chat.ports.Bus``. `listen` must be called once, before anything comes."""

    def __init__(self, run_dir: str, index: int, generations: Sequence[int]) -> None:
        """Make the sockets of worker `index`; `generations` are those of the processes of all workers.

        Raises OSError when the run directory can't be used.
        """
        self._run_dir = run_dir
        self._index = index
        self._generations = list(generations)
        self._context = zmq.Context(io_threads=1)
        self._inbox = self._socket(zmq.PULL)
        #: The name under which others find this worker.
        self.path = bus_endpoint(run_dir, index, generations[index])
        self._bind()
        #: Becomes readable when something changes for the inbox; edge-triggered.
        self._wakeup = int(self._inbox.getsockopt(zmq.FD))
        self._outboxes = {
            worker: self._outbox(worker) for worker in range(len(generations)) if worker != index
        }
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

    def connect(self, worker: int, generation: int) -> list[bytes] | None:
        """Send to this process of a worker from now on, since the one before is dead. Returns the records of this turn that were for that.

        None, and nothing has happened, when it is the one that is sent to already.
        """
        if self._generations[worker] == generation:
            return None
        self._outboxes[worker].close()
        self._generations[worker] = generation
        self._outboxes[worker] = self._outbox(worker)
        return self._records.pop(worker, [])

    def move_on(self, worker: int, generation: int) -> bool:
        """Send to this process of a worker from now on, and MOVED_ON as the last record to the one before, which passes all of it on.

        False, and nothing has happened, while the queue to that one is full.
        """
        last = pack_record(RecordKind.MOVED_ON, 0, 0, 0.0)
        if self._send(worker, [*self._records.get(worker, ()), last], monotonic()):
            self._records.pop(worker, None)
            self._outboxes[worker].close(_LAST_LINGER_MS)
            self._generations[worker] = generation
            self._outboxes[worker] = self._outbox(worker)
            return True
        return False

    def send(self, worker: int, record: bytes) -> None:
        """Put a record in this turn's envelope for `worker`."""
        records = self._records.get(worker)
        if records is None:
            self._records[worker] = [record]
        else:
            records.append(record)

    @property
    def records_taken(self) -> int:
        """How many records were to be sent so far, those of this turn included."""
        return self._records_sent + sum(map(len, self._records.values()))

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
        now = monotonic()
        return [(worker, records) for worker, records in turn.items() if not self._send(worker, records, now)]

    def close(self) -> None:
        """Leave; what can't be sent within a moment is dropped."""
        if self._loop is not None:
            self._loop.remove_reader(self._wakeup)
        self.flush()
        self._context.destroy(linger=_LINGER_MS)
        # ZeroMQ leaves the path, and the next process of this worker has another one.
        with suppress(OSError):
            os.unlink(self.path)

    def _send(self, worker: int, records: list[bytes], now: float) -> bool:
        """Send one envelope; whether the queue had room for it."""
        envelope = pack_envelope(self._index, self._generations[self._index], now, records)
        try:
            self._outboxes[worker].send(envelope, zmq.NOBLOCK)
        except zmq.Again:
            self._refused += 1
            return False
        self._sent += 1
        self._records_sent += len(records)
        return True

    def _outbox(self, worker: int) -> zmq.Socket[bytes]:
        outbox = self._socket(zmq.PUSH)
        outbox.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        outbox.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        outbox.connect(f"ipc://{bus_endpoint(self._run_dir, worker, self._generations[worker])}")
        return outbox

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
