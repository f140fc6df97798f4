"""A worker that does not answer, one that dies, and what the users of all shards see: D26, D22, D28. As seen from the wire."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.servers import sees


async def reconnect(server: Server, user_id: str, name: str = "Somebody") -> ChatClient:
    """A new connection of this user, as soon as the server lets it in."""
    client = ChatClient(server.url, user_id, name)
    await client.__aenter__()
    await client.hello()
    return client


@contextmanager
def unable(server: Server, worker: int) -> Iterator[None]:
    """A worker that makes no turns meanwhile. The supervisor is stopped too, or it would replace the worker."""
    stopped = (server.pid, worker)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)


def replaced(server: Server, title: str, pid: int) -> bool:
    """Whether there is another process with this title."""
    children = server.children()
    return pid not in children and f"fastchat: {title}" in children.values()


@pytest.mark.slow
@run_async
async def test_d26_a_worker_that_hangs(own_server: Server) -> None:
    """MESSAGE_FAILED after 5 s, for MSG and for OPEN_CHAT; when it goes on, the repeat is delivered once."""
    server = own_server
    alice = ChatClient(server.url, user_on_worker(0, 2), "Alice")
    bob = ChatClient(server.url, user_on_worker(1, 2), "Bob")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        with unable(server, server.child("worker 1")):
            began = time.monotonic()
            await alice.send("MSG", to=bob.user_id, content="are you there?", message_id="m-1")
            await alice.send("MSG", to=bob.user_id, content="no id of mine")
            await alice.send("OPEN_CHAT", target_user_id=user_on_worker(1, 2), target_display_name="Carol")
            details = (await alice.error("MESSAGE_FAILED"))["details"]
            assert 4.5 < time.monotonic() - began < 7.0
            assert (details["type"], details["message_id"]) == ("MSG", "m-1")
            generated = (await alice.error("MESSAGE_FAILED"))["details"]["message_id"]
            assert len(generated) == 36
            assert (await alice.error("MESSAGE_FAILED"))["details"]["type"] == "OPEN_CHAT"
            await alice.send("PING")
            await alice.receive("PONG")
        assert (await alice.message(bob, "are you there?", message_id="m-1"))["status"] == "delivered"
        assert (await bob.receive("MSG"))["message_id"] == "m-1"
        assert [message for message in await bob.drain() if message.type == "MSG"] == []


@run_async
async def test_d26_a_late_answer_is_no_second_answer(own_server: Server) -> None:
    """A worker that goes on just before the deadline confirms; one that does afterwards drops what has expired, unstored."""
    server = own_server
    alice = ChatClient(server.url, user_on_worker(0, 2), "Alice")
    bob = ChatClient(server.url, user_on_worker(1, 2), "Bob")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        with unable(server, server.child("worker 1")):
            await alice.send("MSG", to=bob.user_id, content="in time?", message_id="m-1")
            await asyncio.sleep(2.0)
        assert (await alice.receive("MSG_ACK"))["message_id"] == "m-1"
        await alice.message(bob, "next")
        assert [message.data["content"] for message in await bob.drain() if message.type == "MSG"] == [
            "in time?",
            "next",
        ]


@pytest.mark.slow
@run_async
async def test_a_killed_worker(start_server: StartServer) -> None:
    """Its users are back within 2 s, everybody else keeps chatting, a chat works again, and nobody stays a ghost (D22).

    On a machine that is so busy that the whole server took longer to start, they may wait for as long as that.
    """
    began = time.monotonic()
    server = start_server(workers=3)
    started_in = time.monotonic() - began
    async with AsyncExitStack() as stack:

        async def user(index: int, name: str) -> ChatClient:
            client = ChatClient(server.url, user_on_worker(index, 3), name)
            await stack.enter_async_context(client)
            await client.hello()
            return client

        alice, bob = await user(0, "Alice"), await user(2, "Bob")
        returning, ghost = await user(1, "Returning"), await user(1, "Ghost")
        await alice.open_chat(bob)
        await alice.open_chat(returning)
        os.kill(server.child("worker 1"), signal.SIGKILL)
        for client in (returning, ghost):
            assert (await client.expect_close(timeout=2.0))[0] == 1006
        killed = time.monotonic()
        again = await reconnect(server, returning.user_id, "Returning")
        stack.push_async_exit(again.__aexit__)
        assert time.monotonic() - killed < max(2.0, started_in)
        for number in range(20):
            await alice.message(bob, f"{number}")
            await bob.message(alice, f"{number}")
        assert (await alice.message(again, "there you are", message_id="m"))["status"] == "delivered"
        assert (await again.receive("MSG"))["content"] == "there you are"
        assert (await again.message(alice, "and the chat is open for me too"))["status"] == "delivered"
        for client in (alice, bob, again):
            await sees(
                client, lambda users: ghost.user_id not in users and again.user_id in users, timeout=15.0
            )
        async with ChatClient(server.url) as newcomer:
            await newcomer.hello()
            expected = {alice.user_id, bob.user_id, again.user_id, newcomer.user_id}
            await sees(newcomer, lambda users: users.keys() == expected)


@pytest.mark.slow
@run_async
async def test_a_worker_that_is_killed_again_and_again(start_server: StartServer) -> None:
    server = start_server()
    client = await reconnect(server, user_on_worker(1, 2))
    for _ in range(3):
        worker = server.child("worker 1")
        os.kill(worker, signal.SIGKILL)
        await client.expect_close()
        client = await reconnect(server, client.user_id)
        assert server.child("worker 1") != worker
    await client.websocket.close()


@pytest.mark.slow
@run_async
async def test_users_of_a_worker_that_is_not_there_wait_in_the_lobby(start_server: StartServer) -> None:
    """And get in when it is, with all that they have sent meanwhile; users of other workers do not wait."""
    server = start_server()
    worker = server.child("worker 1")
    os.kill(worker, signal.SIGSTOP)
    waiting = [ChatClient(server.url, user_on_worker(1, 2)) for _ in range(20)]
    try:
        for client in waiting:
            await client.__aenter__()
            await client.send("HELLO", user_id=client.user_id, display_name="Somebody")
            await client.send("PING")
        async with ChatClient(server.url, user_on_worker(0, 2)) as other:
            await other.hello()
        with suppress(ProcessLookupError):  # the supervisor does the same when this has taken long
            os.kill(worker, signal.SIGKILL)
        for client in waiting:
            await client.receive("HELLO_ACK")
            await client.receive("PONG")
    finally:
        for client in waiting:
            await client.__aexit__()


@pytest.mark.slow
@run_async
async def test_a_killed_front(start_server: StartServer) -> None:
    """Who chats does not notice; who comes is let in."""
    server = start_server(fronts=2)
    alice, bob = ChatClient(server.url, user_on_worker(0, 2)), ChatClient(server.url, user_on_worker(1, 2))
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        for index in (0, 1):
            front = server.child(f"front {index}")
            os.kill(front, signal.SIGKILL)
            for number in range(10):
                await alice.message(bob, f"{index} {number}")
                assert (await bob.receive("MSG"))["content"] == f"{index} {number}"
            for _ in range(10):
                async with ChatClient(server.url) as newcomer:
                    await newcomer.hello()
            wait_until(
                functools.partial(replaced, server, f"front {index}", front), "another front to be there"
            )
        assert (await alice.message(bob, "still here"))["status"] == "delivered"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["worker 0", "front 0"])
@run_async
async def test_a_child_that_hangs_does_not_keep_the_server_from_stopping(
    start_server: StartServer, kind: str
) -> None:
    server = start_server()
    os.kill(server.child(kind), signal.SIGSTOP)
    assert await asyncio.to_thread(server.stop) == 0
