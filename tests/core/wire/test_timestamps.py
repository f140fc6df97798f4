"""Tests of core.wire.timestamps: D19."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.wire.timestamps import format_timestamp


@pytest.fixture(autouse=True, scope="module")
def far_from_utc() -> Iterator[None]:
    """On a machine whose own time is UTC, the wrong time would look right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("epoch_ms", "expected"),
    [
        (0, b"1970-01-01T00:00:00.000Z"),
        (1_704_110_400_000, b"2024-01-01T12:00:00.000Z"),
        (1_704_110_400_007, b"2024-01-01T12:00:00.007Z"),
        (1_709_251_199_999, b"2024-02-29T23:59:59.999Z"),
        (253_402_300_799_999, b"9999-12-31T23:59:59.999Z"),
    ],
)
def test_d19_timestamps_are_utc_iso_8601_in_milliseconds(epoch_ms: int, expected: bytes) -> None:
    assert format_timestamp(epoch_ms) == expected


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_d19_a_timestamp_reads_back_as_the_time_it_was_made_from(epoch_ms: int) -> None:
    text = format_timestamp(epoch_ms)
    assert len(text) == 24
    read = datetime.fromisoformat(text.decode())
    assert read.tzinfo == UTC
    assert round(read.timestamp() * 1000) == epoch_ms
