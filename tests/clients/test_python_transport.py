"""The transport of the Python client: closes, refusals and lost connections of a real server, as the client tells them."""

from __future__ import annotations

import asyncio
import http
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from fastchat_client import ConnectionEnded
from fastchat_client._transport import connect_websocket


def run(
    server: Callable[[ServerConnection], Coroutine[Any, Any, None]],
    client: Callable[[str], Any],
    **options: Any,
) -> Any:
    """What `client` returns, who is given the URL of a server."""

    async def both() -> Any:
        async with asyncio.timeout(20.0), serve(server, "127.0.0.1", 0, **options) as listening:
            port = next(iter(listening.sockets)).getsockname()[1]
            return await client(f"ws://127.0.0.1:{port}/ws")

    return asyncio.run(both())


async def ended(url: str) -> tuple[int, str]:
    """How a connection to this URL ends."""
    try:
        transport = await connect_websocket(url)
        while True:
            await transport.receive()
    except ConnectionEnded as end:
        return end.code, end.reason


def test_the_close_code_and_reason_of_the_server() -> None:
    async def server(connection: ServerConnection) -> None:
        await connection.close(4001, "replaced")

    assert run(server, ended) == (4001, "replaced")


def test_a_connection_that_breaks() -> None:
    async def server(connection: ServerConnection) -> None:
        connection.transport.abort()

    assert run(server, ended)[0] == 1006


def test_a_server_that_refuses_the_upgrade() -> None:
    async def server(connection: ServerConnection) -> None:
        raise AssertionError("nobody gets here")

    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not from here\n")

    code, reason = run(server, ended, process_request=refuse)
    assert code == 1006
    assert "403" in reason


def test_a_port_where_nobody_listens(unused_tcp_port: int) -> None:
    code, reason = asyncio.run(ended(f"ws://127.0.0.1:{unused_tcp_port}/ws"))
    assert code == 1006
    assert "refused" in reason.lower()


@pytest.fixture
def unused_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    "url", ["ws://", "ws://127.0.0.1:99999/ws", "ws://127.0.0.1:port/ws", "ws://no such host/ws"]
)
def test_a_url_that_leads_nowhere(url: str) -> None:
    assert asyncio.run(ended(url))[0] == 1006


def test_what_was_written_goes_out_before_the_close() -> None:
    came: list[str | bytes] = []

    async def server(connection: ServerConnection) -> None:
        async for text in connection:
            came.append(text)

    async def client(url: str) -> None:
        transport = await connect_websocket(url)
        for number in range(1000):
            transport.send(f"{number} {'x' * 1000}")
        await transport.close(1000, "")

    run(server, client)
    assert len(came) == 1000


def test_a_close_that_the_server_does_not_answer() -> None:
    """Two seconds, and the connection is gone."""
    began = 0.0
    over = asyncio.Event()

    async def server(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await over.wait()
        connection.transport.abort()

    async def client(url: str) -> float:
        nonlocal began
        transport = await connect_websocket(url)
        began = asyncio.get_running_loop().time()
        await transport.close(1000, "")
        over.set()
        return asyncio.get_running_loop().time() - began

    assert 1.5 < run(server, client) < 6.0
