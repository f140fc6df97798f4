"""core.chat.streams: what may be handled, and what waits for the process before."""

from __future__ import annotations

from core.chat.streams import Streams
from core.wire.protocol import CONFIRM_TIMEOUT


def test_the_first_process_that_is_heard_is_taken() -> None:
    streams = Streams()
    assert streams.takes(1, 10, b"a", 0.0)
    assert streams.passing == {1: 10}


def test_a_later_process_waits_for_the_end_of_the_one_before() -> None:
    streams = Streams()
    assert streams.takes(1, 10, b"a", 0.0)
    assert not streams.takes(1, 20, b"b", 0.0)
    assert not streams.takes(1, 20, b"c", 0.0)
    assert streams.ended(1, 10) == [b"b", b"c"]
    assert streams.takes(1, 20, b"b", 0.0)
    assert streams.passing == {1: 20}


def test_what_comes_late_from_an_earlier_process_is_taken_all_the_same() -> None:
    """It is no later process that has to wait for it, and must not be taken for one."""
    streams = Streams()
    assert streams.takes(1, 10, b"a", 0.0)
    assert streams.ended(1, 10) == []
    assert streams.takes(1, 10, b"late", 0.0)
    assert streams.takes(1, 20, b"b", 0.0)
    assert streams.takes(1, 10, b"later", 0.0)
    assert streams.passing == {1: 20}


def test_the_end_of_an_earlier_process_says_nothing_about_this_one() -> None:
    streams = Streams()
    assert streams.takes(1, 20, b"a", 0.0)
    assert streams.ended(1, 10) == []
    assert streams.passing == {1: 20}


def test_a_successor_waits_for_what_its_predecessor_passes_on() -> None:
    streams = Streams()
    streams.block(1)
    assert not streams.takes(1, 10, b"a", 0.0)
    assert streams.unblock(2) is None
    assert streams.unblock(1) == [b"a"]
    assert streams.takes(1, 10, b"a", 0.0)


def test_a_worker_that_dies_is_waited_for_no_longer() -> None:
    streams = Streams()
    streams.block(1)
    assert not streams.takes(1, 10, b"a", 0.0)
    assert streams.ended(1, 10) == [b"a"]
    assert streams.takes(1, 10, b"a", 0.0)
    assert streams.takes(1, 20, b"of the next process", 0.0)


def test_nobody_is_waited_for_without_end() -> None:
    """Whoever should have said it may be gone."""
    streams = Streams()
    assert streams.takes(1, 10, b"a", 0.0)
    assert not streams.takes(1, 20, b"b", 1.0)
    assert streams.overdue(CONFIRM_TIMEOUT) == []
    assert streams.overdue(1.0 + CONFIRM_TIMEOUT) == [b"b"]
    assert streams.takes(1, 20, b"b", 7.0)
