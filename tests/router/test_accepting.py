"""Tests of router.accepting: connections are accepted, wait, and are refused, and a listener can go on in other hands."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from router.accepting import Accepting
from tests.system.harness import run_async

#: Seconds that a test is willing to wait.
TIMEOUT = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


class Accepted:
    """Takes connections."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[socket.socket] = asyncio.Queue()

    def __call__(self, connection: socket.socket) -> None:
        self._queue.put_nowait(connection)

    async def next(self) -> socket.socket:
        async with asyncio.timeout(TIMEOUT):
            return await self._queue.get()

    @property
    def nobody(self) -> bool:
        return self._queue.empty()


@run_async
async def test_who_connects_during_a_pause_waits_for_its_end(listener: socket.socket) -> None:
    accepted = Accepted()
    accepting = Accepting([listener], accepted)
    accepting.start()
    with socket.create_connection(listener.getsockname()), await accepted.next() as first:
        assert not first.getblocking()
        accepting.pause()
        with socket.create_connection(listener.getsockname()) as waits:
            await asyncio.sleep(0)
            assert accepted.nobody
            accepting.start()
            with await accepted.next() as second:
                assert second.getpeername() == waits.getsockname()
    accepting.close()


@run_async
async def test_who_waits_can_be_served_by_another_owner_of_the_listener(listener: socket.socket) -> None:
    first, second = Accepted(), Accepted()
    accepting = Accepting([listener], first)
    accepting.start()
    accepting.pause()
    with (
        socket.socket(fileno=os.dup(listener.fileno())) as same,
        socket.create_connection(listener.getsockname()) as client,
    ):
        accepting.close()
        another = Accepting([same], second)
        another.start()
        with await second.next() as connection:
            assert connection.getpeername() == client.getsockname()
        another.close()
    assert first.nobody


@run_async
async def test_closed_is_closed(listener: socket.socket) -> None:
    accepting = Accepting([listener], Accepted())
    accepting.start()
    address = listener.getsockname()
    accepting.close()
    accepting.close()
    accepting.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@run_async
async def test_without_descriptors_it_tries_again_later(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.accepting._REST", 0.05)
    accepted, tries = Accepted(), 0

    class Scarce(socket.socket):
        def accept(self) -> tuple[socket.socket, object]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    with Scarce(fileno=listener.detach()) as scarce, socket.create_connection(scarce.getsockname()):
        accepting = Accepting([scarce], accepted)
        accepting.start()
        with await accepted.next():
            assert tries >= 3
        accepting.close()
