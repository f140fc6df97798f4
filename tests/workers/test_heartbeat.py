"""workers.heartbeat: one wheel looks at every connection when it is due, and costs nothing in between (D27)."""

from __future__ import annotations

import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.wire.protocol import HEARTBEAT_IDLE, HEARTBEAT_REPLY
from tests.system.raw_client import PONG, TEXT, client_frame
from tests.workers.process import WorkerProcess
from workers.heartbeat import SLOT_SECONDS, Ping, TimerWheel, beat
from workers.limits import DEFAULT_LIMITS, Limits

#: A clock value as a machine that has run for a day shows it.
START = 86_400.1


class Watched:
    """Notes when it is looked at, and asks for the next looks that it was made with."""

    def __init__(self, *due: float) -> None:
        self.looks: list[float] = []
        self._due = list(due)

    def on_timer(self, now: float) -> float | None:
        self.looks.append(now)
        return self._due.pop(0) if self._due else None


def run(wheel: TimerWheel, start: float, end: float, step: float = 0.1) -> None:
    """Turn the wheel as a worker does."""
    for number in range(round((end - start) / step) + 1):
        wheel.turn(start + number * step)


def test_a_look_comes_when_it_is_due_and_not_before() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.watch(watched, START + 20.0)
    run(wheel, START, START + 19.9)
    assert watched.looks == []
    run(wheel, START + 20.0, START + 20.0 + SLOT_SECONDS + 0.1)
    (look,) = watched.looks
    assert START + 20.0 <= look <= START + 20.0 + SLOT_SECONDS + 0.1


def test_what_is_watched_says_when_it_is_looked_at_next() -> None:
    wheel = TimerWheel(START)
    watched = Watched(START + 25.0, START + 45.0)
    wheel.watch(watched, START + 20.0)
    run(wheel, START, START + 60.0)
    assert len(watched.looks) == 3
    for look, due in zip(watched.looks, (20.0, 25.0, 45.0), strict=True):
        assert START + due <= look <= START + due + SLOT_SECONDS + 0.1


def test_none_means_never_again() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.watch(watched, START + 1.0)
    run(wheel, START, START + 100.0)
    assert len(watched.looks) == 1


def test_a_late_turn_leaves_nobody_out() -> None:
    """An event loop that was busy for a while looks at everything that came due meanwhile, each once."""
    wheel = TimerWheel(START)
    watched = [Watched() for _ in range(50)]
    for number, each in enumerate(watched):
        wheel.watch(each, START + number * 0.1)
    wheel.turn(START + 10.0)
    assert [each.looks for each in watched] == [[START + 10.0]] * 50


def test_a_look_that_is_due_already_comes_with_the_next_turn() -> None:
    wheel, watched = TimerWheel(START), Watched()
    wheel.turn(START + 5.0)
    wheel.watch(watched, START + 1.0)
    wheel.turn(START + 5.0 + SLOT_SECONDS)
    assert len(watched.looks) == 1


def test_watching_from_within_a_look() -> None:
    """What is closed while it is looked at is watched anew from there, by itself."""
    wheel, other = TimerWheel(START), Watched()

    class Closing:
        def on_timer(self, now: float) -> float | None:
            wheel.watch(other, now + 3.0)
            return None

    wheel.watch(Closing(), START + 1.0)
    run(wheel, START, START + 5.0)
    assert len(other.looks) == 1


def test_who_asks_for_another_look_at_once_gets_it_with_the_next_turn() -> None:
    """However late a turn is: what was looked at may have written something that is to go out first."""
    wheel = TimerWheel(START)
    watched = Watched(*[START] * 10)
    wheel.watch(watched, START + 1.0)
    wheel.turn(START + 30.0)
    assert watched.looks == [START + 30.0]
    wheel.turn(START + 30.0 + SLOT_SECONDS)
    assert len(watched.looks) == 2


# -- Who is given up --


class Client:
    """A connection as `beat` sees it, on a wheel that turns as a worker's does; a ping is written at the end of the turn."""

    def __init__(self) -> None:
        self.now = START
        self.last_heard = START
        self.unanswered: Ping | None = None
        #: When pings were sent, and when the client was given up.
        self.pings: list[float] = []
        self.given_up: float | None = None
        self.may_be_judged = True
        self.limits = DEFAULT_LIMITS
        self.session = SimpleNamespace(awaits_hello=False, hello_deadline=START + 10.0)
        #: Bytes that were kept for the client, and how many of them the kernel does not take.
        self.kept = 0
        self.waiting = 0
        self._wheel = TimerWheel(START)
        self._wheel.watch(self, START + 10.0)

    def ping(self, payload: bytes) -> None:
        self.pings.append(self.now - START)
        if self.waiting:
            self.kept += 8
            self.waiting += 8

    def fail(self, code: int, reason: str) -> None:
        assert (code, bool(reason)) == (1008 if self.session.awaits_hello else 4002, True)
        self.given_up = self.now - START

    def gone_out(self) -> int:
        return self.kept - self.waiting

    def on_timer(self, now: float) -> float | None:
        return beat(cast(Any, self), now)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.1
            self._wheel.turn(self.now)

    def stand_still(self, seconds: float) -> None:
        """The worker is suspended; then its timers come first."""
        self.now += seconds
        self.last_heard += seconds
        if self.unanswered is not None:
            self.unanswered.begin_again(self.now)
        self._wheel.turn(self.now)

    def say(self) -> None:
        """Something came from the client, and was read."""
        self.last_heard = self.now
        self.unanswered = None


