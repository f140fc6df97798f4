"""`fastchat ban` and `unban` (D36), as seen from the wire."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async
from tests.system.test_operator import ask
from tests.system.test_reload import reload_well
from tests.system.test_resize import resize_well


async def refused(server: Server, user_id: str) -> None:
    """Say HELLO, and be told that this user is banned."""
    async with ChatClient(server.url, user_id) as client:
        await client.send("HELLO", user_id=user_id, display_name="Somebody")
        error = await client.receive("ERROR")
        assert (error["code"], error["details"]["reason"]) == ("UNAUTHORIZED", "banned")
        assert await client.expect_close() == (4003, "banned")


@pytest.mark.attack("a user whom nobody wants")
@run_async
async def test_d36_a_ban_closes_every_device_and_holds_until_it_ends(server: Server) -> None:
    alice, mallory = ChatClient(server.url, name="Alice"), ChatClient(server.url, name="Mallory")
    async with alice, mallory, ChatClient(server.url, mallory.user_id) as tablet:
        for client in (alice, mallory, tablet):
            await client.hello()
        await alice.open_chat(mallory)
        done = await ask(server, "ban", mallory.user_id)
        assert (done.returncode, done.stdout) == (0, "banned; 2 connections closed\n")
        for client in (mallory, tablet):
            assert await client.expect_close() == (4003, "banned")
        await refused(server, mallory.user_id)
        done = await ask(server, "ban", mallory.user_id)
        assert (done.returncode, done.stdout) == (1, "the user was banned already; 0 connections closed\n")
        await alice.message(mallory, "you will read this later")
        done = await ask(server, "unban", mallory.user_id)
        assert (done.returncode, done.stdout) == (0, "the user may connect again\n")
        async with ChatClient(server.url, mallory.user_id) as again:
            await again.hello()
            assert (await again.receive("MSG"))["content"] == "you will read this later"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill -9", "reload", "resize", "restart"])
@run_async
async def test_d36_a_ban_outlives_every_process(start_server: StartServer, how: str) -> None:
    server = start_server(workers=2)
    banned = [ChatClient(server.url) for _ in range(4)]
    async with banned[0]:
        await banned[0].hello()
        for client in banned:  # three of them have never been here
            assert (await ask(server, "ban", client.user_id)).returncode == 0
        assert await banned[0].expect_close() == (4003, "banned")
    if how == "kill -9":
        for worker in ("worker 0", "worker 1"):
            os.kill(server.child(worker), signal.SIGKILL)
    elif how == "reload":
        reload_well(server)
    elif how == "resize":
        resize_well(server, 3)
    else:
        server.stop()
        server.start()
    for client in banned:
        await refused(server, client.user_id)
    async with ChatClient(server.url) as other:
        await other.hello()
