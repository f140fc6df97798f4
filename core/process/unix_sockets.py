"""What the kernel tells of a unix socket: who is at the other end, whether anybody still is, and which descriptors have come."""

from __future__ import annotations

import array
import select
import socket
import struct
from collections.abc import Iterable
from typing import Final

#: ``struct ucred``: process, user and group.
_CREDENTIALS: Final = struct.Struct("iII")


def peer_uid(connection: socket.socket) -> int:
    """Return the user whose process is at the other end (SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)


def is_hung_up(connection: socket.socket) -> bool:
    """Return whether the other end of a connection is closed in all processes. Data may still be there to read."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is told also to who asks for nothing
    return bool(poll.poll(0))


def descriptors_in(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message (SCM_RIGHTS), by what `recvmsg` returns; the caller's to close."""
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return numbers.tolist()
