"""A server that drains: who is told what and when, what a load balancer sees, and that nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from contextlib import AsyncExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest
from websockets.exceptions import ConnectionClosed

from tests.router import command
from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.raw_client import RawClient
from tests.system.status import status

REASON: Final = re.compile(r"server is restarting; reconnect in (\d+\.\d) s")
#: Seconds that a server may take for what it does at once, on a machine that is busy with other tests.
PATIENCE: Final = 20.0


def drain(server: Server, *words: str) -> str:
    """What the command says, which must succeed."""
    done = command.fastchat("drain", *words, "--admin", server.admin_url)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def get(server: Server, path: str) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer of the admin port."""
    try:
        with build_opener(ProxyHandler({})).open(f"{server.admin_url}/{path}", timeout=10.0) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def is_refused(server: Server) -> bool:
    """Whether the port is closed. Who comes while it is being closed gets in, or a 503."""
    try:
        socket.create_connection(("127.0.0.1", server.port), 5.0).close()
    except ConnectionRefusedError:
        return True
    return False


def delay(close: tuple[int, str]) -> float:
    """When the client that was closed like this is to come back."""
    code, reason = close
    told = REASON.fullmatch(reason)
    assert (code, bool(told)) == (1012, True), close
    assert told is not None
    return float(told[1])


@pytest.mark.slow
def test_d28_an_operator_drains_a_server(start_server: StartServer) -> None:
    """Clients are told 1012 and when to come back, newcomers are refused, and the server stays until it is stopped."""
    server = start_server()
    clients = [RawClient.upgraded(server.port, user_on_worker(index % 2, 2)) for index in range(10)]
    for client in clients:
        client.hello()
    assert re.fullmatch(r"draining \d+ connections, [01](\.\d)? s left\n", drain(server, "--seconds", "1"))
    assert get(server, "healthz") in ((200, {"status": "draining"}), (200, {"status": "drained"}))
    code, answer = get(server, "readyz")
    assert (code, answer["reasons"][0].split(":")[0]) in (
        (503, "the server is draining"),
        (503, "the server is drained"),
    )
    wait_until(lambda: is_refused(server), "the port to be closed", PATIENCE)
    delays = [delay(client.closed()) for client in clients]
    assert all(0.0 <= each <= 1.0 for each in delays)
    assert len(set(delays)) > 1
    for client in clients:
        client.socket.close()
    wait_until(lambda: status(server)["status"] == "drained", "the server to be drained", PATIENCE)
    drained = status(server)["drain"]
    assert (drained["why"], drained["connections"], drained["stops"]) == ("an operator", 0, False)
    assert get(server, "healthz") == (200, {"status": "drained"})
    code, answer = get(server, "readyz")
    assert (code, answer["ready"]) == (503, False)
    assert answer["reasons"] == [
        "the server is drained: it accepts no connections, and has none; stop or restart it"
    ]
    assert drain(server) == "the server is drained\n"
    shown = command.fastchat("status", "--admin", server.admin_url)
    assert shown.returncode == 1
    assert "is not ready (drained)" in shown.stdout
    assert {(each["kind"], each["state"], each["problem"]) for each in status(server)["processes"]} == {
        ("front", "stopped", None),
        ("worker", "ready", None),
    }
    assert server.stop() == 0


@pytest.mark.slow
@run_async
async def test_the_closes_are_spread_over_the_seconds(start_server: StartServer) -> None:
    """And commands in between, also with other seconds, change nothing."""
    server = start_server(drain_seconds=4)
    closed_at: list[float] = []
    async with AsyncExitStack() as stack:
        clients = []
        for index in range(40):
            client = await stack.enter_async_context(ChatClient(server.url, user_on_worker(index % 2, 2)))
            await client.hello()
            clients.append(client)

        async def close_of(client: ChatClient) -> float:
            assert (await client.expect_close(timeout=PATIENCE))[0] == 1012
            closed_at.append(time.monotonic())
            return closed_at[-1]

        waiting = [asyncio.create_task(close_of(client)) for client in clients]
        await asyncio.to_thread(drain, server)
        await asyncio.to_thread(drain, server, "--seconds", "0")
        await asyncio.gather(*waiting)
    closed_at.sort()
    assert closed_at[-1] - closed_at[0] > 3.0
    assert max(later - earlier for earlier, later in pairwise(closed_at)) < (closed_at[-1] - closed_at[0]) / 2


