"""A client's socket that is looked at without being read.

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

import logging
import socket
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from core.events import fields
from core.process import addresses

if TYPE_CHECKING:
    from router.front.address_limits import Place
    from router.front.reception import Reception

_log = logging.getLogger("fastchat.front")

#: ``tcpi_state`` in the first byte of ``struct tcp_info``; any other state means that no more bytes will come.
_ESTABLISHED: Final = 1
#: The receive buffer of a socket whose own was full of nothing to read; the kernel doubles this, and has its own upper limit.
_PARKED_RECEIVE_BYTES: Final = 256 * 1024
#: SO_LINGER, switched on, with a time of 0.
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def is_connected(client: socket.socket) -> bool:
    """Whether the other end may still send something: neither FIN nor RST has come."""
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED


class PeekedSocket:
    """The base of what a connection is in a front: `look` is called when there is something to see.

    A subclass defines `look`, `forget` (leave all lists that the connection is in) and `fail` (a bug of ours struck).
    """

    __slots__ = ("_final", "_mark", "address", "descriptor", "place", "reception", "socket")

    def __init__(self, reception: Reception, client: socket.socket, address: Any, mark: int = 1) -> None:
        """`client` is non-blocking and has SO_RCVLOWAT `mark`; `address` is the client's, and its port or 0 if that is not known."""
        self.reception = reception
        self.socket = client
        self.address = address
        #: The number of the socket; it stays readable here after the socket was closed, for lists and logs.
        self.descriptor = client.fileno()
        #: What it takes up among the connections from its address; None when that is not known yet, or given back.
        self.place: Place | None = None
        #: SO_RCVLOWAT as it is now.
        self._mark = mark
        #: The client is known to send no more, so what is there is all that there will be.
        self._final = False

    def watch(self) -> None:
        """Call `look` whenever the socket is readable; takes the place of whoever watched it before."""
        self.reception.loop.add_reader(self.descriptor, self.look_now)

    def unwatch(self) -> None:
        """The opposite of `watch`."""
        self.reception.parked.discard(self)
        self.reception.loop.remove_reader(self.descriptor)

    def peek(self, size: int) -> bytes | None:
        """At most `size` of the bytes that wait. None when there are none; when there never will be any, the socket is closed."""
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
        """The last look saw `seen` bytes and took `consumed` of them; be woken once `total` are there. Closes when they never will."""
        if self._final:
            # Closing with bytes unread would be a reset, and destroy our answers on their way.
            self.consume(seen - consumed)
            self.close()
        elif not is_connected(self.socket):
            # More may have come between looking and asking; now that it is settled that nothing follows, the next look is the last.
            self._final = True
            self.look()
        elif consumed or seen >= self._mark:
            self.set_mark(total)
        else:
            # What is left of a large segment holds all of its memory, and a full buffer takes no more, not even the rest of the frame.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PARKED_RECEIVE_BYTES)
            self.park()
            self.reception.count("front_parked_total")

    def park(self) -> None:
        """Look again at the next tick, and not before."""
        self.reception.loop.remove_reader(self.descriptor)
        self.reception.parked.add(self)

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
        self.reception.count("front_not_read_total")
        self.release()
        self.leave()
        reset(self.socket)
        return False

    def finish(self, last_words: bytes, *, awaits_close: bool = False) -> None:
        """Write the last thing that the client gets, and close once it had the time to read it, and to answer if it was a Close frame."""
        self.release()
        self.leave()
        self.reception.linger(self.socket, last_words, awaits_close=awaits_close)

    def close(self) -> None:
        """Close the socket without a word. Harmless when it is closed already."""
        self.release()
        self.leave()
        self.socket.close()

    def leave(self) -> None:
        """Give back what it takes up among the connections from its address. Harmless when that was done already."""
        place, self.place = self.place, None
        if place is not None:
            self.reception.addresses.leave(place)

    def release(self) -> None:
        """Leave the event loop and all lists; the socket stays open and is the caller's."""
        self.unwatch()
        self.forget()

    def look(self) -> None:
        """There may be something to see."""
        raise NotImplementedError

    def forget(self) -> None:
        """Leave all lists."""
        raise NotImplementedError

    def fail(self) -> None:
        """Tell the client that this is our fault."""
        raise NotImplementedError

    def look_now(self) -> None:
        """Look, whether the kernel said so or it is the last moment: a busy event loop calls timers before it asks the kernel."""
        try:
            self.look()
        except Exception:
            _log.exception("bug with a connection", extra=fields(address=format_address(self.address)))
            self.reception.count("front_bugs_total")
            self.fail()


def reset(client: socket.socket) -> None:
    """Close with RST: the kernel keeps nothing of what the client has not read."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    client.close()


def format_address(address: Any) -> str:
    """``127.0.0.1:40000`` or ``[::1]:40000``; without the port when a proxy stands between, and it is not known."""
    return addresses.format_address(address[0], address[1])


def now() -> float:
    """The clock of all deadlines in a front, in seconds."""
    return time.monotonic()
