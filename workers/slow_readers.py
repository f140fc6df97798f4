"""Clients that do not read what they are sent (D29): what waits for all of them together, and closing those that have stopped reading.

What waits for a client costs memory here as long as the client leaves it there, and a heartbeat does not find that out: such a client may
go on sending. So whoever has more than `SLOW_READER_BYTES` unread is looked at once a second, and closed when the kernel has not got rid
of a single byte for as long as ``workers.limits`` says.

Only those are looked at for whom a write did not get through at once (`watch`), so that the others cost nothing; the heartbeat adds those
whose unread bytes are all in the kernel.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final, Protocol

from core.wire.protocol import SLOW_READER_BYTES
from workers.limits import Limits

#: The most seconds that one look counts for. While this process stood still nobody could be sent anything, so that time is nobody's fault.
_LOOK_SECONDS_MAX: Final = 2.0
#: ioctl(2) of a TCP socket: bytes that the other side has not acknowledged. See tcp(7); Python has no name for it.
_SIOCOUTQ: Final = 0x5411
#: Where `tcpi_bytes_acked`, 64 bits, is in `struct tcp_info`.
_BYTES_ACKED: Final = 120


def queued_bytes(descriptor: int) -> int:
    """Return what the kernel holds of a TCP socket's output until the other side acknowledges it; 0 when it has been closed."""
    try:
        answer = fcntl.ioctl(descriptor, _SIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    queued: int
    (queued,) = struct.unpack("i", answer)
    return queued


def acknowledged_bytes(sock: socket.socket) -> int:
    """Return what the other side of a TCP connection has acknowledged since it began."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED + 8)
    acknowledged: int
    (acknowledged,) = struct.unpack_from("Q", info, _BYTES_ACKED)
    return acknowledged


class Reader(Protocol):
    """The connection of a client."""

    @property
    def limits(self) -> Limits:
        """How long it may take nothing."""

    def unsent(self) -> int:
        """Return bytes that wait in this process."""

    def unread(self) -> int:
        """Return the same and what the kernel holds of its output; 0 for a connection that is ending."""

    def taken(self) -> int:
        """Return bytes that the client's side has taken since the connection began. Raises OSError when it is broken."""

    def stopped_reading(self, now: float) -> None:
        """Close it."""


class _Stall:
    """How long nothing has moved."""

    __slots__ = ("seconds", "taken")

    def __init__(self) -> None:
        #: At the last look; -1 when there was too little unread for that to matter.
        self.taken = -1
        self.seconds = 0.0


class SlowReaders:
    """`watch` a connection that has something unread; `look` once a second."""

    def __init__(self, now: float) -> None:
        self._looked_at = now
        self._stalls: dict[Reader, _Stall] = {}

    def watch(self, reader: Reader) -> None:
        """Watch it from now on, until nothing is unread."""
        if reader not in self._stalls:
            self._stalls[reader] = _Stall()

    def forget(self, reader: Reader) -> None:
        """Note that a connection has ended."""
        self._stalls.pop(reader, None)

    def sample(self, now: float) -> int:
        """Close who has stopped reading. Returns the bytes that wait in this process for all clients together."""
        passed = min(now - self._looked_at, _LOOK_SECONDS_MAX)
        self._looked_at = now
        unsent = 0
        for reader, stall in list(self._stalls.items()):
            try:
                if self._has_stopped(reader, stall, passed):
                    reader.stopped_reading(now)
            except OSError:
                self.forget(reader)  # The connection is broken; its transport is about to say so.
            unsent += reader.unsent()
        return unsent

    def _has_stopped(self, reader: Reader, stall: _Stall, passed: float) -> bool:
        unread = reader.unread()
        if not unread:
            self.forget(reader)
        if unread <= SLOW_READER_BYTES:
            stall.taken = -1
            return False
        taken = reader.taken()
        if taken != stall.taken:
            stall.taken, stall.seconds = taken, 0.0
            return False
        stall.seconds += passed
        return stall.seconds >= reader.limits.slow_reader