@pytest.mark.slow
@run_async
async def test_nothing_acknowledged_is_lost_when_sigterm_drains(tmp_path: Path) -> None:
    """Senders write until they are told to go: each has an answer to all that the server has read, and the rest is not stored."""
    server = Server(tmp_path, drain_seconds=2)
    server.start()
    acknowledged: dict[str, list[str]] = {}
    recipient = user_on_worker(1, 2)
    async with AsyncExitStack() as stack:
        idle = await stack.enter_async_context(ChatClient(server.url, recipient, "Bob"))
        await idle.hello()
        senders = []
        for index in range(8):
            sender = await stack.enter_async_context(ChatClient(server.url, user_on_worker(index % 2, 2)))
            await sender.hello()
            await sender.open_chat(idle)
            senders.append(sender)
        await idle.websocket.close()

        async def write(sender: ChatClient) -> None:
            mine = acknowledged[sender.user_id] = []
            try:
                for number in count():
                    name = f"{sender.user_id[:8]}-{number}"
                    await sender.send("MSG", to=recipient, content=name, message_id=name)
                    mine.append((await sender.receive("MSG_ACK", timeout=PATIENCE))["message_id"])
            except (ConnectionClosed, AssertionError):
                delay(await sender.expect_close(timeout=PATIENCE))

        writing = [asyncio.create_task(write(sender)) for sender in senders]
        await asyncio.sleep(0.5)
        os.kill(server.pid, signal.SIGTERM)
        await asyncio.gather(*writing)
    assert await asyncio.to_thread(server.wait) == 0
    assert "drained: all connections are closed" in server.output()
    assert min(map(len, acknowledged.values())) > 0
    with Server(tmp_path) as again:
        async with ChatClient(again.url, recipient, "Bob") as bob:
            await bob.hello()
            stored: set[str] = set()
            missing = {name for names in acknowledged.values() for name in names}
            while missing - stored:
                message = await bob.receive("MSG", timeout=PATIENCE)
                stored.add(message["message_id"])
                await bob.send("MSG_ACK", message_id=message["message_id"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(tmp_path: Path, number: signal.Signals) -> None:
    """Also of one that a command has begun; who is left is told 1001, as by a server that stops."""
    with Server(tmp_path, drain_seconds=600) as server:
        clients = [RawClient.upgraded(server.port) for _ in range(4)]
        for client in clients:
            client.hello()
        drain(server)
        os.kill(server.pid, signal.SIGTERM)
        wait_until(
            lambda: "draining, then stopping" in server.output(), "the first signal to be heard", PATIENCE
        )
        time.sleep(1.2)  # what comes within a second counts as the same signal
        os.kill(server.pid, number)
        codes = {client.closed()[0] for client in clients}
        assert codes <= {1001, 1012}
        assert 1001 in codes
        for client in clients:
            client.socket.close()
        assert server.wait() == 0


@pytest.mark.slow
def test_a_drained_server_whose_worker_is_killed_stays_drained(start_server: StartServer) -> None:
    server = start_server()
    drain(server, "--seconds", "0")
    wait_until(lambda: status(server)["status"] == "drained", "the server to be drained", PATIENCE)
    old = server.child("worker 0")
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: status(server)["processes"][0]["restarts"] == 1, "another worker", PATIENCE)
    wait_until(lambda: status(server)["processes"][0]["state"] == "ready", "it to be ready", PATIENCE)
    assert status(server)["status"] == "drained"
    assert is_refused(server)
