"""core.chat.ratelimit: exactness of the sliding window, and the token bucket for PING (D23)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.ratelimit import SlidingWindow, TokenBucket, ping_limited
from core.wire.protocol import RATE_WINDOW

#: Time that passes before each attempt. In sixteenths of a second, which floating point adds exactly.
_STEPS = st.lists(st.integers(0, 40 * 16).map(lambda sixteenths: sixteenths / 16), max_size=60)


@given(st.integers(1, 6), _STEPS)
def test_d23_the_window_allows_exactly_what_a_naive_count_allows(limit: int, steps: list[float]) -> None:
    """The naive count keeps every event for ever and counts those of the last 60 s."""
    window, counted, now = SlidingWindow(limit), [0.0][:0], 1000.0
    for step in steps:
        now += step
        recent = [time for time in counted if time > now - RATE_WINDOW]
        wait = window.retry_after(now)
        assert window.recent(now) == len(recent)
        assert (wait == 0.0) == (len(recent) < limit)
        if wait:
            assert wait == recent[-limit] + RATE_WINDOW - now
        assert window.allow(now) == (len(recent) < limit)
        if len(recent) < limit:
            counted.append(now)
    assert all(
        later - earlier >= RATE_WINDOW for earlier, later in zip(counted, counted[limit:], strict=False)
    )


@given(st.integers(1, 6), _STEPS, st.integers(0, 8))
def test_d10_pending_events_count_as_if_they_had_just_happened(
    limit: int, steps: list[float], pending: int
) -> None:
    """Asking with k pending is asking after k more were counted now."""
    window, copy, now = SlidingWindow(limit), SlidingWindow(limit), 1000.0
    for step in steps:
        now += step
        if window.allow(now):
            copy.count(now)
    expected = 0.0
    for _ in range(pending):
        expected = max(expected, copy.retry_after(now))
        copy.count(now)
    expected = max(expected, copy.retry_after(now))
    assert window.retry_after(now, pending) == expected


@given(st.floats(1e3, 1e7), st.lists(st.floats(0, 30), min_size=1, max_size=40))
def test_d23_waiting_as_long_as_it_says_is_enough(start: float, steps: list[float]) -> None:
    """To within what a clock can tell apart."""
    window, now = SlidingWindow(3), start
    for step in steps:
        now += step
        now += window.retry_after(now) + 1e-6
        assert window.allow(now)


def test_d23_of_every_minute_none_holds_a_61st() -> None:
    """Where counting by calendar minutes would let 120 through."""
    window = SlidingWindow(60)
    allowed = [now for tenth in range(3000) if window.allow(now := 1000.0 + tenth / 10)]
    for first in allowed:
        assert sum(first <= time < first + RATE_WINDOW for time in allowed) <= 60
    assert len(allowed) == 300, "and not one less than could be"
    assert all(later >= earlier for earlier, later in pairwise(allowed))


def test_d23_an_event_leaves_the_window_after_exactly_60_seconds() -> None:
    window = SlidingWindow(1)
    assert window.allow(1000.0)
    assert not window.allow(1059.999)
    assert window.retry_after(1059.75) == 0.25
    assert window.allow(1060.0)


def test_d23_zero_allows_everything_and_remembers_nothing() -> None:
    window = SlidingWindow(0)
    for _ in range(1000):
        assert window.allow(1000.0)
    assert window.retry_after(1000.0, pending=10_000) == 0.0
    assert window.recent(1000.0) == 0


def test_memory_is_bounded_by_the_limit() -> None:
    """A user who is refused all day costs no more than one who is not."""
    window = SlidingWindow(60)
    for tenth in range(10_000):
        window.allow(1000.0 + tenth / 10)
    assert len(window._times) == 60


@given(st.sampled_from([0.5, 1.0, 4.0]), st.integers(1, 6), _STEPS)
def test_d23_the_bucket_allows_the_burst_and_then_the_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    """In any stretch of t seconds at most burst + rate * t, and never less than that would allow."""
    bucket, allowed, now = TokenBucket(rate, burst, 1000.0), [0.0][:0], 1000.0
    for step in steps:
        now += step / 16
        wait = bucket.retry_after(now)
        if not wait:
            allowed.append(now)
            continue
        assert 0 < wait <= 1 / rate
        # One more now would be too much in the stretch since some earlier one.
        assert any(index + 2 > burst + rate * (now - time) for index, time in enumerate(reversed(allowed)))
    for index, first in enumerate(allowed):
        for count, last in enumerate(allowed[index:], 1):
            assert count <= burst + rate * (last - first) + 1e-9


def test_d23_waiting_for_a_token_is_enough() -> None:
    bucket = TokenBucket(1.0, 2, 0.0)
    assert [bucket.retry_after(0.0) for _ in range(2)] == [0.0, 0.0]
    assert bucket.retry_after(0.25) == 0.75
    assert bucket.retry_after(1.0) == 0.0
    assert bucket.retry_after(1000.0) == 0.0


def test_d23_a_rate_of_zero_allows_everything() -> None:
    bucket = TokenBucket(0.0, 5, 0.0)
    assert not any(bucket.retry_after(0.0) for _ in range(100))


@pytest.mark.parametrize(("wait", "retry_after"), [(0.0004, 0.001), (0.25, 0.25), (0.6001, 0.601)])
def test_d23_a_refused_ping_is_told_the_limit_and_how_long_to_wait(wait: float, retry_after: float) -> None:
    """Rounded up to a millisecond."""
    refusal = ping_limited(1.0, wait)
    assert refusal.code == "RATE_LIMITED"
    assert refusal.details == {"limit": 1.0, "window": 1, "retry_after": retry_after}
