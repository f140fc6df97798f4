"""core.process.control: what the supervisor and its children say to each other comes out as it went in, or is refused."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.process.control import PACKET_MAX_BYTES, READY, STATS, STOP, decode_control, encode_control

_FIELDS = st.dictionaries(
    st.text(min_size=1, max_size=10).filter(lambda name: name != "op"),
    st.integers(-(2**63), 2**63)
    | st.text(max_size=20)
    | st.dictionaries(st.text(max_size=5), st.integers(0, 2**53)),
    max_size=4,
)


@settings(max_examples=40)
@given(st.sampled_from([READY, STATS, STOP]), _FIELDS)
def test_a_packet_comes_out_as_it_went_in(op: str, fields: dict[str, Any]) -> None:
    assert decode_control(encode_control(op, **fields)) == {"op": op, **fields}


def test_a_generation_of_64_bits_survives() -> None:
    """Worker generations use all of them."""
    assert decode_control(encode_control("worker_gone", generation=2**64 - 1))["generation"] == 2**64 - 1


def test_statistics_fit_in_one_packet() -> None:
    """With far more counters than there are."""
    stats = {f"a_counter_with_a_rather_long_name_{number}_total": 2**53 for number in range(500)}
    assert len(encode_control(STATS, stats=stats)) < PACKET_MAX_BYTES


@pytest.mark.parametrize(
    "packet", [b"", b"{", b"[]", b"7", b"null", b'"op"', b"{}", b'{"OP":"stop"}', b"\xff"]
)
def test_what_is_no_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_control(packet)


@settings(max_examples=40)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_packet_or_refused(packet: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert "op" in decode_control(packet)
