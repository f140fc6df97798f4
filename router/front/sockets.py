"""A client's socket while a front has it, and what all of them share.

A front may hand a socket to a worker, or to the page server, as if it had never been touched; so it peeks (MSG_PEEK), and takes out of the
kernel only what it has dealt with itself. Epoll is level-triggered: a socket with bytes that nobody takes stays readable, and the
loop would spin. Hence the mark SO_RCVLOWAT: the kernel keeps quiet until as many bytes are there as make it worth looking again, so a
client that sends one byte at a time costs nothing either. Three things wake us below the mark:

* the client is gone (FIN or RST, which make a socket readable whatever the mark says): then no more bytes will come;
* the kernel is short of memory, or the socket's receive buffer is full, and wants to be read from at any mark: the socket is *parked*,
  which is to say looked at by the next tick, four times a second. (Half a message fills the buffer when it shares memory with a lot that
  has been taken already; it takes 100 KiB of refused messages to get there.) Its buffer becomes larger, or the other half never came;
* the bytes came before the mark was set: the normal case, since the first look happens without waiting.

uvloop, other than asyncio, calls a reader only once when a connection was reset. So whoever goes to wait for more asks first whether
more can come.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import defaultdict
from typing import Any, Final, NamedTuple

from core.events import close_level, fields
from core.measures import series
from core.process import addresses
from core.wire import frames
from core.wire.protocol import CloseCode
from router.front.address_limits import DENIALS, AddressLimits, Denial, Slot
from router.front.lingering import Lingering, reset

_log = logging.getLogger("fastchat.front")

#: ``tcpi_state`` in the first byte of ``struct tcp_info``; any other state means that no more bytes will come.
_ESTABLISHED: Final = 1
#: The receive buffer of a socket whose own was full of nothing to read; the kernel doubles this, and has its own upper limit.
_PARKED_RECEIVE_BYTES: Final = 256 * 1024


def is_connected(client: socket.socket) -> bool:
    """Return whether the other end may still send something: neither FIN nor RST has come."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


class Connection(NamedTuple):
    """A connection between two stages: its socket is open and does not block. If it is watched, the next stage watches it instead."""

    socket: socket.socket
    #: The client's host, and its port or 0 if that is not known.
    address: tuple[Any, ...]
    #: What it takes up among the connections from its host; None when that is not known yet.
    slot: Slot | None
    #: SO_RCVLOWAT.
    mark: int = 1
    #: What it is called in logs, also by its worker; empty before the upgrade.
    label: str = ""


class Sockets:
    """What all client sockets of one front share: the event loop, counters, limits by address, and the ways out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: AddressLimits) -> None:
        self.loop = loop
        self.addresses = limits
        self.lingering = Lingering(loop)
        #: Those that the kernel woke without need; they are looked at in the next tick.
        self.parked: set[PeekedSocket] = set()
        # From 0 on: of a counter that is not there before its first step, Prometheus does not see that step.
        self.counters: defaultdict[str, int] = defaultdict(
            int, {series("front_limited_total", limit=denial.limit): 0 for denial in DENIALS}
        )

    def count(self, name: str) -> None:
        """Add 1 to a counter: a series of ``core.process.metrics``."""
        self.counters[name] += 1

    def count_denial(self, denial: Denial, address: Any) -> None:
        """Count, and log, a connection that is too much."""
        self.count(series("front_limited_total", limit=denial.limit))
        if _log.isEnabledFor(logging.DEBUG):
            about = fields(address=format_address(address), reason=denial.sentence)
            _log.debug("a connection was too much", extra=about)

    def linger(self, client: socket.socket, last_words: bytes, *, awaits_close: bool = False) -> None:
        """Send the last bytes and close in good order (``router.front.lingering``)."""
        if not self.lingering.add(client, last_words, now(), awaits_close=awaits_close):
            self.count("front_not_read_total")

    def wake_parked(self) -> None:
        """Watch again those that were parked."""
        parked, self.parked = self.parked, set()
        for connection in parked:
            connection.watch()


class ClientSocket:
    """The base of what a connection is in a front.

    A subclass defines `forget`: leave all lists that the connection is in.
    """

    __slots__ = ("address", "descriptor", "label", "slot", "socket", "sockets", "user_id")

    def __init__(self, sockets: Sockets, connection: Connection) -> None:
        self.sockets = sockets
        self.socket = connection.socket
        self.address = connection.address
        self.slot = connection.slot
        self.label = connection.label
        #: As HELLO said; empty before.
        self.user_id = ""
        #: The number of the socket; it stays readable here after the socket was closed, for lists and logs.
        self.descriptor = connection.socket.fileno()

    def forget(self) -> None:
        """Leave all lists."""
        raise NotImplementedError

    def release(self) -> None:
        """Leave the event loop and all lists; the socket stays open and is the caller's."""
        self.forget()

    def leave(self) -> None:
        """Give back its slot. Harmless when that was done already."""
        slot, self.slot = self.slot, None
        if slot is not None:
            self.sockets.addresses.leave(slot)

    def write(self, data: bytes) -> bool:
        """Write `data` whole. What does not fit goes to a client that does not read: it is reset, and False returned."""
        try:
            if self.socket.send(data) == len(data):
                return True
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return False
        self.sockets.count("front_not_read_total")
        self.release()
        self.leave()
        reset(self.socket)
        return False

    def finish(self, last_words: bytes, *, awaits_close: bool = False) -> None:
        """Write the last thing that the client gets, and close once it had the time to read it, and to answer if it was a Close frame."""
        self.release()
        self.leave()
        self.sockets.linger(self.socket, last_words, awaits_close=awaits_close)

    def end(self, code: int, reason: str) -> None:
        """Close with a Close frame."""
        self.count_end(code, reason)
        self.finish(frames.close_frame(code, reason), awaits_close=True)

    def fail(self) -> None:
        """Tell the client that this is our fault."""
        self.end(CloseCode.INTERNAL_ERROR, "the server failed; its log says why")

    def close(self) -> None:
        """Close the socket without a word. Harmless when it is closed already."""
        self.release()
        self.leave()
        self.socket.close()

    def count_end(self, code: int, reason: str) -> None:
        """Count, and log, that the server closes the connection."""
        self.sockets.count(series("front_closed_total", code=str(int(code))))
        self.log(close_level(code), "a connection was closed by the server", code=int(code), reason=reason)

    def log(self, level: int, event: str, **about: object) -> None:
        """Log something about this connection."""
        if _log.isEnabledFor(level):
            user, address = self.user_id or None, format_address(self.address)
            _log.log(level, event, extra=fields(connection=self.label, user=user, address=address, **about))