def test_d27_a_silent_client_is_pinged_after_20_s_and_given_up_5_s_later() -> None:
    client = Client()
    client.pass_time(60.0)
    (ping,) = client.pings
    assert client.given_up is not None
    assert HEARTBEAT_IDLE <= ping <= HEARTBEAT_IDLE + 0.5
    assert ping + HEARTBEAT_REPLY <= client.given_up <= ping + HEARTBEAT_REPLY + 1.0


def test_d27_who_says_something_every_15_s_is_never_pinged() -> None:
    client = Client()
    for _ in range(10):
        client.pass_time(15.0)
        client.say()
    assert not client.pings
    assert client.given_up is None


@pytest.mark.parametrize("seconds", [13.0, 20.0, 30.0, 45.0, 3600.0])
@pytest.mark.parametrize("before", [1.0, 14.0, 19.9, 20.5, 24.9])
def test_d27_whenever_the_worker_stood_still_the_client_has_its_whole_time_afterwards(
    seconds: float, before: float
) -> None:
    """Pinged before or not; and who stays silent goes all the same."""
    client = Client()
    client.pass_time(before)
    client.stand_still(seconds)
    client.pass_time(HEARTBEAT_REPLY - 0.2)
    assert client.given_up is None
    client.pass_time(HEARTBEAT_IDLE + HEARTBEAT_REPLY + 1.0)
    assert client.given_up is not None
    assert len(client.pings) == 1


def test_d27_a_late_turn_neither_pings_nor_gives_up_in_one_go() -> None:
    """Not even if nobody has noticed that the worker stood still."""
    client = Client()
    client.now += 60.0
    client._wheel.turn(client.now)
    assert len(client.pings) == 1
    assert client.given_up is None


def test_d27_nobody_is_judged_who_is_not_read_from_or_has_something_unread() -> None:
    client = Client()
    client.may_be_judged = False
    client.pass_time(60.0)
    assert client.given_up is None
    client.may_be_judged = True
    client.pass_time(2.0)
    assert client.given_up is not None


def test_d2_hello_has_10_s_and_what_waits_is_read_first() -> None:
    client = Client()
    client.session.awaits_hello = True
    client.may_be_judged = False
    client.pass_time(15.0)
    assert client.given_up is None
    client.may_be_judged = True
    client.pass_time(2.0)
    assert client.given_up is not None
    assert not client.pings


def test_d2_a_hello_that_came_has_no_deadline() -> None:
    client = Client()
    client.session.awaits_hello = True
    client.pass_time(9.5)
    client.say()
    client.session.awaits_hello = False
    client.pass_time(15.0)
    assert client.given_up is None


def test_d27_the_5_s_begin_when_the_ping_was_written() -> None:
    """It stood behind what the client reads slowly, and more comes behind it all the time."""
    client = Client()
    client.kept = client.waiting = 20_000
    for _ in range(30):
        client.pass_time(1.0)
        client.waiting += 100
        client.kept += 100
        client.waiting -= 600
    assert client.given_up is None
    assert len(client.pings) == 1
    client.pass_time(HEARTBEAT_REPLY + 3.0)
    assert client.given_up is None, "it is still on its way"
    client.waiting = 50
    client.pass_time(HEARTBEAT_REPLY - 0.5)
    assert client.given_up is None
    client.pass_time(2.5)
    assert client.given_up is not None


def test_d27_a_client_to_which_not_a_byte_goes_out_for_a_minute_is_given_up() -> None:
    """A ping behind what it does not read would wait for ever."""
    client = Client()
    client.kept = client.waiting = 20_000
    client.pass_time(HEARTBEAT_IDLE + 55.0)
    assert client.given_up is None
    client.pass_time(10.0)
    assert client.given_up is not None


def test_d27_a_real_worker_pings_who_is_silent_and_closes_who_does_not_answer() -> None:
    """With limits that do not take as long; who answers, and who says something, stays."""
    with (
        WorkerProcess(limits=Limits(idle=2.0, reply=1.0), pings_per_second=0) as worker,
        worker.chatter() as silent,
        worker.chatter() as answering,
        worker.chatter() as pinging,
    ):
        began = time.monotonic()
        for _ in range(6):
            pinging.say("PING")
            pinging.receive("PONG")
            with suppress(TimeoutError):
                answering.send(client_frame(PONG, answering.ping(timeout=0.7)))
        assert silent.ping()
        code, reason = silent.closed()
        assert (code, bool(reason)) == (4002, True)
        assert time.monotonic() - began >= 3.0
        assert all(frame.opcode == TEXT for frame in pinging.inbox), "it was never pinged"
        for client in (answering, pinging):
            client.say("PING")
            client.receive("PONG")
