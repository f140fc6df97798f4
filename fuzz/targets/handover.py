"""What travels with a socket: ``core.process.handover``. A front is trusted, but one of another version must not be misunderstood."""

from __future__ import annotations

from random import Random
from typing import Final

from core.auth.proof import Proof
from core.process.handover import Ticket, decode_adopted, decode_ticket, encode_adopted, encode_ticket
from fuzz.mutate_bytes import SIZE_MAX, mutate_bytes
from fuzz.target import Target


def check(data: bytes) -> bool:
    """Whether it is a ticket."""
    try:
        assert encode_adopted(decode_adopted(data)) == data
    except ValueError:
        assert len(data) % 4
    try:
        ticket = decode_ticket(data)
    except ValueError:
        return False
    assert all(type(field) in (int, str, bytes, Proof) for field in ticket)
    assert encode_ticket(ticket) == data
    assert decode_ticket(encode_ticket(ticket)) == ticket
    return True


def mutate(data: bytes, rng: Random) -> bytes:
    """Change bytes of a ticket, or make another one."""
    if rng.randrange(3) == 0:
        return mutate_bytes(data, rng)
    user_id, address = (
        rng.choice(("", "x", "é" * 9, "u" * 64)),
        rng.choice(("", "127.0.0.1:1", "[::1]:65535")),
    )
    carried = rng.choice((b"", b"\x81\x80\0\0\0\0", rng.randbytes(300)))
    proof = Proof(rng.choice((0.0, 1.7e9)), rng.choice((None, "A", "é" * 50)), bool(rng.randrange(2)))
    ticket = Ticket(
        rng.getrandbits(32), user_id, address, rng.randrange(256), carried, rng.choice(("", "1-1")), proof
    )
    made = encode_ticket(ticket)
    return made if rng.randrange(2) else mutate_bytes(made, rng)[:SIZE_MAX]


TARGET: Final = Target(check, mutate, "the ticket", ("core.process.handover",))
