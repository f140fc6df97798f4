"""Typing indicators: D17, as seen from the wire."""

from __future__ import annotations

import time

import pytest

from tests.system.harness import ChatClient, Server, run_async
from tests.system.servers import two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


def clients(server: Server, where: str) -> tuple[ChatClient, ChatClient]:
    """Two new users, not connected yet."""
    first, second = two_users(server, where)
    return ChatClient(server.url, first, "Alice"), ChatClient(server.url, second, "Bob")


async def typing_of(client: ChatClient, sender: ChatClient, is_typing: bool, timeout: float = 10.0) -> None:
    """Wait for this TYPING."""
    data = await client.receive("TYPING", timeout=timeout)
    assert data == {"user_id": sender.user_id, "is_typing": is_typing}


@pytest.mark.slow
@WHERE
@run_async
async def test_d17_expires_15_seconds_after_the_last_true(server: Server, where: str) -> None:
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await alice.send("TYPING", is_typing=True)
        await typing_of(bob, alice, True)
        began = time.monotonic()
        await alice.send("TYPING", is_typing=True)
        await typing_of(bob, alice, True)
        await typing_of(bob, alice, False, timeout=25.0)
        assert 14.5 < time.monotonic() - began < 18.0
        assert [message for message in await bob.drain() if message.type == "TYPING"] == []


@WHERE
@run_async
async def test_d17_ends_with_a_message(server: Server, where: str) -> None:
    alice, bob = clients(server, where)
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.open_chat(bob)
        await alice.send("TYPING", is_typing=True)
        await typing_of(bob, alice, True)
        await alice.message(bob, "here it is")
        await typing_of(bob, alice, False)
        await bob.receive("MSG")
        await alice.message(bob, "and more")
        assert [message.type for message in await bob.drain() if message.type != "PRESENCE"] == [
            "CHAT_OPENED",
            "MSG",
        ]


@WHERE
@run_async
async def test_d17_ends_with_the_connection(server: Server, where: str) -> None:
    alice, bob = clients(server, where)
    async with bob:
        async with alice:
            await alice.hello()
            await bob.hello()
            await alice.open_chat(bob)
            await alice.send("TYPING", is_typing=True)
            await typing_of(bob, alice, True)
        await typing_of(bob, alice, False, timeout=5.0)


@WHERE
@run_async
async def test_d17_goes_to_the_chat_that_this_connection_chose_last(server: Server, where: str) -> None:
    """Opened or wrote in; a stranger's OPEN_CHAT or MSG never replaces it, and `to` overrides it once."""
    alice, bob = clients(server, where)
    carol, stranger = clients(server, where)
    async with alice, bob, carol, stranger:
        for client in (alice, bob, carol, stranger):
            await client.hello()
        await alice.open_chat(bob)
        await alice.open_chat(carol)
        await alice.send("TYPING", is_typing=True)
        await typing_of(carol, alice, True)
        await alice.message(bob, "back to you")
        await alice.send("TYPING", is_typing=True)
        await typing_of(bob, alice, True)
        await stranger.open_chat(alice)
        await stranger.message(alice, "hello, you don't know me")
        await alice.receive("MSG")
        await alice.send("TYPING", is_typing=False)
        await typing_of(bob, alice, False)
        await alice.send("TYPING", is_typing=True, to=carol.user_id)
        await typing_of(carol, alice, True)
        await alice.send("TYPING", is_typing=True)
        await typing_of(bob, alice, True)
        assert [message for message in await stranger.drain() if message.type == "TYPING"] == []


@WHERE
@run_async
async def test_d17_goes_to_the_chat_that_was_seen_last_when_none_was_chosen(
    server: Server, where: str
) -> None:
    alice, bob = clients(server, where)
    carol, _ = clients(server, where)
    async with alice, bob, carol:
        for client in (alice, bob, carol):
            await client.hello()
        await alice.open_chat(bob)
        await carol.open_chat(bob)
        await bob.receive("CHAT_OPENED", target_user_id=carol.user_id)
        await bob.send("TYPING", is_typing=True)
        await typing_of(carol, bob, True)
        await alice.message(bob, "and now me")
        await bob.send("MSG_ACK", message_id=(await bob.receive("MSG"))["message_id"])
        await bob.send("TYPING", is_typing=True)
        await typing_of(alice, bob, True)
        async with ChatClient(
            server.url, bob.user_id, "Bob"
        ) as fresh:  # it has seen nothing: the user's latest
            await fresh.hello()
            await fresh.send("TYPING", is_typing=True)
            await typing_of(carol, bob, True)


@run_async
async def test_d17_no_chat(server: Server) -> None:
    alice, bob = clients(server, "other shard")
    async with alice, bob:
        await alice.hello()
        await bob.hello()
        await alice.send("TYPING", is_typing=True)
        await alice.error("CHAT_NOT_OPENED")
        await alice.send("TYPING", is_typing=True, to=bob.user_id)
        await alice.error("CHAT_NOT_OPENED")


@run_async
async def test_d17_is_never_stored(server: Server) -> None:
    alice, bob = clients(server, "other shard")
    async with alice:
        await alice.hello()
        async with bob:
            await bob.hello()
            await alice.open_chat(bob)
        await alice.send("TYPING", is_typing=True)
        await alice.message(bob, "so that it has been there")
        async with ChatClient(server.url, bob.user_id, "Bob") as again:
            await again.hello()
            await again.receive("MSG")
            assert "TYPING" not in [message.type for message in await again.drain()]
