"""core.chat.pace: how fast a client is read whose messages come to nothing, and when it is closed for it (D23)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.chat.pace import BURST, RATE, REFUSALS_PER_MINUTE, Pace, shared_credit
from core.chat.ratelimit import TokenBucket

START = 1000.0


def exhausted() -> TokenBucket:
    """What is left of the shared credit when others flood all the time: nothing, ever."""
    return TokenBucket(1e-9, 0, START)


def served(pace: Pace, shared: TokenBucket, until: float, read_at_once: int = 1) -> list[float]:
    """When each message of an endless flood is read, if `read_at_once` always come together, up to some time."""
    now, times = START, []
    while now < until:
        resume = 0.0
        for _ in range(read_at_once):
            times.append(now)
            resume = max(resume, pace.charge(now, shared))
        now = max(now + 0.001, resume)
    return times


@given(read_at_once=st.integers(1, 64))
def test_d23_at_least_20_a_second_however_many_flood(read_at_once: int) -> None:
    """In any two seconds: what was read together beyond the share is owed, but never more than a second of it."""
    times = served(Pace(START), exhausted(), START + 20.0, read_at_once)
    for second in range(18):
        count = sum(START + second <= time < START + second + 2 for time in times)
        assert count >= 40, f"{count} in the two seconds from {second} on"


def test_d23_a_flood_is_read_more_slowly() -> None:
    times = served(Pace(START), exhausted(), START + 60.0)
    assert len(times) <= BURST + 60.0 * RATE + 10


@given(read_at_once=st.integers(1, 64))
def test_d23_300_at_once_are_through_within_five_seconds(read_at_once: int) -> None:
    """Whatever others do, so a PING that stands behind them is answered in time."""
    assert served(Pace(START), exhausted(), START + 5.0, read_at_once)[299] < START + 5.0


def test_d23_who_is_alone_is_hardly_slowed() -> None:
    assert served(Pace(START), shared_credit(), START + 5.0)[3000] < START + 5.0


def test_d23_credit_comes_back_with_time() -> None:
    pace, nothing = Pace(START), exhausted()
    holds = [pace.charge(START, nothing) for _ in range(400)]
    assert holds[int(BURST) - 1] == 0.0 < holds[int(BURST)]
    rested = max(holds) + BURST / RATE
    assert [pace.charge(rested, nothing) for _ in range(int(BURST))] == [0.0] * int(BURST)


# -- Without end --


def minute(pace: Pace, start: float, refusals: int, seconds: float = 60.0) -> int:
    """Refusals spread over a minute; how many of them were answered before one was too much."""
    for number in range(refusals):
        if pace.goes_on(start + number * seconds / refusals):
            return number
    return refusals


def test_d23_more_than_200_in_each_of_three_minutes_in_a_row() -> None:
    """The 201st of the third minute is too much; whatever came before it is answered."""
    pace, many = Pace(START), 5 * REFUSALS_PER_MINUTE
    assert minute(pace, START, many) == many
    assert minute(pace, START + 60.0, many) == many
    assert minute(pace, START + 120.0, many) == REFUSALS_PER_MINUTE


@given(
    minutes=st.lists(st.integers(1, 3 * REFUSALS_PER_MINUTE), min_size=1, max_size=8),
    quiet=st.floats(0, 200, allow_nan=False),
)
def test_d23_nobody_is_closed_who_was_not_bad_for_three_minutes(minutes: list[int], quiet: float) -> None:
    """A client whose every third minute has no more than 200, or that is quiet for more than a minute, is never closed."""
    pace, start = Pace(START), START
    for index, refusals in enumerate(minutes):
        if index % 3 == 2:
            refusals = min(refusals, REFUSALS_PER_MINUTE)
            assert minute(pace, start, refusals) == refusals
            start += 60.0 + quiet
        else:
            assert minute(pace, start, refusals) == refusals
            start += 60.0


def test_d23_a_pause_begins_anew() -> None:
    pace, many = Pace(START), 5 * REFUSALS_PER_MINUTE
    minute(pace, START, many)
    minute(pace, START + 60.0, many)
    assert minute(pace, START + 260.0, many) == many
