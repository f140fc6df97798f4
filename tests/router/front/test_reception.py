"""router.front.reception: who is judged when time is up (D2, D27), and when a front has left.

No process: an event loop that does not run, and real sockets.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Final
from uuid import uuid4

import pytest
import uvloop

from core.process.settings import Settings
from router.front.lingering import LINGER_SECONDS
from router.front.page_loader import PageLoader
from router.front.reception import DEFAULT_LIMITS, Reception
from router.front.sockets import now
from tests.router.front_process import HEAD, client_frame, hello

#: Later than any deadline.
MUCH_LATER: Final = 3600.0


@pytest.fixture
def reception(tmp_path: Path) -> Iterator[Reception]:
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    yield Reception(Settings(run_dir=tmp_path, data_dir=tmp_path), loop, PageLoader(""))
    loop.close()


@pytest.fixture
def client(reception: Reception) -> Iterator[socket.socket]:
    """The other end of a connection that `reception` has just accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 10.0)
        server, address = listener.accept()
    server.setblocking(False)
    with client, server:
        reception.handshakes.welcome(server, address)
        yield client


def test_a_head_that_waits_in_the_socket_has_come_in_time(
    reception: Reception, client: socket.socket
) -> None:
    client.sendall(HEAD)
    reception.handshakes.deadlines.expire(now() + MUCH_LATER)
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    assert (len(reception.handshakes.deadlines), len(reception.lobby.deadlines)) == (0, 1)


def test_who_is_let_in_while_parked_is_not_looked_at_as_a_handshake_any_more(
    reception: Reception, client: socket.socket
) -> None:
    (handshake,) = reception.handshakes.deadlines
    handshake.park()
    client.sendall(HEAD)
    reception.handshakes.deadlines.expire(now() + MUCH_LATER)
    assert reception.sockets.parked == set()


@pytest.mark.parametrize("came", [b"", HEAD[:-2]], ids=["nothing", "half of it"])
def test_a_head_that_is_not_there_has_not(reception: Reception, client: socket.socket, came: bytes) -> None:
    client.sendall(came)
    reception.handshakes.deadlines.expire(now() + MUCH_LATER)
    assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert (len(reception.handshakes.deadlines), len(reception.lobby.deadlines)) == (0, 0)


def test_d2_a_hello_that_waits_in_the_socket_has_come_in_time(
    reception: Reception, client: socket.socket
) -> None:
    client.sendall(HEAD + hello(str(uuid4())))
    reception.handshakes.deadlines.expire(now() + MUCH_LATER)
    reception.lobby.deadlines.expire(now() + MUCH_LATER)
    assert (len(reception.lobby.deadlines), len(reception.handover.deadlines)) == (0, 1)


def test_d2_whatever_else_waits_is_answered_before_the_end(
    reception: Reception, client: socket.socket
) -> None:
    client.sendall(HEAD)
    reception.handshakes.deadlines.expire(now() + MUCH_LATER)
    client.recv(4096)
    client.sendall(client_frame(0x1, b'{"type": "PING", "data": {}}') + hello(str(uuid4()))[:-1])
    reception.lobby.deadlines.expire(now() + MUCH_LATER)
    received = b""
    while b"\x03\xf0no HELLO within" not in received:
        more = client.recv(4096)
        assert more, received
        received += more
    assert b"PONG" in received
    assert (len(reception.lobby.deadlines), len(reception.handover.deadlines)) == (0, 0)


# -- Leaving --


class Clock:
    """The clock of all deadlines in the front, which stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = now()
        monkeypatch.setattr("router.front.sockets.time", SimpleNamespace(monotonic=lambda: self.time))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_front_has_left_when_its_last_connection_has_ended(
    reception: Reception, client: socket.socket, clock: Clock
) -> None:
    """Not before the client had its time to read the answer."""
    calls: list[str] = []
    reception.leave(lambda: calls.append("left"))
    reception.tick()
    clock.time += DEFAULT_LIMITS.head
    reception.tick()
    assert client.recv(4096).startswith(b"HTTP/1.1 408 ")
    assert (reception.count(), calls) == (1, [])
    clock.time += LINGER_SECONDS + 1.0
    for _ in range(2):
        reception.tick()
    assert (reception.count(), calls) == (0, ["left"])


def test_a_front_has_left_at_the_latest_when_the_time_for_it_is_over(
    reception: Reception, client: socket.socket, clock: Clock
) -> None:
    """The time begins with the first order to leave. The client takes all the time that it has for its head and for HELLO."""
    calls: list[str] = []

    def left() -> None:
        calls.append("left")

    reception.leave(left)
    client.sendall(HEAD + hello(str(uuid4())))
    end = clock.time + DEFAULT_LIMITS.leave
    while clock.time < end - 1.0:
        clock.time += 1.0
        reception.tick()
        reception.leave(left)
    assert (len(reception.handover.deadlines), calls) == (1, [])
    clock.time = end
    reception.tick()
    assert (reception.count(), calls) == (1, ["left"])


def test_d27_a_front_that_stood_still_while_it_left_gets_that_time_back(
    reception: Reception, client: socket.socket, clock: Clock
) -> None:
    calls: list[str] = []
    reception.leave(lambda: calls.append("left"))
    clock.time += MUCH_LATER
    reception.stood_still(MUCH_LATER)
    reception.tick()
    assert (reception.count(), calls) == (1, [])
