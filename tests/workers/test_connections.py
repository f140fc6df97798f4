"""Tests of workers.connections: real sockets and connections, with something simple in the place of the shard."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from base64 import b64encode
from collections.abc import Awaitable, Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvloop

from core.process.handover import Ticket
from core.wire.frames import Opcode, client_frame, server_frame
from workers import connections as module
from workers.connection import Connection
from workers.connections import Connections
from workers.turn import Turn


class Counts:
    """Connections by address, as ``workers.address_counts`` has them."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}

    def enter(self, ticket: Ticket) -> None:
        self.now[ticket.address] = self.now.get(ticket.address, 0) + 1

    def inherit(self, address: str) -> None:
        self.now[address] = self.now.get(address, 0) + 1

    def leave(self, address: str) -> None:
        self.now[address] -= 1


class Stage:
    """Connections without anything else of a worker. Make it within an event loop."""

    def __init__(self) -> None:
        self.memory = SimpleNamespace(full=False, used=0, limit=0, sample=lambda now: None)
        self.counts = Counts()
        self.closes: list[tuple[str, int, str]] = []
        self._clients: list[socket.socket] = []
        turn = Turn(asyncio.get_running_loop())
        turn.attach(lambda now: False, lambda now: None)
        shard: Any = SimpleNamespace(
            connect=self._connect,
            count_close=lambda *about: self.closes.append(about),
        )
        self.connections = Connections(
            shard, turn, cast(Any, self.memory), cast(Any, self.counts), Connection
        )

    def _connect(self, connection: Any, user_id: str, *rest: object) -> Any:
        session = SimpleNamespace(
            connection=connection, claimed=user_id, closed=False, behind=False, hello_deadline=1e9
        )
        session.abandon = session.on_closed = lambda now: setattr(session, "closed", True)
        session.note_close = lambda *about: None
        session.close = lambda code, reason, now: self._close(session, code, reason)
        return session

    def _close(self, session: Any, code: int, reason: str) -> None:
        session.closed = True
        session.connection.close(code, reason)

    def hand_over(self) -> socket.socket:
        """The client's end of a socket that has been given to the connections."""
        client, server = self.connected()
        self.connections.adopt(Ticket(1, "ann", "192.0.2.1:1", 0, b""), server)
        return client

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a connection."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            server, _ = listener.accept()
        client.setblocking(False)
        server.setblocking(False)
        self._clients.append(client)
        return client, server

    async def end(self) -> None:
        """Let all clients go, also after a failure: an event loop does not close while there is a transport."""
        for client in self._clients:
            client.close()
        await until(lambda: self.open == 0)

    @property
    def open(self) -> int:
        count: int = self.connections.stats()["connections"]
        return count


