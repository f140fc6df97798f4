"""A server that stood still: all of its processes, or some, are suspended and go on (D27). As seen from the wire.

Each case has a server of its own, with clients that PING every 15 s, as docs/protocol.md asks, and one that gives no sign of life.
The cases of one test run at the same time: nearly all of it is waiting.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, suppress

import pytest
from websockets.exceptions import ConnectionClosed

from core.wire.protocol import HEARTBEAT_IDLE, HEARTBEAT_REPLY
from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker
from tests.system.raw_client import RawClient
from tests.system.servers import sees

pytestmark = pytest.mark.slow

#: Seconds between two PINGs of a client, and how many clients there are: at any moment one of them was heard just now, another long ago.
_PING: float = 15.0
_CLIENTS = 8


def processes(server: Server, which: str) -> list[int]:
    """The process numbers of these processes of a server."""
    children = {pid: title.removeprefix("fastchat: ") for pid, title in server.children().items()}
    match which:
        case "all":
            return [server.pid, *children]
        case "supervisor":
            return [server.pid]
    return [pid for pid, title in children.items() if title.split()[0] == which]


async def suspend(server: Server, which: str, seconds: float) -> None:
    """Stop these processes for so long, and let them go on."""
    stopped = processes(server, which)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


async def ping_on(client: ChatClient, after: float) -> None:
    """PING every 15 s, whatever comes back, until the connection ends."""
    await asyncio.sleep(after)
    with suppress(ConnectionClosed):
        while True:
            await client.send("PING")
            await asyncio.sleep(_PING)


async def stand_still(server: Server, which: str, seconds: float) -> None:
    """Nobody who PINGs is closed, and messages go on; who is silent goes with 4002."""
    what = f"{which} suspended for {seconds:g} s"
    workers = {title: pid for pid, title in server.children().items()}
    async with AsyncExitStack() as stack:
        clients = []
        for index in range(_CLIENTS):
            client = ChatClient(server.url, user_on_worker(index % 2, 2), f"Client {index}")
            clients.append(await stack.enter_async_context(client))
            await client.hello()
        await clients[0].open_chat(clients[1])
        silent = stack.enter_context(RawClient.upgraded(server.port))
        silent.hello()
        pinging = [
            asyncio.create_task(ping_on(client, index * _PING / _CLIENTS))
            for index, client in enumerate(clients)
        ]
        await asyncio.sleep(_PING - 2.0)
        await suspend(server, which, seconds)
        # Nobody is judged before the end of the grace, so look behind it.
        await asyncio.sleep(HEARTBEAT_REPLY + 3.0)
        for client in clients:
            assert client.websocket.close_code is None, f"{what}: {client.websocket.close_reason}"
        for client in clients[2:]:
            await client.drain()
        ack = await clients[0].message(clients[1], "Still here.")
        assert ack["status"] == "delivered", what
        code, reason = await asyncio.to_thread(silent.closed, HEARTBEAT_IDLE + HEARTBEAT_REPLY + 15.0)
        assert (code, bool(reason)) == (4002, True), what
        await sees(clients[0], lambda users: silent.user_id not in users, timeout=20.0)
        for task in pinging:
            task.cancel()
    assert {title: pid for pid, title in server.children().items()} == workers, f"{what}: one was replaced"


@run_async
async def test_d27_a_server_of_which_all_processes_stood_still(start_server: StartServer) -> None:
    """For any length."""
    lengths = (13.0, 20.0, 30.0, 45.0)
    servers = [start_server() for _ in lengths]
    async with asyncio.TaskGroup() as cases:
        for server, seconds in zip(servers, lengths, strict=True):
            cases.create_task(stand_still(server, "all", seconds))


@run_async
async def test_d27_a_server_of_which_some_processes_stood_still(start_server: StartServer) -> None:
    """Workers and fronts for less than the time after which one that hangs is replaced, a supervisor for longer: it blames nobody."""
    cases = [("worker", 2.0), ("front", 2.0), ("supervisor", 13.0), ("supervisor", 45.0)]
    servers = [start_server() for _ in cases]
    async with asyncio.TaskGroup() as tasks:
        for server, (which, seconds) in zip(servers, cases, strict=True):
            tasks.create_task(stand_still(server, which, seconds))


@run_async
async def test_d2_who_was_about_to_say_hello_when_the_server_stood_still_is_let_in(
    start_server: StartServer,
) -> None:
    """With 8 s of its 10 s over, or with a HELLO that waits in the socket; and who says nothing goes with 1008."""
    server = start_server()
    with (
        RawClient.upgraded(server.port) as late,
        RawClient.upgraded(server.port) as waiting,
        RawClient.upgraded(server.port) as silent,
    ):
        await asyncio.sleep(8.0)
        stall = asyncio.create_task(suspend(server, "all", 15.0))
        await asyncio.sleep(5.0)
        waiting.send(waiting.hello_bytes())
        await stall
        late.hello()
        await asyncio.to_thread(waiting.receive, "HELLO_ACK")
        assert (await asyncio.to_thread(silent.closed, 15.0))[0] == 1008


@run_async
async def test_d27_a_short_stall_is_logged(start_server: StartServer) -> None:
    """By each process that serves clients, with its length; and those who chat do not notice."""
    server = start_server()
    async with ChatClient(server.url) as client:
        await client.hello()
        await suspend(server, "all", 2.5)
        await client.drain()
    deadline = time.monotonic() + 10.0
    while server.output().count("stood still") < 3:
        assert time.monotonic() < deadline, server.output()
        await asyncio.sleep(0.05)
