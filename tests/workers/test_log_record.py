"""workers.store.log_record and workers.store.segment: records end where the first one is not whole."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from workers.store.log_record import Record, decode, encode
from workers.store.segment import Segment

_rows = st.lists(st.binary(max_size=20).map(lambda data: b"[%d]" % len(data)), max_size=4)
_changes = st.sampled_from([b"", b"[[[1]],[],[[1,2]],[],[],[],[[3]],[]]"])


@given(st.lists(st.tuples(_rows, _changes), min_size=1, max_size=5), st.integers(1, 2**40), st.data())
def test_any_end_that_is_missing_or_changed_ends_the_log(
    made: list[tuple[list[bytes], bytes]], first: int, data: st.DataObject
) -> None:
    """And what stands before it is there."""
    encoded = []
    for index, (rows, changes) in enumerate(made):
        record = Record(len(rows), b",".join(rows), len(changes), changes)
        record.number = first + index
        encoded.append(encode(record))
    whole = b"".join(encoded)
    found = [
        (record.number, record.count, record.messages, record.others, record.changes)
        for record, _ in decode(whole)
    ]
    assert found == [
        (first + index, len(rows), b",".join(rows), len(changes), changes)
        for index, (rows, changes) in enumerate(made)
    ]
    position = data.draw(st.integers(0, len(whole) - 1))
    complete = sum(1 for index in range(len(encoded)) if len(b"".join(encoded[: index + 1])) <= position)
    assert len(list(decode(whole[:position]))) == complete
    flipped = bytearray(whole)
    flipped[position] ^= data.draw(st.integers(1, 255))
    assert [record.number for record, _ in decode(bytes(flipped))] == [
        first + index for index in range(complete)
    ]
    assert len(list(decode(whole + data.draw(st.binary(max_size=64))))) == len(made)


def test_records_of_before_behind_the_end_are_left_out(tmp_path: Path) -> None:
    """A segment is written over from its beginning."""
    segment = Segment(tmp_path / "log")
    for numbers in (range(1, 9), range(17, 20)):
        segment.begin_again()
        for number in numbers:
            record = Record(1, b"[1]")
            record.number = number
            segment.write(encode(record), number)
    assert [record.number for record, _ in decode((tmp_path / "log").read_bytes())] == [17, 18, 19]
    segment.remove()
    assert list(tmp_path.iterdir()) == []