class PeekedSocket(ClientSocket):
    """A connection that is watched: `handle_input` is called when there is something to see, and defined by a subclass."""

    __slots__ = ("_final", "_mark")

    def __init__(self, sockets: Sockets, connection: Connection) -> None:
        super().__init__(sockets, connection)
        #: SO_RCVLOWAT as it is now.
        self._mark = connection.mark
        #: The client is known to send no more, so what is there is all that there will be.
        self._final = False

    def hand_on(self) -> Connection:
        """Give the connection away to the next stage, which takes over watching it with its own `watch`."""
        self.sockets.parked.discard(self)
        self.forget()
        slot, self.slot = self.slot, None
        return Connection(self.socket, self.address, slot, self._mark, self.label)

    def release(self) -> None:
        self.unwatch()
        self.forget()

    def watch(self) -> None:
        """Call `handle_input` whenever the socket is readable; takes the place of whoever watched it before."""
        self.sockets.loop.add_reader(self.descriptor, self.on_readable)

    def unwatch(self) -> None:
        """Watch no more."""
        self.sockets.parked.discard(self)
        self.sockets.loop.remove_reader(self.descriptor)

    def park(self) -> None:
        """Look again at the next tick, and not before."""
        self.sockets.loop.remove_reader(self.descriptor)
        self.sockets.parked.add(self)

    def peek(self, size: int) -> bytes | None:
        """Return at most `size` of the bytes that wait. None when there are none; when there never will be any, the socket is closed."""
        try:
            data = self.socket.recv(size, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
            return None
        return data

    def consume(self, size: int) -> None:
        """Take `size` bytes out of the kernel; they have been peeked at, so they are there."""
        if size:
            self.socket.recv(size)

    def set_mark(self, total: int) -> None:
        """Be woken once `total` bytes wait, or the client is gone."""
        if total != self._mark:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, total)
            self._mark = total

    def wait_for(self, total: int, seen: int, consumed: int = 0) -> None:
        """Wait for `total` bytes, after `seen` were there and `consumed` of them were taken. Closes when they will never come."""
        if self._final:
            # Closing with bytes unread would be a reset, and destroy our answers on their way.
            self.consume(seen - consumed)
            self.close()
        elif not is_connected(self.socket):
            # More may have come between looking and asking; now that it is settled that nothing follows, the next look is the last.
            self._final = True
            self.handle_input()
        elif consumed or seen >= self._mark:
            self.set_mark(total)
        else:
            # What is left of a large segment holds all of its memory, and a full buffer takes no more, not even the rest of the frame.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PARKED_RECEIVE_BYTES)
            self.park()
            self.sockets.count("front_parked_total")

    def handle_input(self) -> None:
        """Handle what there is to see; there may be nothing."""
        raise NotImplementedError

    def on_readable(self) -> None:
        """Look, whether the kernel said so or it is the last moment: a busy event loop calls timers before it asks the kernel."""
        try:
            self.handle_input()
        except Exception:
            _log.exception("bug with a connection", extra=fields(address=format_address(self.address)))
            self.sockets.count("front_bugs_total")
            self.fail()


def format_address(address: Any) -> str:
    """Return ``127.0.0.1:40000`` or ``[::1]:40000``; without the port when a proxy stands between, and it is not known."""
    return addresses.format_address(address[0], address[1])


def now() -> float:
    """Return the clock of all deadlines in a front, in seconds."""
    return time.monotonic()
