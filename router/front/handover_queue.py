"""The queue of sockets from a front to one worker (``core.process.handover`` says what is said on it).

A SEQPACKET connection to the endpoint that the worker opens once it has booted. It is made when the first socket wants to go there, and
tried again as long as sockets wait: the worker may be restarting. At most `IN_FLIGHT_MAX` sockets are under way at once, which neither
fills the queue in the kernel nor the worker's descriptor table; the others wait here, first come, first served.

When the queue breaks, the worker's last `adopted` may still be in it, and they count: those sockets have been read from. All others come
back (`Waiting.returned`) and wait for the worker's next process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from core.events import fields
from core.process.handover import IN_FLIGHT_MAX, Ticket, decode_adopted, encode_ticket, endpoint

_log = logging.getLogger("fastchat.front")

#: Seconds between two tries to reach a worker that is away; its users are to be back soon after it is.
_RETRY: Final = 0.05
#: Seconds until the kernel is asked again when it has no room for one more descriptor on its way.
_FULL_RETRY: Final = 0.02
#: Not the queue is broken, but the kernel is short of something for the moment.
_SHORTAGES: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
#: Room for the numbers of all sockets that can be in flight, several times over.
_ANSWER_BYTES: Final = 4096
#: Numbers are 32 bits wide on the wire.
_NUMBER_MASK: Final = 0xFFFFFFFF


class Waiting(Protocol):
    """A socket that is to go to a worker, as its queue knows it."""

    descriptor: int
    label: str
    #: Its number while it is in flight.
    number: int | None

    def ticket(self, number: int) -> Ticket:
        """Describe what goes to the worker with the socket."""

    def adopted(self) -> None:
        """Give up this process's copy: the worker has the socket."""

    def returned(self) -> bool:
        """Take the socket back from a worker that ended before it said `adopted`; whether it may wait for the next one."""

    def fail(self) -> None:
        """Tell the client that this is our fault."""


