"""Blocking: D32, as seen from the wire."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async
from tests.system.servers import two_users
from tests.system.test_chat_lists import ALL, WHERE, listed, told


async def gone(client: ChatClient, peer: str) -> None:
    """Wait until PRESENCE says that somebody is offline."""

    def says_so(page: dict[str, Any]) -> bool:
        return any(user["user_id"] == peer and not user["online"] for user in page["users"])

    await client.receive("PRESENCE", where=says_so)


@WHERE
@pytest.mark.attack("harassment")
@run_async
async def test_d32_nothing_of_it_ever_reaches_the_blocker(server: Server, where: str) -> None:
    """Messages, typing, presence and reading; on no device, not in the history, and not after UNBLOCK."""
    mallory_id, bob_id = two_users(server, where)
    mallory, bob = ChatClient(server.url, mallory_id, "Mallory"), ChatClient(server.url, bob_id, "Bob")
    tablet = ChatClient(server.url, bob_id, "Bob")
    async with mallory, bob, tablet:
        await mallory.hello(capabilities=["receipts", "history", "presence_delta"])
        for device in (bob, tablet):
            await device.hello(capabilities=[*ALL, "presence_delta"])
        await mallory.open_chat(bob)
        await mallory.message(bob, "before", message_id="before")
        for device in (bob, tablet):
            await device.receive("CHAT_OPENED")
            await device.receive("MSG")
        await bob.send("BLOCK", user_id=mallory_id)
        for device in (bob, tablet):
            await told(device, mallory_id, blocked=True)
        for client, peer in ((mallory, bob_id), (bob, mallory_id)):
            await gone(client, peer)
        await mallory.open_chat(bob)
        await mallory.send("TYPING", is_typing=True, to=bob_id)
        for number in range(3):
            ack = await mallory.message(bob, f"insult {number}", message_id=f"{number}")
            assert ack["status"] == "accepted"
        await bob.send("READ", message_id="before", **{"from": mallory_id})
        await bob.send("MSG", to=mallory_id, content="go away", message_id="m")
        assert (await bob.error("CHAT_NOT_OPENED"))["details"]["blocked"] is True
        await bob.send("UNBLOCK", user_id=mallory_id)
        await told(bob, mallory_id, blocked=False)
        for device in (bob, tablet):
            assert {message.type for message in await device.drain()} <= {"CHATS", "PRESENCE", "HELLO_ACK"}
        again = await mallory.message(bob, "insult 0", message_id="0")
        assert again["status"] == "accepted"
        await bob.send("HISTORY", **{"with": mallory_id})
        assert [message["content"] for message in (await bob.receive("HISTORY"))["messages"]] == ["before"]
        await mallory.send("HISTORY", **{"with": bob_id})
        contents = [message["content"] for message in (await mallory.receive("HISTORY"))["messages"]]
        assert contents == ["insult 2", "insult 1", "insult 0", "before"]
        # What bob read while the block held is told by nothing; and what comes now is shown.
        assert not any(
            message.data.get("status") == "read"
            for message in await mallory.drain()
            if message.type == "MSG_ACK"
        )
        await mallory.message(bob, "sorry", message_id="sorry")
        assert (await bob.receive("MSG"))["content"] == "sorry"


@pytest.mark.slow
@WHERE
@run_async
async def test_d32_a_block_survives_the_death_of_everything(start_server: StartServer, where: str) -> None:
    server = start_server(workers=2)
    mallory_id, bob_id = two_users(server, where)
    async with ChatClient(server.url, bob_id, "Bob") as bob:
        await bob.hello(capabilities=ALL)
        await bob.send("BLOCK", user_id=mallory_id)
        await told(bob, mallory_id, blocked=True)
    for round_ in range(3):
        async with ChatClient(server.url, mallory_id, "Mallory") as mallory:
            await mallory.hello()
            target = ChatClient(server.url, bob_id, "Bob")
            await mallory.open_chat(target)
            assert (await mallory.message(target, f"{round_}", message_id=f"{round_}"))["status"] == "stored"
        for worker in ("worker 0", "worker 1"):
            os.kill(server.child(worker), signal.SIGKILL)
        async with ChatClient(server.url, bob_id, "Bob") as bob:
            await bob.hello(capabilities=ALL)
            (chat,) = await listed(bob)
            assert (chat["user_id"], chat["blocked"], chat["unread"], chat["last"]) == (
                mallory_id,
                True,
                0,
                None,
            )
            assert not [message for message in await bob.drain() if message.type in ("MSG", "CHAT_OPENED")]


@pytest.mark.attack("harassment by new ids")
@run_async
async def test_d32_a_new_id_is_another_stranger(server: Server) -> None:
    """A block is about an id, so who comes back under another one and the same name gets through, as any stranger does."""
    bob = ChatClient(server.url, name="Bob")
    async with bob:
        await bob.hello(capabilities=ALL)
        for number in range(3):
            async with ChatClient(server.url, name="Mallory") as mallory:
                await mallory.hello()
                await mallory.open_chat(bob)
                await bob.receive("CHAT_OPENED", target_user_id=mallory.user_id)
                await mallory.message(bob, f"{number}", message_id=f"{number}")
                assert (await bob.receive("MSG"))["from"] == mallory.user_id
                await bob.send("BLOCK", user_id=mallory.user_id)
                await told(bob, mallory.user_id, blocked=True)
                assert (await mallory.message(bob, "again", message_id="again"))["status"] == "stored"
        assert not [message for message in await bob.drain() if message.type == "MSG"]
