"""Presence: D21 and D22, as seen from the wire, by users of the same and of other shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async, user_on_worker
from tests.system.servers import online, sees, shared_server, two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])
#: The same for tests that take long: the way on one shard, which is the shorter one, is for the second tier.
WHERE_LONG = pytest.mark.parametrize(
    "where", [pytest.param("same shard", marks=pytest.mark.slow), "other shard"]
)


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with three shards, so that what happens on one is seen on two others."""
    with shared_server(pytestconfig, tmp_path_factory, workers=3) as server:
        yield server


@WHERE_LONG
@run_async
async def test_d21_coming_and_leaving_is_seen_on_every_shard(server: Server, where: str) -> None:
    """Leaving after a grace of 5 s."""
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await sees(bob, lambda users: {first, second} <= users.keys())
            assert (await sees(watcher, lambda users: second in users))[second] == "Bob"
        left = time.monotonic()
        await sees(watcher, lambda users: second not in users, timeout=15.0)
        assert 4.5 < time.monotonic() - left < 9.0


@pytest.mark.slow
@WHERE_LONG
@run_async
async def test_d21_a_reconnect_within_the_grace_is_not_seen(server: Server, where: str) -> None:
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await sees(watcher, lambda users: second in users)
        await asyncio.sleep(2.5)
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await asyncio.sleep(5.0)  # nothing happens in this time, which is what is tested
            for message in await watcher.drain():
                assert second in online(message.data), "the user left for a moment"


@pytest.mark.slow
@run_async
async def test_d21_the_last_device_counts(server: Server) -> None:
    first, second = two_users(server, "other shard")
    async with ChatClient(server.url, first) as watcher, ChatClient(server.url, second) as phone:
        await watcher.hello()
        await phone.hello()
        async with ChatClient(server.url, second) as laptop:
            await laptop.hello()
        await asyncio.sleep(6.5)
        async with ChatClient(server.url) as another:  # whose coming is news
            await another.hello()
            assert second in await sees(watcher, lambda users: another.user_id in users)


@run_async
async def test_d21_at_most_one_a_second(server: Server) -> None:
    """However much happens meanwhile; and the last one is right."""
    async with ChatClient(server.url) as watcher:
        began = time.monotonic()
        await watcher.hello()
        visitors = []
        try:
            for number in range(30):
                visitor = ChatClient(server.url, user_on_worker(number % 3, 3))
                visitors.append(await visitor.__aenter__())
                await visitor.hello()
                await asyncio.sleep(0.05)
            ids = {visitor.user_id for visitor in visitors}
            await watcher.receive("PRESENCE", where=lambda data: ids <= online(data).keys())
        finally:
            for visitor in visitors:
                await visitor.__aexit__()
        count = 1 + sum(message.type == "PRESENCE" for message in watcher.inbox)
        assert count <= time.monotonic() - began + 1.5


@run_async
async def test_d21_no_news_no_presence(server: Server) -> None:
    """One's own HELLO is not told to oneself twice. Other tests may run against this server, so what comes must say something new."""
    async with ChatClient(server.url) as client:
        await client.hello()
        told = online(await client.receive("PRESENCE"))
        await asyncio.sleep(2.5)
        for message in await client.drain():
            assert online(message.data) != told
            told = online(message.data)


@run_async
async def test_d22_a_plain_client_gets_the_full_list_each_time(server: Server) -> None:
    first, second = two_users(server, "other shard")
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        async with ChatClient(server.url, second, "Before") as bob:
            await bob.hello()
            await bob.hello(display_name="After")
            assert first in await sees(watcher, lambda users: users.get(second) == "After")


