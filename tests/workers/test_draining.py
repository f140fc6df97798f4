"""Tests of workers.draining: when which connection is told to go. Connections and clock are the test's."""

from __future__ import annotations

import random

import pytest

from workers.draining import RETURN_SPREAD, SETTLE_PATIENCE, Draining

#: Seconds between two ticks, as a worker has them.
TICK = 0.1


class Peer:
    """A connection and its session in one."""

    def __init__(self) -> None:
        self.is_settled = True
        self.is_read = True
        self.closed = False
        #: When the server closed it, and what it said.
        self.told: tuple[float, int, str, float | None] | None = None

    @property
    def session(self) -> Peer:
        return self

    def stop_reading(self) -> None:
        self.is_read = False

    def close(self, code: int, reason: str, now: float, delay: float | None = None) -> None:
        assert not self.closed
        assert not self.is_read, "it must not ask for more while it is told to go"
        self.closed = True
        self.told = (now, code, reason, delay)


class Stage:
    """A drain that begins at 1000.0."""

    def __init__(self, peers: int, seconds: float) -> None:
        self.peers = [Peer() for _ in range(peers)]
        self.now = 1000.0
        self.draining = Draining(self.peers, seconds, self.now, random.Random(7).random)

    def tick(self, after: float = TICK) -> int:
        """The number of connections that are closed in this tick."""
        before = self.closed
        self.now += after
        self.draining.tick(self.now)
        return self.closed - before

    def run(self, seconds: float) -> list[int]:
        return [self.tick() for _ in range(round(seconds / TICK))]

    @property
    def closed(self) -> int:
        return sum(peer.closed for peer in self.peers)


@pytest.mark.parametrize("peers", [1, 7, 100, 1000])
@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_the_closes_are_spread_evenly_and_nobody_is_left(peers: int, seconds: float) -> None:
    stage = Stage(peers, seconds)
    closes = stage.run(seconds)
    each = peers * TICK / seconds
    assert all(abs(count - each) <= 1.0 for count in closes), closes
    halves = sum(closes[: len(closes) // 2]), sum(closes[len(closes) // 2 :])
    assert abs(halves[0] - halves[1]) <= 2
    stage.tick()
    assert stage.closed == peers


def test_d28_each_client_is_told_when_to_come_back() -> None:
    stage = Stage(500, 2.0)
    stage.run(2.5)
    told = [peer.told for peer in stage.peers]
    assert {(code, reason) for _, code, reason, _ in filter(None, told)} == {(1012, "server is restarting")}
    delays = [delay for _, _, _, delay in filter(None, told) if delay is not None]
    assert len(delays) == 500
    assert 0.0 <= min(delays) < RETURN_SPREAD / 10
    assert RETURN_SPREAD * 9 / 10 < max(delays) < RETURN_SPREAD


def test_without_seconds_all_go_at_once() -> None:
    stage = Stage(50, 0.0)
    assert stage.tick() == 50


def test_who_waits_for_an_answer_gets_it_first() -> None:
    """It is not read from meanwhile, so it can't ask for more, and others do not wait for it."""
    stage = Stage(2, 0.0)
    busy = stage.peers[0]
    busy.is_settled = False
    assert stage.tick() == 1
    assert not busy.is_read
    assert stage.run(SETTLE_PATIENCE - 1.0) == [0] * 45
    busy.is_settled = True
    assert stage.tick() == 1


def test_who_never_gets_an_answer_goes_all_the_same() -> None:
    stage = Stage(1, 0.0)
    stage.peers[0].is_settled = False
    stage.run(SETTLE_PATIENCE - 0.5)
    assert stage.closed == 0
    stage.run(1.0)
    assert stage.closed == 1


def test_who_closes_or_breaks_meanwhile_is_forgotten() -> None:
    stage = Stage(3, 0.0)
    gone, closing, left = stage.peers
    closing.is_settled = False
    stage.draining.forget(gone)
    stage.draining.forget(gone)
    stage.tick()
    closing.closed = True
    stage.run(1.0)
    assert (gone.told, closing.told) == (None, None)
    assert left.told is not None


def test_who_was_on_its_way_goes_too() -> None:
    stage = Stage(0, 1.0)
    stage.run(2.0)
    late = Peer()
    stage.draining.add(late)
    stage.tick()
    assert late.told is not None


def test_a_worker_that_stood_still_closes_no_heap_of_connections() -> None:
    """What it has not done is spread over what is left of the time."""
    stage = Stage(1000, 30.0)
    stage.run(5.0)
    assert stage.tick(10.0) < 40
    closes = stage.run(14.8)
    assert max(closes) < 10
    stage.run(0.3)
    assert stage.closed == 1000
