"""Taking sockets over from the fronts.

The worker listens on a SEQPACKET socket in the run directory; each front connects once and sends tickets, each with one descriptor. A
worker says `adopted` before it reads a byte from a socket: so when it dies, the front knows that every socket without that word is still
untouched, and can hand it to the next process of this worker.

A worker that can't take a socket as it should (MSG_CTRUNC: the descriptor table was full, and the kernel dropped it) closes the queue:
the front then takes everything back that was not adopted, and tries again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from core.events import fields
from core.process.handover import TICKET_MAX_BYTES, Ticket, decode_ticket, encode_adopted
from core.process.unix_sockets import descriptors_in

_log = logging.getLogger("fastchat.worker")

#: Sockets taken in one go, so that a storm of newcomers leaves the loop time for those who are there.
_BATCH: Final = 32
#: Fronts that may wait to be accepted.
_BACKLOG: Final = 64
#: Seconds until a front is let in that can't be for want of descriptors.
_PAUSE: Final = 0.25
#: Seconds between two log lines that say that there is no room.
_LOG_INTERVAL: Final = 10.0


class HandoverListener:
    """Listens for fronts and gives every socket that they hand over to `adopt`."""

    def __init__(
        self,
        path: str,
        loop: asyncio.AbstractEventLoop,
        adopt: Callable[[Ticket, socket.socket], None],
        capacity: Callable[[], int],
    ) -> None:
        """`capacity` says how many more sockets can be taken now; while it is 0 they wait where they are."""
        self._path = path
        self._loop = loop
        self._adopt = adopt
        self._capacity = capacity
        self._fronts: set[socket.socket] = set()
        self._stopped_reading = False
        self._closed = False
        self._next_log = 0.0
        #: Sockets taken, tickets that came without their descriptor, and times that there was no room.
        self.adopted = 0
        self.truncated = 0
        self.pauses = 0
        self._listener = _open_listener(path)
        self._listen()

    async def reopen(self) -> None:
        """Listen under the same name again, which was taken away, or after `close`. Raises OSError; then everything is as it was."""
        listener = _open_listener(self._path)
        if not self._closed:
            self._accept()  # who still found the old one
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        self._closed = False
        self._listener = listener
        self._listen()

    def close(self) -> None:
        """Take no more sockets; the fronts take back what is in the queues. A second call changes nothing."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        with suppress(OSError):  # somebody may have swept it away, and its directory
            os.unlink(self._path)
        for front in list(self._fronts):
            self._drop(front)

    def resume(self) -> None:
        """Go on reading after `capacity` was 0."""
        if self._stopped_reading and self._capacity() > 0:
            self._stopped_reading = False
            for front in self._fronts:
                self._loop.add_reader(front.fileno(), self._read, front)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                front, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                # It stays readable, so looking at it again at once would take all the time there is.
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_PAUSE, self._listen)
                self._no_room("can't accept a front for a moment", error.strerror)
                return
            front.setblocking(False)
            self._fronts.add(front)
            self._loop.add_reader(front.fileno(), self._read, front)

    def _drop(self, front: socket.socket) -> None:
        self._loop.remove_reader(front.fileno())
        self._fronts.discard(front)
        front.close()

    def _read(self, front: socket.socket) -> None:
        taken: list[tuple[Ticket, socket.socket]] = []
        gone = False
        for _ in range(min(_BATCH, self._capacity())):
            try:
                data, ancillary, flags, _ = front.recvmsg(TICKET_MAX_BYTES, socket.CMSG_SPACE(4))
            except BlockingIOError:
                break
            except OSError as error:
                _log.warning("the queue of a front broke", extra=fields(reason=error.strerror))
                gone = True
                break
            if not data:
                gone = True
                break
            descriptors = descriptors_in(ancillary)
            if flags & socket.MSG_CTRUNC or len(descriptors) != 1:
                self.truncated += 1
                _log.error(
                    "a hand-over came without its socket: too few file descriptors? The front will try again"
                )
                gone = True
                break
            client = socket.socket(fileno=descriptors[0])
            try:
                taken.append((decode_ticket(data), client))
            except ValueError as error:
                _log.error("a front and this worker do not fit", extra=fields(reason=str(error)))
                client.close()
                gone = True
                break
        if taken:
            # The front may be dead already; then the sockets are ours alone, which is just as well. A live one always has room for
            # the answer: less of them can be on their way than the queue holds.
            with suppress(OSError):
                front.send(encode_adopted([ticket.number for ticket, _ in taken]))
        if gone:
            self._drop(front)
        for ticket, client in taken:
            self.adopted += 1
            self._adopt(ticket, client)
        if self._capacity() <= 0 and not self._stopped_reading:
            self._stopped_reading = True
            for each in self._fronts:
                self._loop.remove_reader(each.fileno())
            self._no_room("no room for more connections: newcomers wait", "too few file descriptors")

    def _no_room(self, event: str, reason: str | None) -> None:
        self.pauses += 1
        if self._loop.time() >= self._next_log:
            self._next_log = self._loop.time() + _LOG_INTERVAL
            _log.warning(event, extra=fields(reason=reason))


def _open_listener(path: str) -> socket.socket:
    """Open a socket that listens at `path`, in place of whatever has that name."""
    with suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
