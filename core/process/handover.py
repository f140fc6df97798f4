"""What travels with a socket from the front to a worker, and what comes back.

A ticket goes out with one descriptor (SCM_RIGHTS) over a SEQPACKET queue, so message boundaries are the kernel's; the worker answers
with the numbers that it has adopted. Nothing is pickled: a few fixed fields, then the user id, the peer's address, the
connection's label and the bytes that the front had to take out of the kernel (`Ticket.carried`), each with its length.
"""

from __future__ import annotations

import math
import struct
from typing import Final, NamedTuple

#: Sockets that may be on their way to one worker at once. A SEQPACKET queue holds about 167 messages, then EAGAIN; and a worker must
#: have that many spare descriptors, or the kernel drops sockets silently (MSG_CTRUNC).
IN_FLIGHT_MAX: Final = 128
#: The largest ticket: header, user id, address, label, and one message of 16 KiB.
TICKET_MAX_BYTES: Final = 17 * 1024

_VERSION: Final = 3
_HEADER: Final = struct.Struct("!BIBBBBHd")
_ADOPTED: Final = struct.Struct("!I")


class Ticket(NamedTuple):
    """The claim that comes with a socket: who the client said it is."""

    #: The front's number for this hand-over, unique among those in flight on one queue; `adopted` answers with it.
    number: int
    #: As the first message says; the worker checks that.
    user_id: str
    #: The client's address as text, for logs and limits.
    address: str
    #: Invalid messages that the client has sent within the last minute.
    strikes: int
    #: Bytes that the client sent and that are no longer in the kernel: whole client frames, to be parsed before the socket is read.
    carried: bytes
    #: What the connection is called in logs, from the front on.
    label: str = ""
    #: When the token expires that has proven who it is, in seconds since 1970; 0 where none has to.
    expires: float = 0.0


def encode_ticket(ticket: Ticket) -> bytes:
    """Return a ticket as one SEQPACKET message."""
    user_id, address, label = ticket.user_id.encode(), ticket.address.encode(), ticket.label.encode()
    sizes = (len(user_id), len(address), len(label))
    header = _HEADER.pack(
        _VERSION, ticket.number, *sizes, ticket.strikes, len(ticket.carried), ticket.expires
    )
    return header + user_id + address + label + ticket.carried


def decode_ticket(data: bytes) -> Ticket:
    """Undo `encode_ticket`. Raises ValueError when it is not one: the two ends run different versions."""
    if len(data) < _HEADER.size:
        raise ValueError(
            f"expected a hand-over ticket of at least {_HEADER.size} bytes, not of {len(data)} bytes"
        )
    version, number, user_size, address_size, label_size, strikes, carried_size, expires = (
        _HEADER.unpack_from(data)
    )
    address_start = _HEADER.size + user_size
    label_start = address_start + address_size
    carried_start = label_start + label_size
    if version != _VERSION or len(data) != carried_start + carried_size or not 0.0 <= expires < math.inf:
        raise ValueError(
            f"expected a hand-over ticket of version {_VERSION}, not of version {data[0]} with {len(data)} bytes"
        )
    return Ticket(
        number,
        data[_HEADER.size : address_start].decode(),
        data[address_start:label_start].decode(),
        strikes,
        data[carried_start:],
        data[label_start:carried_start].decode(),
        expires,
    )


def encode_adopted(numbers: list[int]) -> bytes:
    """Encode the worker's answer: these sockets are now its own. It is sent *before* the first byte is read from any of them."""
    return b"".join(map(_ADOPTED.pack, numbers))


def decode_adopted(data: bytes) -> list[int]:
    """Undo `encode_adopted`. Raises ValueError for a length that is not a multiple of four."""
    if len(data) % _ADOPTED.size:
        raise ValueError(
            f"expected numbers of adopted sockets, {_ADOPTED.size} bytes each, not {len(data)} bytes"
        )
    return [number for (number,) in _ADOPTED.iter_unpack(data)]


def endpoint(run_dir: str, worker: int) -> str:
    """Return the path of the SEQPACKET socket on which a worker takes sockets over; it listens once the worker has booted."""
    return f"{run_dir}/handover-{worker}"