@pytest.mark.slow
@run_async
async def test_d22_presence_delta_is_only_for_who_asks(start_server: StartServer) -> None:
    """Unknown capabilities are ignored; the client beside it that uses none sees nothing of them."""
    server = start_server(workers=3)
    first, second = two_users(server, "other shard")
    async with ChatClient(server.url, first) as watcher, ChatClient(server.url) as plain:
        acknowledged = await watcher.hello(capabilities=["presence_delta", "telepathy"])
        assert acknowledged["capabilities"] == ["presence_delta"]
        assert (await plain.hello()).keys() == {"user_id", "status"}
        whole = await watcher.receive("PRESENCE")
        assert whole.keys() == {"users", "scope"}
        assert first in {user["user_id"] for user in whole["users"]}

        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await sees(plain, lambda users: second in users)
            await asyncio.sleep(1.5)  # so that what the first HELLOs changed has been told
            await bob.hello(display_name="Bobby")
            came = {"user_id": second, "display_name": "Bobby", "online": True}
            delta = await watcher.receive("PRESENCE", where=lambda data: came in data["users"])
            assert delta == {"users": [came], "delta": True, "scope": "everyone"}
            assert {first, plain.user_id} < (
                await sees(plain, lambda users: users.get(second) == "Bobby")
            ).keys()
        went = {"user_id": second, "display_name": "Bobby", "online": False}
        await watcher.receive("PRESENCE", where=lambda data: went in data["users"], timeout=15.0)


@pytest.mark.slow
@WHERE
@run_async
async def test_d21_who_can_take_it_learns_who_is_listed_and_asks_after_people(
    start_server: StartServer, where: str
) -> None:
    """In scope `contacts`: the people with whom one has a chat, online or not; of others nothing."""
    server = start_server(workers=3, presence="contacts")
    first, second = two_users(server, where)
    async with (
        ChatClient(server.url, first) as alice,
        ChatClient(server.url, second, "Bob") as bob,
        ChatClient(server.url, user_on_worker(2, 3), "Stranger") as stranger,
    ):
        acknowledged = await alice.hello(capabilities=["presence_delta"])
        assert acknowledged["scope"] == "contacts"
        assert (await alice.receive("PRESENCE"))["scope"] == "contacts"
        assert (await bob.hello()).keys() == {"user_id", "status"}
        await stranger.hello()
        await bob.open_chat(alice)
        await alice.receive("CHAT_OPENED")

        async def ask() -> dict[str, Any]:
            await alice.send("PRESENCE", user_ids=[stranger.user_id, second])
            return await alice.receive("PRESENCE")

        # That there is a chat is news of its own, told within a second.
        await alice.receive("PRESENCE", where=lambda data: second in str(data["users"]))
        entry = {"user_id": second, "display_name": "Bob", "online": True}
        assert await ask() == {"users": [entry], "delta": True, "scope": "contacts"}
        await bob.__aexit__()
        away = {**entry, "online": False}
        await alice.receive("PRESENCE", where=lambda data: data["users"] == [away], timeout=15.0)
        assert await ask() == {"users": [away], "delta": True, "scope": "contacts"}


@pytest.mark.slow
@run_async
async def test_d21_a_crowd_switches_the_scope_and_everybody_is_told(start_server: StartServer) -> None:
    """Above 200 users contacts, below 160 everyone again: a PRESENCE says so to who has no chat at all."""
    server = start_server(workers=3, connections_per_ip=0)
    async with ChatClient(server.url) as watcher:
        await watcher.hello(capabilities=["presence_delta"])
        async with AsyncExitStack() as stack:
            for _ in range(200):
                one = await stack.enter_async_context(ChatClient(server.url))
                await one.hello()
            narrow = await watcher.receive(
                "PRESENCE", where=lambda data: data["scope"] == "contacts", timeout=20.0
            )
            assert [user["user_id"] for user in narrow["users"]] == [watcher.user_id]
            assert "delta" not in narrow
        wide = await watcher.receive("PRESENCE", where=lambda data: data["scope"] == "everyone", timeout=30.0)
        assert "delta" not in wide
        assert watcher.user_id in {user["user_id"] for user in wide["users"]}
