"""core.process.counting: what workers tell of their connections comes out as it went in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.process.counting import counts_endpoint, decode_counts, encode_counts


@given(
    st.integers(0, 10**7),
    st.dictionaries(st.text("0123456789.:/abcdef", max_size=20), st.integers(0, 10**6)),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_counts_come_out_as_they_went_in(total: int, sources: dict[str, int], last: int | None) -> None:
    lines = list(encode_counts(total, sources, last))
    assert lines, "also nothing is told"
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    told: dict[str, int] = {}
    for line in lines:
        counted = decode_counts(line)
        assert (counted.total, counted.last) == (total, last)
        told |= counted.sources
    assert told == sources


def test_many_places_take_many_short_lines() -> None:
    sources = {f"2001:db8:{number:x}::/64": 1 for number in range(20_000)}
    lines = list(encode_counts(20_000, sources, None))
    assert max(map(len, lines)) < 64 * 1024
    assert sum(len(decode_counts(line).sources) for line in lines) == 20_000


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"total":1}', b"\xff"])
def test_what_is_no_count_is_refused(line: Any) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_counts(line)


def test_every_worker_has_an_endpoint_of_its_own() -> None:
    assert len({counts_endpoint("/run/x", worker) for worker in range(64)}) == 64
