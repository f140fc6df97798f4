"""What a worker process gives to the one that takes its place, over a stream socket.

    predecessor                                  successor
        | connect ------------------------------> | listens at `succession_endpoint`
        | RECORDS ... RECORDS ------------------> | what is in memory (``core.chat.succession``, ``workers.inheritance``), and the
        | (the store closes meanwhile)            | sockets, which the event loop gets, and which are not read from
        | CLOSED, with figures -----------------> | opens the store, resumes the sessions, reads from the clients
        | <------------------------------ a byte  | has done so
        | ENVELOPE ... ENVELOPE ----------------> | what other workers have sent to the predecessor since it stopped
        | END ----------------------------------> | nothing follows: each other worker sends to the successor now
        | exits                                   |

When the number of workers changes, each old process connects to each new one, and sends it what is about the users who will be there.
CLOSED says from which worker this was, and is the last packet: all workers have come to rest before, so nothing is on its way.

A packet is a head, with as many descriptors (SCM_RIGHTS) as it says, and a body. The sockets of a record come in its packet, or before.
"""

from __future__ import annotations

import socket
import struct
import time
from array import array
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from errno import ETOOMANYREFS
from typing import Final, NamedTuple

from core.process.unix_sockets import descriptors_in

#: The counter of connections that could not be taken over; it goes on in the successor.
NOT_MOVED: Final = "not_moved_total"

_VERSION: Final = 1
#: version, kind, descriptors, bytes of the body
_HEAD: Final = struct.Struct("!BBHI")
#: Descriptors that the kernel takes with one message (SCM_MAX_FD).
DESCRIPTORS_MAX: Final = 253
#: Seconds until the kernel is asked again when too many descriptors are on their way; the other side takes them meanwhile.
_RETRY: Final = 0.001
#: Bytes that are read at once.
_READ_BYTES: Final = 256 * 1024
#: How many bytes of ancillary data that many descriptors are.
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * array("i").itemsize)
_LOST: Final = "sockets were lost on their way: too few file descriptors"


class Kind(IntEnum):
    """See above."""

    RECORDS = 1
    CLOSED = 2
    ENVELOPE = 3
    END = 4


class Packet(NamedTuple):
    """What came, with the sockets, which now are the receiver's."""

    kind: int
    body: bytes
    sockets: list[socket.socket]


def succession_endpoint(run_dir: str, worker: int) -> str:
    """Return the path on which the successor of a worker process waits for it."""
    return f"{run_dir}/succession-{worker}"


def send_packet(
    channel: socket.socket, kind: Kind, body: bytes = b"", descriptors: Sequence[int] = ()
) -> None:
    """Send a packet with at most `DESCRIPTORS_MAX` descriptors.

    Blocks; raises OSError when the other side is gone, or does not take it within the timeout of the socket.
    """
    packet = _HEAD.pack(_VERSION, kind, len(descriptors), len(body)) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    while True:
        try:
            sent = channel.sendmsg([packet], rights)
            break
        except OSError as error:
            if error.errno != ETOOMANYREFS:
                raise
            time.sleep(_RETRY)
    if sent < len(packet):
        channel.sendall(packet[sent:])


class PacketReader:
    """Takes packets from one channel as they come: `read` whenever it is readable."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unparsed = bytearray()
        #: Descriptors that have come; they come with the first byte of their packet.
        self._descriptors: deque[int] = deque()

    def read(self) -> list[Packet]:
        """Read once, and return the packets that are complete by that; the sockets are non-blocking.

        Raises OSError, also for the end of the stream, and ValueError for what is no packet.
        """
        data, ancillary, flags, _ = self._channel.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        self._descriptors.extend(descriptors_in(ancillary))
        if not data:
            raise ConnectionResetError("the other process is gone")
        if flags & socket.MSG_CTRUNC:
            raise OSError(_LOST)
        self._unparsed += data
        packets = []
        while (packet := self._next()) is not None:
            packets.append(packet)
        return packets

    def _next(self) -> Packet | None:
        if len(self._unparsed) < _HEAD.size:
            return None
        version, kind, count, size = _HEAD.unpack_from(self._unparsed)
        if version != _VERSION:
            raise ValueError(f"expected a packet of version {_VERSION}, not of version {version}")
        if len(self._descriptors) < count:
            raise OSError(_LOST)
        end = _HEAD.size + size
        if len(self._unparsed) < end:
            return None
        body = bytes(self._unparsed[_HEAD.size : end])
        del self._unparsed[:end]
        sockets = [socket.socket(fileno=self._descriptors.popleft()) for _ in range(count)]
        for each in sockets:
            each.setblocking(False)
        return Packet(kind, body, sockets)
