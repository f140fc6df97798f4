"""The scenarios over real sockets: a WebSocket server between the client and the network in memory, still in virtual time.

The client connects with its own transport over TCP. What it sends is put into the network in memory and the other way round, so the player
notices no difference. Time still moves only when the player moves it; but before that, the sockets must have gone quiet.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from fastchat_client import Connector, Transport
from fastchat_client._transport import connect_websocket
from tests.clients import misbehaving
from tests.clients import network as memory
from tests.clients.misbehaving import Scenario
from tests.clients.network import Closed, Data, Link, Network, Refused, VirtualLoop
from tests.clients.python_subject import PythonSubject

#: How often in a row the sockets must have nothing to say, and the real seconds between two looks: on the loopback interface bytes arrive
#: while they are being sent, so this is more than enough.
QUIET: Final = 2
LOOK_AGAIN: Final = 0.0005


class SocketLoop(VirtualLoop):
    """Virtual time and real sockets."""

    _heard = False

    def __init__(self) -> None:
        super().__init__()
        #: What to do before the loop is closed.
        self.at_end: list[Callable[[], None]] = []

    def close(self) -> None:
        """Close it, and the sockets on it."""
        for callback in self.at_end:
            callback()
        if self.at_end:
            self.at_end.clear()
            self.settle()
        super().close()

    def _process_events(self, event_list: list[Any]) -> None:
        self._heard |= bool(event_list)
        super()._process_events(event_list)  # type: ignore[misc]

    def settle(self) -> None:
        """Run all that can run without time passing, the sockets included."""
        quiet = 0
        while quiet < QUIET:
            self._heard = False
            super().settle()
            quiet = 0 if self._heard else quiet + 1
            time.sleep(LOOK_AGAIN)


class WatchedLink(Link):
    """One whose other end stops reading when it falls silent, like a machine that is gone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.fell_silent: list[Callable[[], None]] = []
        super().__init__(loop)

    @property
    def silent(self) -> bool:
        """Whether nothing goes either way any more."""
        return self._silent

    @silent.setter
    def silent(self, value: bool) -> None:
        self._silent = value
        if value:
            for callback in self.fell_silent:
                callback()


class Bridge:
    """The WebSocket server of one scenario."""

    def __init__(self, loop: SocketLoop, network: Network) -> None:
        self._network = network
        self._links: dict[ServerConnection, WatchedLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: Server = loop.run_until_complete(self._listen())
        self._url = f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/ws"

    async def _listen(self) -> Server:
        return await serve(
            self._relay,
            "127.0.0.1",
            0,
            process_request=self._answer,
            open_timeout=None,
            ping_interval=None,
            close_timeout=1.0,
        )

    async def connect(self, url: str) -> Transport:
        """For the client: the real transport; what it does about a silent link is seen here, since nobody else can see it."""
        transport = await connect_websocket(self._url)
        return _Watched(transport, list(self._links.values())[-1])

    def stop(self) -> None:
        """Give back all sockets at once."""
        self._server.close(close_connections=False)
        for connection in self._links:
            connection.transport.abort()

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Let the scenario accept or refuse."""
        attempt = asyncio.ensure_future(self._network.connect(request.path))
        gone = connection.connection_lost_waiter
        either: list[asyncio.Future[Any]] = [attempt, gone]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            attempt.cancel()
        try:
            link = await attempt
        except Refused as refused:
            if refused.status is not None:
                return connection.respond(refused.status, "")
            connection.transport.abort()
            return None
        except (OSError, asyncio.CancelledError):
            connection.transport.abort()
            return None
        assert isinstance(link, WatchedLink)
        link.fell_silent.append(connection.transport.pause_reading)
        self._links[connection] = link
        return None

    async def _relay(self, connection: ServerConnection) -> None:
        link = self._links[connection]
        down = asyncio.ensure_future(self._down(connection, link))
        try:
            async for text in connection:
                with contextlib.suppress(Closed):
                    await link.send(str(text))
        except ConnectionClosed:
            pass
        down.cancel()
        await link.close(connection.close_code or 1006)

    async def _down(self, connection: ServerConnection, link: WatchedLink) -> None:
        try:
            while True:
                await connection.send(await link.recv())
        except Closed as closed:
            if closed.code == 1006:
                connection.transport.abort()
            else:
                await connection.close(closed.code, closed.reason)
        except ConnectionClosed:
            pass


class _Watched:
    """The client's transport, whose end is noted at a link that is silent."""

    def __init__(self, transport: Transport, link: WatchedLink) -> None:
        self._transport = transport
        self._link = link
        self.send = transport.send
        self.receive = transport.receive

    async def close(self, code: int, reason: str) -> None:
        """Close in good order."""
        self._note(code)
        await self._transport.close(code, reason)

    def abort(self) -> None:
        """Close at once."""
        self._note(1000)
        self._transport.abort()

    def _note(self, code: int) -> None:
        if self._link.silent and self._link.closed_by_client is None:
            self._link.closed_by_client = code


def play(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play one scenario over real sockets."""
    monkeypatch.setattr(misbehaving, "VirtualLoop", SocketLoop)
    monkeypatch.setattr(memory, "Link", WatchedLink)

    def make_subject(loop: VirtualLoop, network: Network, options: Data) -> PythonSubject:
        assert isinstance(loop, SocketLoop)
        bridge = Bridge(loop, network)
        loop.at_end.append(bridge.stop)
        connector: Connector = bridge.connect
        return PythonSubject(loop, network, options, connector)

    misbehaving.play(scenario, make_subject)
