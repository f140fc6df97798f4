"""Tests of router.front.deadlines."""

from __future__ import annotations

from router.front.deadlines import Deadlines


def test_what_is_due_expires_in_the_order_in_which_it_started() -> None:
    expired: list[str] = []
    deadlines = Deadlines(10.0, expired.append)
    deadlines.start("a", 0.0)
    deadlines.start("b", 1.0)
    deadlines.start("c", 5.0)
    deadlines.expire(9.9)
    assert expired == []
    deadlines.expire(11.0)
    assert expired == ["a", "b"]
    assert list(deadlines) == ["c"]
    assert "c" in deadlines
    assert len(deadlines) == 1


def test_what_was_cancelled_does_not_expire() -> None:
    expired: list[str] = []
    deadlines = Deadlines(10.0, expired.append)
    deadlines.start("a", 0.0)
    deadlines.cancel("a")
    deadlines.cancel("never started")
    deadlines.expire(100.0)
    assert expired == []


def test_an_expiry_may_cancel_another() -> None:
    expired: list[str] = []

    def on_expiry(name: str) -> None:
        expired.append(name)
        deadlines.cancel("b")

    deadlines: Deadlines[str] = Deadlines(10.0, on_expiry)
    deadlines.start("a", 0.0)
    deadlines.start("b", 0.0)
    deadlines.expire(10.0)
    assert expired == ["a"]


def test_many_that_came_and_went_do_not_slow_down_those_who_stay() -> None:
    deadlines: Deadlines[int] = Deadlines(10.0, lambda number: None)
    for number in range(100_000):
        deadlines.start(number, 0.0)
        deadlines.cancel(number)
    deadlines.start(-1, 0.0)
    assert list(deadlines) == [-1]


def test_a_stall_is_given_back() -> None:
    """Also to what began behind it, but nobody gets more than the whole time; and the order stays."""
    expired: list[str] = []
    deadlines = Deadlines(10.0, expired.append)
    deadlines.start("before", 0.0)
    deadlines.start("behind", 25.0)
    deadlines.stood_still(20.0, 26.0)
    deadlines.expire(29.9)
    assert expired == []
    deadlines.expire(30.0)
    assert expired == ["before"]
    deadlines.expire(36.0)
    assert expired == ["before", "behind"]
