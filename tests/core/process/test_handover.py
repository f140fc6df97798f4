"""core.process.handover: what travels with a socket comes out as it went in, or is refused."""

from __future__ import annotations

import contextlib
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.auth.proof import NO_PROOF, Proof
from core.process.handover import (
    IN_FLIGHT_MAX,
    TICKET_MAX_BYTES,
    Ticket,
    decode_adopted,
    decode_ticket,
    encode_adopted,
    encode_ticket,
    endpoint,
)
from core.wire.protocol import MESSAGE_MAX_BYTES, NAME_MAX

_TICKETS = st.builds(
    Ticket,
    number=st.integers(0, 2**32 - 1),
    user_id=st.text("0123456789abcdef-._ABC", min_size=1, max_size=64),
    address=st.text(max_size=40),
    label=st.text("0123456789-", max_size=30),
    strikes=st.integers(0, 20),
    carried=st.binary(max_size=500) | st.integers(0, MESSAGE_MAX_BYTES).map(bytes),
    proof=st.builds(
        Proof,
        st.floats(0, 2**40),
        st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=NAME_MAX),
        st.booleans(),
    ),
)


@given(_TICKETS)
def test_a_ticket_comes_out_as_it_went_in(ticket: Ticket) -> None:
    """And fits in one packet of the queue."""
    data = encode_ticket(ticket)
    assert len(data) <= TICKET_MAX_BYTES
    assert decode_ticket(data) == ticket


@settings(max_examples=40)
@given(_TICKETS, st.integers(0, 200))
def test_a_ticket_that_is_cut_or_has_more_behind_it_is_refused(ticket: Ticket, size: int) -> None:
    """The two ends must agree to the byte on what the client sent."""
    data = encode_ticket(ticket)
    for wrong in (data[: min(size, len(data) - 1)], data + b"x", b"\1" + data[1:]):
        with pytest.raises(ValueError, match="ticket"):
            decode_ticket(wrong)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_ticket_or_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert encode_ticket(decode_ticket(data)) == data


#: As the version before names and roles wrote it: number 7, a user, an address, a label, 2 strikes, a message, and a time.
_OLDER: Final = (
    b"\x03\0\0\0\x07\x03\x09\x03\x02\0\x02A\xd9T\xfc@\0\0\0" + b"ann" + b"192.0.2.1" + b"1-1" + b"{}"
)


def test_d34_a_ticket_of_the_version_before_is_read() -> None:
    """It comes from a front that has not been replaced yet; and one without a name or a role is still written like that."""
    ticket = Ticket(7, "ann", "192.0.2.1", 2, b"{}", "1-1", Proof(1_700_000_000.0))
    assert decode_ticket(_OLDER) == ticket
    assert encode_ticket(ticket) == _OLDER
    assert decode_ticket(encode_ticket(ticket._replace(proof=NO_PROOF))).proof == NO_PROOF


@pytest.mark.parametrize(
    "proof", [Proof(name="A"), Proof(service=True), Proof(1_700_000_000.0, "\U0001f600" * NAME_MAX, True)]
)
def test_d34_what_a_token_claims_travels_with_the_socket(proof: Proof) -> None:
    ticket = Ticket(7, "ann", "192.0.2.1", 2, bytes(MESSAGE_MAX_BYTES + 14), "1-1", proof)
    data = encode_ticket(ticket)
    assert len(data) <= TICKET_MAX_BYTES
    assert decode_ticket(data) == ticket
    for end in range(len(data) - len(ticket.carried)):
        with pytest.raises(ValueError, match="hand-over ticket"):
            decode_ticket(data[:end])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 2**32 - 1), max_size=IN_FLIGHT_MAX))
def test_adopted_numbers_come_out_as_they_went_in(numbers: list[int]) -> None:
    """All at once or one by one."""
    data = encode_adopted(numbers)
    assert decode_adopted(data) == numbers
    assert b"".join(encode_adopted([number]) for number in numbers) == data


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0", b"\0\0\0\0\0"])
def test_adopted_numbers_that_are_cut_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(data)} bytes"):
        decode_adopted(data)


def test_every_worker_has_an_endpoint_of_its_own() -> None:
    assert endpoint("/run/x", 0).startswith("/run/x/")
    assert len({endpoint("/run/x", worker) for worker in range(64)}) == 64
