"""Clients behind a proxy with TLS read each close code as the server sent it (D28): its FIN does not overtake their answer.

All connect, and the server closes all of them at once: for a binary message (1003), by the operator (1008), and when it ends (1001).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import aiohttp.abc
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.system.harness import Server, StartServer, run_async
from tests.system.nginx_process import NAME
from tests.system.raw_client import message
from tests.system.test_operator import ask
from tests.system.tls_proxies import PROXIES, is_installed

#: Closes of each code, half of them read by each client.
_CLOSES = 40
#: As many devices as a user may have.
_DEVICES = 10


def hello(user_id: str) -> str:
    return message("HELLO", user_id=user_id, display_name="Somebody").decode()


class Client:
    """One connection of either kind."""

    def __init__(self, send: Callable[[str | bytes], Any], closed: Callable[[], Any]) -> None:
        self.send = send
        #: Reads until the end of the connection; the close code.
        self.closed = closed


class Here(aiohttp.abc.AbstractResolver):
    """Finds every name on this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = aiohttp.abc.ResolveResult(
            hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0
        )
        return [found]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def by_aiohttp(port: int, tls: ssl.SSLContext) -> AsyncIterator[Client]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Here())) as session,
        session.ws_connect(f"wss://{NAME}:{port}/ws", ssl=tls) as websocket,
    ):

        async def send(data: str | bytes) -> None:
            await (websocket.send_str(data) if isinstance(data, str) else websocket.send_bytes(data))

        async def closed() -> int | None:
            while (await websocket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            return websocket.close_code

        yield Client(send, closed)


@asynccontextmanager
async def by_websockets(port: int, tls: ssl.SSLContext) -> AsyncIterator[Client]:
    url = f"wss://{NAME}:{port}/ws"
    async with connect(url, ssl=tls, host="127.0.0.1", port=port, proxy=None) as websocket:

        async def closed() -> int | None:
            try:
                while True:
                    await websocket.recv()
            except ConnectionClosed:
                return websocket.close_code

        yield Client(websocket.send, closed)


async def close_all(
    server: Server, port: int, end: Callable[[list[Client], list[str]], Any]
) -> Counter[int | None]:
    """Connect, let `end` make the server close all, and count the codes that are read."""
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    async with AsyncExitStack() as stack:
        clients, users = [], []
        for number in range(_CLOSES):
            if number % _DEVICES == 0:
                users.append(str(uuid4()))
            kind = by_aiohttp if number % 2 else by_websockets
            client = await stack.enter_async_context(kind(port, tls))
            await client.send(hello(users[-1]))
            clients.append(client)
        await asyncio.sleep(0.5)
        reading = [asyncio.create_task(client.closed()) for client in clients]
        await end(clients, users)
        async with asyncio.timeout(30.0):
            return Counter(await asyncio.gather(*reading))


@pytest.mark.slow
@pytest.mark.parametrize("proxy", PROXIES)
@run_async
async def test_d28_the_code_that_was_sent_is_the_code_that_is_read(
    start_server: StartServer, tmp_path: Path, proxy: str
) -> None:
    if not is_installed(proxy):
        pytest.skip(f"{proxy} is not installed (apt-get install {proxy})")
    server = start_server(hellos_per_minute=0)

    async def send_binary(clients: list[Client], users: list[str]) -> None:
        for client in clients:
            await client.send(b"binary")

    async def kick(clients: list[Client], users: list[str]) -> None:
        for user in users:
            done = await ask(server, "kick", user)
            assert done.stdout == f"{_DEVICES} connections closed\n"

    async def stop(clients: list[Client], users: list[str]) -> None:
        await asyncio.to_thread(server.stop)

    with PROXIES[proxy](tmp_path / proxy, server.port) as port:
        for end, code in ((send_binary, 1003), (kick, 1008), (stop, 1001)):
            assert await close_all(server, port, end) == {code: _CLOSES}, f"{end.__name__}, behind {proxy}"
