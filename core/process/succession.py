"""What a worker process gives to the one that takes its place, over a stream socket.

    predecessor                                  successor
        | connect ------------------------------> | listens at `succession_endpoint`
        | RECORD ... RECORD --------------------> | what is in memory, and the sockets (``core.chat.succession``, ``workers.inheritance``)
        | (closes the store)                      |
        | CLOSED, with figures -----------------> | opens the store, resumes the sessions, reads from the clients
        | <------------------------------ a byte  | has done so
        | ENVELOPE ... ENVELOPE ----------------> | what other workers have sent to the predecessor since it stopped
        | END ----------------------------------> | nothing follows: each other worker sends to the successor now
        | exits                                   |

A packet is a head, with as many descriptors (SCM_RIGHTS) as it says, and a body.
"""

from __future__ import annotations

import socket
import struct
import time
from array import array
from collections.abc import Sequence
from enum import IntEnum
from errno import ETOOMANYREFS
from typing import Final, NamedTuple

#: The counter of connections that could not be taken over; it goes on in the successor.
NOT_MOVED: Final = "not_moved_total"

_VERSION: Final = 1
#: version, kind, descriptors, bytes of the body
_HEAD: Final = struct.Struct("!BBHI")
#: Descriptors that the kernel takes with one message (SCM_MAX_FD).
DESCRIPTORS_MAX: Final = 253
#: Seconds until the kernel is asked again when too many descriptors are on their way; the other side takes them meanwhile.
_RETRY: Final = 0.001


class Kind(IntEnum):
    """See above."""

    RECORD = 1
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
    """Send a packet. Blocks; raises OSError when the other side is gone, or does not take it within the timeout of the socket."""
    head = _HEAD.pack(_VERSION, kind, len(descriptors), len(body))
    while True:
        try:
            if descriptors:
                socket.send_fds(channel, [head], list(descriptors))
            else:
                channel.sendall(head)
            break
        except OSError as error:
            if error.errno != ETOOMANYREFS:
                raise
            time.sleep(_RETRY)
    if body:
        channel.sendall(body)


def receive_packet(channel: socket.socket) -> Packet:
    """Receive the next packet. Blocks; raises OSError, also for the end of the stream, and ValueError for what is no packet."""
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * array("i").itemsize)
    head, ancillary, flags, _ = channel.recvmsg(_HEAD.size, room, socket.MSG_WAITALL)
    descriptors = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    if len(head) < _HEAD.size:
        raise ConnectionResetError("the other process is gone")
    version, number, count, size = _HEAD.unpack(head)
    if version != _VERSION:
        raise ValueError(f"expected a packet of version {_VERSION}, not of version {version}")
    if flags & socket.MSG_CTRUNC or len(sockets) != count:
        raise OSError("sockets were lost on their way: too few file descriptors")
    body = bytearray()
    while len(body) < size:
        part = channel.recv(size - len(body))
        if not part:
            raise ConnectionResetError("the other process is gone")
        body += part
    return Packet(number, bytes(body), sockets)
