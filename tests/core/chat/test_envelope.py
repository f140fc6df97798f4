"""core.chat.envelope: what travels between shards comes out as it went in, in order, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat.envelope import (
    Outcome,
    RecordHead,
    RecordKind,
    pack_envelope,
    pack_record,
    record_fields,
    record_head,
    unpack_envelope,
)

_FIELDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(str.encode), max_size=4
)
_HEADS = st.tuples(
    st.sampled_from(RecordKind),
    st.integers(0, 255),
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False),
)
_RECORDS = st.lists(st.builds(lambda head, fields: pack_record(*head, *fields), _HEADS, _FIELDS), max_size=5)


@settings(max_examples=40)
@given(_HEADS, _FIELDS, st.binary(max_size=50))
def test_a_record_comes_out_as_it_went_in(
    head: tuple[RecordKind, int, int, float], fields: list[bytes], last: bytes
) -> None:
    """The last field, a finished frame, may contain anything, NULs too."""
    record = pack_record(*head, *fields, last)
    assert record_head(record) == RecordHead(*head)
    assert record_fields(record, len(fields) + 1) == [*fields, last]


def test_a_record_needs_no_more_than_its_kind() -> None:
    record = pack_record(RecordKind.PRESENCE_REQUEST, 0, 0, 0.0)
    assert record_head(record) == (RecordKind.PRESENCE_REQUEST, 0, 0, 0.0)


def test_a_record_with_too_few_fields_is_refused() -> None:
    record = pack_record(RecordKind.TYPING, 1, 0, 0.0, b"ann", b"bob")
    with pytest.raises(ValueError, match="3 fields, this one has 2"):
        record_fields(record, 3)


@settings(max_examples=40)
@given(st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), st.floats(allow_nan=False), _RECORDS)
def test_an_envelope_comes_out_as_it_went_in(
    worker: int, generation: int, sent_at: float, records: list[bytes]
) -> None:
    """All records in their order, who sent them, the worker and its generation (D26), and when."""
    *head, carried = unpack_envelope(pack_envelope(worker, generation, sent_at, records))
    assert head == [worker, generation, sent_at]
    assert list(carried) == records


@settings(max_examples=40)
@given(_RECORDS, st.integers(len(pack_envelope(0, 0, 0.0, [])), 300))
def test_an_envelope_that_is_cut_is_refused(records: list[bytes], size: int) -> None:
    """What came whole before the cut is still read: the records are handled one by one."""
    ends = [len(pack_envelope(1, 2, 0.0, records[:count])) for count in range(len(records) + 1)]
    envelope = pack_envelope(1, 2, 0.0, records)[:size]
    read = []
    try:
        for record in unpack_envelope(envelope)[3]:
            read.append(record)
        assert len(envelope) in ends
    except ValueError as error:
        assert "envelope ends in the middle" in str(error)
        assert len(envelope) not in ends
    assert read == records[: sum(end <= len(envelope) for end in ends) - 1]


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: pack_envelope(0, 0, 0.0, []) + tail))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    """Nothing but ValueError comes out, and whatever is read has at least a head."""
    try:
        for record in unpack_envelope(data)[3]:
            record_head(record)
    except ValueError:
        pass


@pytest.mark.parametrize("data", [b"", b"\4", b"\3" + bytes(40), b"\5" + bytes(40)])
def test_an_envelope_of_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="version 4"):
        unpack_envelope(data)


def test_the_numbers_on_the_bus_do_not_change() -> None:
    """Two releases side by side during a restart must mean the same by them."""
    assert [kind.value for kind in RecordKind] == list(range(1, 21))
    assert [outcome.value for outcome in Outcome] == list(range(1, 16))