async def received(client: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(client, 1000)


def ping(payload: bytes) -> bytes:
    return client_frame(Opcode.PING, payload)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - there is nothing to wait for but this
            await asyncio.sleep(0.01)


def on_stage(play: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage()
        try:
            await play(stage)
        finally:
            await stage.end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_sockets_on_their_way_count_like_those_that_are_here() -> None:
    async def play(stage: Stage) -> None:
        before = stage.connections.capacity()
        assert 0 < before < resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        clients = [stage.hand_over(), stage.hand_over()]
        assert (stage.open, stage.connections.capacity()) == (0, before - 2)
        await until(lambda: stage.open == 2)
        # One that has just come is still among those on their way.
        await until(lambda: stage.connections.capacity() == before - 2)
        assert stage.counts.now == {"192.0.2.1:1": 2}
        for client in clients:
            client.close()
        await until(lambda: stage.open == 0)
        assert stage.connections.capacity() == before
        assert stage.counts.now == {"192.0.2.1:1": 0}

    on_stage(play)


def test_without_memory_a_newcomer_is_refused_and_the_others_stay() -> None:
    async def play(stage: Stage) -> None:
        with stage.hand_over() as old:
            await until(lambda: stage.open == 1)
            stage.memory.full = True
            with stage.hand_over() as new:
                frame = await received(new)
                assert int.from_bytes(frame[2:4], "big") == 1013
                assert frame[4:].decode() == module._NO_MEMORY
            assert stage.connections.stats()["memory_refused_total"] == 1
            assert ("server", 1013, module._NO_MEMORY) in stage.closes
            with pytest.raises(BlockingIOError):
                old.recv(1)
        await until(lambda: stage.open == 0)

    on_stage(play)


def test_all_are_closed_those_on_their_way_too() -> None:
    async def play(stage: Stage) -> None:
        with stage.hand_over() as here:
            await until(lambda: stage.open == 1)
            with stage.hand_over() as coming:
                closing = asyncio.ensure_future(
                    stage.connections.close_all(1012, "server is restarting", 10.0)
                )
                for client in (here, coming):
                    assert int.from_bytes((await received(client))[2:4], "big") == 1012
                assert not closing.done(), "the clients have not closed yet"
        async with asyncio.timeout(5):
            await closing
        assert stage.open == 0

    on_stage(play)


def test_clients_that_do_not_close_are_waited_for_only_so_long() -> None:
    async def play(stage: Stage) -> None:
        with stage.hand_over() as client:
            await until(lambda: stage.open == 1)
            await stage.connections.close_all(1001, "server is shutting down", 0.05)
            assert int.from_bytes((await received(client))[2:4], "big") == 1001
            assert stage.open == 1
        await until(lambda: stage.open == 0)

    on_stage(play)


def test_nobody_is_waited_for_when_nobody_is_here() -> None:
    async def play(stage: Stage) -> None:
        await stage.connections.close_all(1001, "server is shutting down", 60.0)

    on_stage(play)


def test_a_client_that_is_gone_before_it_is_taken_over_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*args: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(module, "adopt", fail)

    async def play(stage: Stage) -> None:
        before = stage.connections.capacity()
        with stage.hand_over():
            await until(lambda: stage.connections.capacity() == before)
        assert (stage.open, stage.counts.now) == (0, {"192.0.2.1:1": 0})

    on_stage(play)


def test_nothing_is_read_from_an_inherited_socket_before_it_is_taken_up() -> None:
    """What another process had read comes first then, and what has come since then behind that."""

    async def play(stage: Stage) -> None:
        connections = stage.connections
        connections.frozen = True
        client, server = stage.connected()
        client.send(ping(b"2"))
        state = {
            "address": "192.0.2.1:1",
            "label": "f0-1",
            "last_heard": monotonic(),
            "unread": b64encode(ping(b"1")).decode(),
        }
        inherited = connections.inherit("ann", state)
        await connections.take_over(inherited[0], server)
        for _ in range(10):  # turns of the loop, in each of which it looks at its sockets
            await asyncio.sleep(0)
        assert server.recv(100, socket.MSG_PEEK) == ping(b"2")
        assert stage.counts.now == {"192.0.2.1:1": 1}
        connections.take_up([inherited])
        client.send(ping(b"3"))
        pongs = b""
        while len(pongs) < 9:
            pongs += await received(client)
        assert pongs == b"".join(server_frame(Opcode.PONG, payload) for payload in (b"1", b"2", b"3"))

    on_stage(play)


def test_one_that_is_gone_when_it_is_inherited_is_counted_out() -> None:
    async def play(stage: Stage) -> None:
        connections = stage.connections
        client, server = stage.connected()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        state = {"address": "192.0.2.1:1", "label": "f0-1", "last_heard": monotonic()}
        inherited = connections.inherit("ann", state)
        await connections.take_over(inherited[0], server)
        connections.take_up([inherited])
        await until(lambda: stage.counts.now == {"192.0.2.1:1": 0})
        assert inherited[0].session.closed

    on_stage(play)
