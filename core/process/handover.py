"""What travels with a socket from the front to a worker, and what comes back.

A ticket goes out with one descriptor (SCM_RIGHTS) over a SEQPACKET queue, so message boundaries are the kernel's; the worker answers
with the numbers that it has adopted. Nothing is pickled: a few fixed fields, then the user id, the peer's address, the
connection's label and the bytes that the front had to take out of the kernel (`Ticket.carried`), each with its length.

A ticket of version 4 has more behind the fixed fields: what a token claims besides the user id (D34). One without such claims is still
written as version 3, which has all the rest: while a server is updated, fronts and workers of two versions run side by side.
"""

from __future__ import annotations

import math
import struct
from typing import Final, NamedTuple

from core.auth.proof import NO_PROOF, Proof

#: Sockets that may be on their way to one worker at once. A SEQPACKET queue holds about 167 messages, then EAGAIN; and a worker must
#: have that many spare descriptors, or the kernel drops sockets silently (MSG_CTRUNC).
IN_FLIGHT_MAX: Final = 128
#: The largest ticket: header, user id, address, label, a display name, and one message of 16 KiB.
TICKET_MAX_BYTES: Final = 17 * 1024

_VERSION: Final = 4
_WITHOUT_CLAIMS: Final = 3
_HEADER: Final = struct.Struct("!BIBBBBHd")
#: Whether the role is ``service``, and the bytes of the name; no name has none.
_CLAIMS: Final = struct.Struct("!BB")
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
    #: What the client's token has proven.
    proof: Proof = NO_PROOF


def encode_ticket(ticket: Ticket) -> bytes:
    """Return a ticket as one SEQPACKET message."""
    user_id, address, label = ticket.user_id.encode(), ticket.address.encode(), ticket.label.encode()
    sizes = (len(user_id), len(address), len(label))
    expires, name, service = ticket.proof
    version, claims, encoded = _WITHOUT_CLAIMS, b"", (name or "").encode()
    if encoded or service:
        version, claims = _VERSION, _CLAIMS.pack(service, len(encoded)) + encoded
    header = _HEADER.pack(version, ticket.number, *sizes, ticket.strikes, len(ticket.carried), expires)
    return header + claims + user_id + address + label + ticket.carried


def decode_ticket(data: bytes) -> Ticket:
    """Undo `encode_ticket`. Raises ValueError when it is not one: the two ends run different versions."""
    if len(data) < _HEADER.size:
        raise ValueError(
            f"expected a hand-over ticket of at least {_HEADER.size} bytes, not of {len(data)} bytes"
        )
    version, number, user_size, address_size, label_size, strikes, carried_size, expires = (
        _HEADER.unpack_from(data)
    )
    service, name_start, user_start = (
        _claims(data) if version == _VERSION else (False, _HEADER.size, _HEADER.size)
    )
    address_start = user_start + user_size
    label_start = address_start + address_size
    carried_start = label_start + label_size
    if (
        version not in (_WITHOUT_CLAIMS, _VERSION)
        or len(data) != carried_start + carried_size
        or not 0.0 <= expires < math.inf
    ):
        raise ValueError(
            f"expected a hand-over ticket of version {_WITHOUT_CLAIMS} or {_VERSION}, not of version {version} with {len(data)} bytes"
        )
    return Ticket(
        number,
        data[user_start:address_start].decode(),
        data[address_start:label_start].decode(),
        strikes,
        data[carried_start:],
        data[label_start:carried_start].decode(),
        Proof(expires, data[name_start:user_start].decode() or None, service),
    )


def _claims(data: bytes) -> tuple[bool, int, int]:
    """Return the role in a ticket of version 4, and where the name and the user id begin. Raises ValueError."""
    start = _HEADER.size + _CLAIMS.size
    if len(data) < start:
        raise ValueError(f"expected a hand-over ticket of at least {start} bytes, not of {len(data)} bytes")
    service, size = _CLAIMS.unpack_from(data, _HEADER.size)
    if service > 1 or not (service or size):
        raise ValueError(f"expected a role or a name in a hand-over ticket of version {_VERSION}")
    return bool(service), start, start + size


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
