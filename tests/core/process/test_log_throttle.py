"""core.process.log_throttle: no flood of events becomes a flood of lines, nobody hides another one, and what was held back is told."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.process.log_throttle import DEBUG_TIMES, KIND_MAX, KINDS_MAX, WHO_MAX, WINDOW, Kind, Throttle

CLOSED = Kind("fastchat.worker", logging.INFO, "a connection was closed", 1008)


def test_one_client_does_not_use_up_what_others_need() -> None:
    throttle = Throttle()
    assert sum(throttle.admit(CLOSED, "mallory", 0.0) for _ in range(1000)) == WHO_MAX
    assert throttle.admit(CLOSED, "alice", 1.0)
    assert throttle.admit(CLOSED._replace(code=1009), "mallory", 1.0)


def test_many_clients_are_not_many_lines() -> None:
    throttle = Throttle()
    assert sum(throttle.admit(CLOSED, f"mallory-{index}", 0.0) for index in range(10_000)) == KIND_MAX


def test_debug_shows_more_and_not_everything() -> None:
    throttle = Throttle()
    kind = CLOSED._replace(level=logging.DEBUG)
    assert sum(throttle.admit(kind, None, 0.0) for _ in range(100_000)) == KIND_MAX * DEBUG_TIMES


def test_what_was_held_back_is_told_once_when_the_window_is_over() -> None:
    throttle = Throttle()
    assert throttle.due() is None
    for _ in range(WHO_MAX + 7):
        throttle.admit(CLOSED, "mallory", 10.0)
    assert throttle.holds
    assert throttle.due() == 10.0 + WINDOW
    assert throttle.summaries(10.0 + WINDOW - 0.1) == []
    ((kind, number, seconds),) = throttle.summaries(10.0 + WINDOW)
    assert (kind, number, seconds) == (CLOSED, 7, WINDOW)
    assert throttle.summaries(10.0 + 2 * WINDOW) == []
    assert throttle.due() is None


def test_a_new_window_admits_again_and_keeps_what_is_to_be_told() -> None:
    throttle = Throttle()
    for _ in range(WHO_MAX + 1):
        throttle.admit(CLOSED, "mallory", 0.0)
    assert throttle.admit(CLOSED, "mallory", WINDOW)
    ((_, number, seconds),) = throttle.summaries(WINDOW + 5)
    assert (number, seconds) == (1, WINDOW + 5)


def test_all_is_told_at_the_end() -> None:
    throttle = Throttle()
    for _ in range(WHO_MAX + 2):
        throttle.admit(CLOSED, "mallory", 0.0)
    assert [number for _, number, _ in throttle.summaries(1.0, all_of_them=True)] == [2]


@pytest.mark.slow
def test_sentences_without_end_do_not_fill_memory() -> None:
    throttle = Throttle()
    for index in range(10 * KINDS_MAX):
        throttle.admit(Kind("library", logging.ERROR, f"object {index}"), None, index / 1000)
    assert len(throttle._windows) <= KINDS_MAX + 1
    assert (
        sum(throttle.admit(Kind("library", logging.ERROR, f"new {i}"), None, 3.0) for i in range(9999))
        <= KIND_MAX
    )
    # An hour later they are forgotten, and new ones have a window of their own again.
    throttle.summaries(3600.0)
    assert throttle.admit(CLOSED, None, 3600.0)
    assert len(throttle._windows) == 1


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("xyz"), st.floats(0, 30)), max_size=300
    )
)
def test_every_event_is_logged_or_counted(events: list[tuple[str, str | None, float]]) -> None:
    throttle = Throttle()
    now = 0.0
    logged = told = 0
    for sentence, who, pause in events:
        now += pause
        logged += throttle.admit(Kind("fastchat", logging.INFO, sentence), who, now)
        told += sum(held.number for held in throttle.summaries(now))
    told += sum(held.number for held in throttle.summaries(now, all_of_them=True))
    assert logged + told == len(events)