class HandoverQueue:
    """The sockets of one front that are to go, or are under way, to worker `worker`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, run_dir: str, worker: int, count: Callable[[str], None]
    ) -> None:
        self.worker = worker
        self._loop = loop
        self._path = endpoint(run_dir, worker)
        self._count = count
        #: Who waits, in order.
        self._waiting: OrderedDict[Waiting, None] = OrderedDict()
        #: number -> who is under way; None when that one was ended meanwhile, and only the worker's word is outstanding.
        self._in_flight: dict[int, Waiting | None] = {}
        self._number = 0
        #: The connection to the worker, when there is one.
        self._socket: socket.socket | None = None
        #: The kernel takes no more for now; `_unblock` will be called.
        self._blocked = False
        #: A timer will call `_try_again`.
        self._retrying = False

    # -- What a front asks --

    def put(self, client: Waiting) -> None:
        """Hand `client` over as soon as may be. Nobody may read from its socket from now on."""
        self._waiting[client] = None
        self._pump()

    def forget(self, client: Waiting) -> None:
        """Forget `client`, which came to its end here, whether it waits, is under way or is not known."""
        self._waiting.pop(client, None)
        if client.number is not None:
            self._in_flight[client.number] = None

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def in_flight_count(self) -> int:
        return len(self._in_flight)

    def retire(self) -> None:
        """Hand over no more sockets: what the worker, which must take no more, has not adopted may go to another queue."""
        if self._socket is not None:
            self._take_answers(self._socket)
            self._disconnect(self._socket)
        self._take_back()
        self._waiting.clear()

    def close(self) -> None:
        """Hand over no more sockets; those that are under way are the worker's or nobody's."""
        if self._socket is not None:
            self._disconnect(self._socket)

    # -- To the worker --

    def _pump(self) -> None:
        """Send while there is something to send, room to send it, and someone to send it to."""
        if self._socket is None and not self._connect():
            self._try_again_in(_RETRY)
        queue = self._socket
        while (
            self._waiting and len(self._in_flight) < IN_FLIGHT_MAX and not self._blocked and queue is not None
        ):
            client, _ = self._waiting.popitem(last=False)
            self._number = number = (self._number + 1) & _NUMBER_MASK
            try:
                socket.send_fds(queue, [encode_ticket(client.ticket(number))], [client.descriptor])
            except OSError as error:
                if not isinstance(error, BlockingIOError | ConnectionError) and error.errno not in _SHORTAGES:
                    about = fields(worker=self.worker, connection=client.label, reason=error.strerror)
                    _log.error("can't hand a socket over", extra=about)
                    client.fail()
                    continue
                self._waiting[client] = None
                self._waiting.move_to_end(client, last=False)
                self._refused(queue, error)
                return
            client.number = number
            self._in_flight[number] = client
            self._count("front_handed_over_total")

    def _refused(self, queue: socket.socket, error: OSError) -> None:
        """Note that the kernel did not take a message."""
        if isinstance(error, BlockingIOError):
            self._blocked = True
            self._loop.add_writer(queue.fileno(), self._unblock)
        elif isinstance(error, ConnectionError):
            self._take_answers(queue)
            self._broken(queue)
        else:
            self._count("front_handover_shortages_total")
            self._blocked = True
            self._loop.call_later(_FULL_RETRY, self._unblock)

    def _unblock(self) -> None:
        self._blocked = False
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._pump()

    def _connect(self) -> bool:
        try:
            queue = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        except OSError:
            return False
        try:
            queue.connect(self._path)
        except OSError:
            queue.close()
            return False
        self._socket = queue
        self._blocked = False
        self._loop.add_reader(queue.fileno(), self._read, queue)
        return True

    def _try_again_in(self, seconds: float) -> None:
        if not self._retrying:
            self._retrying = True
            self._loop.call_later(seconds, self._try_again)

    def _try_again(self) -> None:
        self._retrying = False
        if self._waiting:
            self._pump()

    # -- From the worker --

    def _read(self, queue: socket.socket) -> None:
        if self._take_answers(queue):
            self._pump()
        else:
            self._broken(queue)

    def _take_answers(self, queue: socket.socket) -> bool:
        """Take in all that the worker has said; whether it may say more."""
        reset = False
        while True:
            try:
                answer = queue.recv(_ANSWER_BYTES)
            except BlockingIOError:
                return not reset
            except OSError:
                # The worker went with messages of ours unread. That is said first, and once; what it had sent before comes after it.
                if reset:
                    return False
                reset = True
                continue
            if not answer:
                return False
            try:
                numbers = decode_adopted(answer)
            except ValueError as error:
                # Giving up the queue would be worse: the worker lives, and could take from it what we then hand over again.
                _log.error(
                    "a worker and this front do not fit", extra=fields(worker=self.worker, reason=str(error))
                )
                continue
            for number in numbers:
                self._adopted(number)

    def _adopted(self, number: int) -> None:
        try:
            client = self._in_flight.pop(number)
        except KeyError:
            _log.error("a worker adopted a socket that was not on its way", extra=fields(worker=self.worker))
            return
        if client is not None:
            client.adopted()
        self._count("front_adopted_total")

    def _broken(self, queue: socket.socket) -> None:
        """Take back who was under way: the worker is gone, or wants no more from this connection."""
        self._disconnect(queue)
        about = fields(
            worker=self.worker, count=sum(client is not None for client in self._in_flight.values())
        )
        _log.info("the way to a worker broke; what it had not adopted comes back", extra=about)
        self._take_back()
        if self._waiting:
            self._try_again_in(_RETRY)

    def _take_back(self) -> None:
        """Let those wait again who were under way, before the others."""
        under_way = [client for client in self._in_flight.values() if client is not None]
        self._in_flight.clear()
        for client in reversed([client for client in under_way if client.returned()]):
            self._count("front_returned_total")
            self._waiting[client] = None
            self._waiting.move_to_end(client, last=False)

    def _disconnect(self, queue: socket.socket) -> None:
        self._loop.remove_reader(queue.fileno())
        self._loop.remove_writer(queue.fileno())
        queue.close()
        self._socket = None
