"""1,000 Python clients that lose their server at the same moment come back spread out; in virtual time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Final
from uuid import UUID

import pytest

from fastchat_client import ConnectionEnded, FastChat
from fastchat_client._codes import CloseCode
from tests.clients.misbehaving import CAPABILITIES
from tests.clients.network import Link, Network, VirtualLoop
from tests.clients.python_subject import URL, MemoryTransport

CLIENTS: Final = 1000
#: Equal parts of the interval, each of which must get its share of the clients, and how far from it the share may be. It is five
#: standard deviations; the random numbers are the same in every run.
PARTS: Final = 10
SLACK: Final = 0.5


class FastLoop(VirtualLoop):
    """One that finds the next of thousands of timers quickly."""

    def _next(self) -> float | None:
        # A heap, from whose head the loop itself removes those that were cancelled.
        timers = getattr(self, "_scheduled")  # noqa: B009
        return timers[0].when() if timers and not timers[0].cancelled() else super()._next()


class Crowd:
    """Clients of a server that is up, or not."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.network = Network(loop)
        #: When somebody tried to connect: how many failed attempts since the last success, and the time.
        self.attempts: list[tuple[int, float]] = []
        self.up = True
        self.clients = [self._client(number) for number in range(CLIENTS)]
        for client in self.clients:
            loop.create_task(client.connect())
        loop.settle()
        assert {client.state for client in self.clients} == {"online"}

    def _client(self, number: int) -> FastChat:
        user_id = str(UUID(int=number, version=4))
        failures = 0

        async def connect(url: str) -> MemoryTransport:
            nonlocal failures
            self.attempts.append((failures, self.loop.time()))
            if not self.up:
                failures += 1
                raise ConnectionEnded(1006, "refused")
            failures = 0
            link = Link(self.loop)
            link.accepted.set_result(None)
            self.network.links.append(link)
            ack = {"user_id": user_id, "status": "connected", "capabilities": CAPABILITIES}
            link.tell(json.dumps({"type": "HELLO_ACK", "data": ack | {"cursor": "e.0", "resumed": "full"}}))
            return MemoryTransport(link)

        return FastChat(URL, user_id, "Somebody", connector=connect, random=random.Random(number).random)

    def lose(self, code: int, up: bool) -> float:
        """End all connections after they have been good for a minute; when that was."""
        self.up = True
        self.loop.advance(60.0)
        assert {client.state for client in self.clients} == {"online"}
        links, self.network.links = self.network.links, []
        self.attempts.clear()
        self.up = up
        for link in links:
            link.close_from_server(code, "")
        self.loop.settle()
        assert {client.state for client in self.clients} == {"waiting"}
        return self.loop.time()


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    loop = FastLoop()
    asyncio.set_event_loop(loop)
    try:
        yield Crowd(loop)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.settle()
        asyncio.set_event_loop(None)
        loop.close()


def assert_spread(times: list[float], least: float, most: float) -> None:
    """The times are spread over the whole interval from `least` to `most`."""
    assert len(times) == CLIENTS
    shares = [0] * PARTS
    for time in times:
        assert least <= time <= most
        shares[min(PARTS - 1, int((time - least) / (most - least) * PARTS))] += 1
    expected = CLIENTS / PARTS
    assert all(abs(share - expected) <= SLACK * expected for share in shares), shares


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "least", "most"),
    [
        (CloseCode.RESTARTING, 0.0, 3.0),
        (CloseCode.SHUTTING_DOWN, 0.0, 3.0),
        (CloseCode.TRY_AGAIN_LATER, 1.0, 5.0),
        (CloseCode.NO_SIGN_OF_LIFE, 0.0, 1.0),
        (CloseCode.INTERNAL_ERROR, 0.0, 0.5),
        (CloseCode.ABNORMAL, 0.0, 0.5),
    ],
)
def test_the_way_back_is_spread(crowd: Crowd, code: int, least: float, most: float) -> None:
    """Over the whole interval that the close code asks for; after it everybody is there, with one attempt each."""
    began = crowd.lose(code, up=True)
    crowd.loop.advance(most)
    assert {client.state for client in crowd.clients} == {"online"}
    assert_spread([time - began for _, time in crowd.attempts], least, most)


@pytest.mark.slow
def test_a_long_outage(crowd: Crowd) -> None:
    """Each further wait is drawn from an interval twice as long, up to 30 s; so the attempts per second fall, and stay spread."""
    began = crowd.lose(CloseCode.ABNORMAL, up=False)
    crowd.loop.advance(300.0)
    assert {client.state for client in crowd.clients} <= {"waiting", "connecting"}
    last: dict[int, list[float]] = {}
    for failures, time in crowd.attempts:
        last.setdefault(failures, []).append(time)
    # Whoever makes the sixth attempt has waited for 0.5 + 1 + 2 + 4 + 8 + 16 s at most, and half of that on the average.
    assert max(last[5]) - began <= 31.5
    assert 14.0 < sum(last[5]) / CLIENTS - began < 17.5
    # When all draw from 0-30 s, no second sees many more than the others.
    by_second = [0] * 300
    for _, time in crowd.attempts:
        by_second[min(299, int(time - began))] += 1
    steady = by_second[120:]
    assert max(steady) < 2 * CLIENTS / 15
    assert min(steady) > 0.3 * CLIENTS / 15
    back = crowd.loop.time()
    crowd.up = True
    crowd.attempts.clear()
    crowd.loop.advance(30.0)
    assert {client.state for client in crowd.clients} == {"online"}
    times = [time - back for _, time in crowd.attempts]
    assert len(times) == CLIENTS, "one attempt each"
    assert max(times[: CLIENTS // 20]) > 0.5, "no rush in the first moment"


@pytest.mark.slow
def test_an_overloaded_server(crowd: Crowd) -> None:
    """1013 to everybody who comes, again and again: each time at least a second of rest for it, in the end up to 31 s."""
    crowd.lose(CloseCode.TRY_AGAIN_LATER, up=True)
    for most in (5.0, 9.0, 17.0, 31.0, 31.0):
        waits = [
            client.retry_at - crowd.loop.time() for client in crowd.clients if client.retry_at is not None
        ]
        assert_spread(waits, 1.0, most)
        # Those who come first are online for longer than 10 s until the last ones are there, which would count as good.
        for client in crowd.clients:
            client.retry()
        crowd.loop.settle()
        links, crowd.network.links = crowd.network.links, []
        for link in links:
            link.close_from_server(CloseCode.TRY_AGAIN_LATER, "")
        crowd.loop.settle()
