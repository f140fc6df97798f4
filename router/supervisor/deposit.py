"""How open files get to the keeper (``router.supervisor.keeper``) and from there to the next supervisor: over SEQPACKET sockets.

A deposit is one packet or several. Each has one byte, which says whether more follow, and as many descriptors as
the kernel takes with one message (SCM_RIGHTS).
The first descriptor of all is that of the state, the others are those that stand in the state, in the order of their numbers there.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final

from core.process.succession import DESCRIPTORS_MAX
from core.process.unix_sockets import descriptors_in

#: What the next supervisor answers: the processes are its own now, or they are to end.
TAKEN: Final = b"T"
END: Final = b"E"

_MORE: Final = b"\1"
_LAST: Final = b"\0"
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(DESCRIPTORS_MAX * struct.calcsize("i"))


def keeper_endpoint(run_dir: str) -> str:
    """Return the path at which a keeper listens whose supervisor has gone."""
    return f"{run_dir}/keeper"


def send_deposit(channel: socket.socket, descriptors: Sequence[int]) -> None:
    """Send a deposit, which may be empty. Raises OSError when the other side does not take it, or is gone."""
    first, rest = descriptors[:DESCRIPTORS_MAX], descriptors[DESCRIPTORS_MAX:]
    socket.send_fds(channel, [_MORE if rest else _LAST], first)
    if rest:
        send_deposit(channel, rest)


def receive_deposit(channel: socket.socket) -> list[int]:
    """Receive a deposit; its descriptors are the caller's. Raises EOFError when the other side is gone, and OSError."""
    received: list[int] = []
    try:
        while True:
            data, ancillary, flags, _ = channel.recvmsg(1, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
            received += descriptors_in(ancillary)
            if not data:
                raise EOFError("the other side is gone")
            if flags & socket.MSG_CTRUNC:
                raise OSError("descriptors were lost on their way: this process may have too few")
            if data == _LAST:
                return received
    except BaseException:
        close_all(received)
        raise


def close_all(descriptors: Iterable[int]) -> None:
    """Close them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
