"""A connection between HELLO and its worker.

    WAITING ----- sent -----> IN FLIGHT ----- adopted -----> (the worker's)
      |  ^                        |
      |  |   the worker is gone,  |
      |  +-- and HELLO is there --+
      v                           v
    10 s without a worker:   the worker is gone, and so is HELLO,
    Close 1013               or 10 s without its word: shut down

WAITING    Nobody reads: the socket is in the queue for the worker that owns the user, which may be restarting.
IN FLIGHT  The worker has a copy of the socket, or is about to get it; ours stays open until the worker says `adopted`, which it does
           before it reads. So when the worker dies first, the socket is as it was, and waits again. To be sure, HELLO is looked for: if
           it isn't there, two processes may have read from this connection, and it is shut down, which ends it in both.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from typing import Final

from core.chat.lobby import Lobby
from core.measures import SECONDS, Histogram
from core.placement import Placement
from core.process.handover import Ticket
from core.wire import frames
from core.wire.frames import PEEK_BYTES, FrameError, NeedMore, Opcode, parse_frame
from core.wire.protocol import CloseCode
from core.wire.validation import Hello
from router.front.deadlines import Deadlines
from router.front.handover_queue import HandoverQueue
from router.front.sockets import ClientSocket, Connection, Sockets, format_address, is_connected, now

#: Seconds between two looks at who has gone while waiting for a worker.
_SWEEP: Final = 1.0


class Handover:
    """The stage of the connections that have said HELLO, from which their worker has `seconds` to say that it has them."""

    def __init__(self, sockets: Sockets, run_dir: str, workers: int, seconds: float) -> None:
        self._run_dir = run_dir
        self.queues = self._queues_to(sockets, workers)
        self.deadlines: Deadlines[HandoverSocket] = Deadlines(seconds, HandoverSocket.expire)
        #: From HELLO until the worker had the socket.
        self.seconds = Histogram(SECONDS)
        #: The close code and reason that everybody gets, once this front is on its way out.
        self.stopping: tuple[int, str] | None = None
        self.sockets = sockets
        self._placement = Placement(workers)
        self._next_sweep = 0.0

    def enter(self, connection: Connection, user_id: str, lobby: Lobby, carried: bytes) -> None:
        """Take in a client that said HELLO, which is still in the socket, or `carried`, as a client frame."""
        queue = self.queues[self._placement.worker_of(user_id)]
        client = HandoverSocket(self, connection, queue, lobby)
        client.user_id = user_id
        client.carried = carried
        self.deadlines.start(client, client.hello_at)
        client.wait_in(queue)

    def resize(self, workers: int) -> None:
        """Hand over to so many workers from now on, which own other users than those before; these take no more sockets.

        Whoever waits, or was not adopted, goes to the queue of the new owner, first come first served, and has no more time than before.
        """
        for queue in self.queues:
            queue.retire()
        self.sockets.addresses.resize(workers)
        self._placement = Placement(workers)
        self.queues = self._queues_to(self.sockets, workers)
        for client in self.deadlines:
            client.wait_in(self.queues[self._placement.worker_of(client.user_id)])

    def sweep(self, time: float) -> None:
        """Close those that went away while they waited for a worker: nobody reads from their sockets, so this has to be asked."""
        if time >= self._next_sweep:
            self._next_sweep = time + _SWEEP
            for client in self.deadlines:
                if client.number is None and not is_connected(client.socket):
                    self.sockets.count("front_gone_while_waiting_total")
                    client.close()

    def stop(self, code: int, reason: str) -> None:
        """Close those that wait. Sockets that are in flight are left to their worker."""
        self.stopping = code, reason
        for client in self.deadlines:
            if client.number is None:
                client.end(code, reason)

    def cut_short(self) -> None:
        """Close those that are left after `stop`."""
        assert self.stopping is not None
        for client in self.deadlines:
            client.end(*self.stopping)

    def _queues_to(self, sockets: Sockets, workers: int) -> list[HandoverQueue]:
        return [
            HandoverQueue(sockets.loop, self._run_dir, worker, sockets.count) for worker in range(workers)
        ]


class HandoverSocket(ClientSocket):
    """One connection that has said HELLO and has no worker yet; the methods from `ticket` to `returned` are for its queue."""

    __slots__ = ("_lobby", "_queue", "_stage", "carried", "hello_at", "number")

    def __init__(self, stage: Handover, connection: Connection, queue: HandoverQueue, lobby: Lobby) -> None:
        super().__init__(stage.sockets, connection)
        self._stage = stage
        self._queue = queue
        self._lobby = lobby
        #: HELLO itself as a client frame, if it could not stay in the kernel.
        self.carried = b""
        self.hello_at = now()
        #: Its number in the queue while it is in flight.
        self.number: int | None = None

    def wait_in(self, queue: HandoverQueue) -> None:
        """Go to the worker of this queue; no other queue has it."""
        self._queue = queue
        queue.put(self)

    def ticket(self, number: int) -> Ticket:
        """Return what goes to the worker with the socket."""
        address, strikes = format_address(self.address), self._lobby.strikes(now())
        return Ticket(number, self.user_id, address, strikes, self.carried, self.label, self._lobby.proof)

    def adopted(self) -> None:
        """Close our copy, and only ours: the worker has the connection."""
        self._stage.deadlines.cancel(self)
        slot, self.slot = self.slot, None
        if slot is not None and self.number is not None:
            self.sockets.addresses.handed_over(slot, self._queue.worker, self.number)
        self._stage.seconds.record(now() - self.hello_at)
        self.socket.close()

    def returned(self) -> bool:
        """Take it back from a worker that died before it said `adopted`. True when it may wait for the next one; else it is at its end."""
        self.number = None
        if self._stage.stopping is not None:
            self.end(*self._stage.stopping)
        elif self.carried or self._hello_is_there():
            return True
        else:
            self.sockets.count("front_lost_total")
            self.log(logging.INFO, "a hand-over failed: the worker ended in the middle of it")
            self._cut()
        return False

    def expire(self) -> None:
        """Close a connection that no worker took in time."""
        self.end(
            CloseCode.TRY_AGAIN_LATER, "the worker process for this user is not available; try again later"
        )

    def end(self, code: int, reason: str) -> None:
        if self.number is None:
            super().end(code, reason)
            return
        self.count_end(code, reason)
        if self.write(frames.close_frame(code, reason)):
            # In flight: the worker may have a copy.
            self.forget()
            self.leave()
            self.sockets.lingering.share(self.socket, now())

    def forget(self) -> None:
        self._stage.deadlines.cancel(self)
        self._queue.forget(self)

    def _hello_is_there(self) -> bool:
        """Return whether the first thing to read is still this user's HELLO."""
        try:
            frame = parse_frame(self.socket.recv(PEEK_BYTES, socket.MSG_PEEK))
            if isinstance(frame, NeedMore) or frame.opcode != Opcode.TEXT or not frame.final:
                return False
            outcome = self._lobby.receive(frame.payload, now(), b"", time.time())
        except (OSError, FrameError):
            return False
        return isinstance(outcome, Hello) and outcome.user_id == self.user_id

    def _cut(self) -> None:
        """End the connection in all processes that have a copy of the socket."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.close()
