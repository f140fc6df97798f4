"""Presence: D21 and D22, as seen from the wire, by users of the same and of other shards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.system.harness import ChatClient, Server, run_async, user_on_worker
from tests.system.servers import shared_server, two_users

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])


@pytest.fixture(scope="module")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with three shards, so that what happens on one is seen on two others."""
    with shared_server(pytestconfig, tmp_path_factory, workers=3) as server:
        yield server


def online(data: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    """A PRESENCE as user id -> name."""
    assert all(user["online"] is True for user in data["users"])
    return {user["user_id"]: user["display_name"] for user in data["users"]}


@WHERE
@run_async
async def test_d21_coming_and_leaving_is_seen_on_every_shard(server: Server, where: str) -> None:
    """Leaving after a grace of 5 s."""
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            assert {first, second} <= online(await bob.receive("PRESENCE")).keys()
            seen = await watcher.receive("PRESENCE", where=lambda data: second in online(data))
            assert online(seen)[second] == "Bob"
        left = time.monotonic()
        await watcher.receive("PRESENCE", where=lambda data: second not in online(data), timeout=15.0)
        assert 4.5 < time.monotonic() - left < 9.0


@WHERE
@run_async
async def test_d21_a_reconnect_within_the_grace_is_not_seen(server: Server, where: str) -> None:
    first, second = two_users(server, where)
    async with ChatClient(server.url, first) as watcher:
        await watcher.hello()
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await watcher.receive("PRESENCE", where=lambda data: second in online(data))
        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            await asyncio.sleep(7.0)  # nothing happens in this time, which is what is tested
            for message in await watcher.drain():
                assert second in online(message.data), "the user left for a moment"


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
            seen = await watcher.receive("PRESENCE", where=lambda data: another.user_id in online(data))
            assert second in online(seen)


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

            def news(data: dict[str, list[dict[str, object]]]) -> bool:
                return online(data).get(second) == "After"

            data = await watcher.receive("PRESENCE", where=news)
            assert first in online(data)
            assert data.keys() == {"users"}


@run_async
async def test_d22_presence_delta_is_only_for_who_asks(server: Server) -> None:
    """Unknown capabilities are ignored; the plain client beside it sees the document's bytes."""
    first, second = two_users(server, "other shard")
    async with ChatClient(server.url, first) as watcher, ChatClient(server.url) as plain:
        acknowledged = await watcher.hello(capabilities=["presence_delta", "telepathy"])
        assert acknowledged["capabilities"] == ["presence_delta"]
        assert (await plain.hello()).keys() == {"user_id", "status"}
        full = await watcher.receive("PRESENCE")
        assert full.keys() == {"users"}
        assert first in online(full)

        async with ChatClient(server.url, second, "Bob") as bob:
            await bob.hello()
            came = {"user_id": second, "display_name": "Bob", "online": True}
            delta = await watcher.receive("PRESENCE", where=lambda data: came in data["users"])
            assert delta["delta"] is True
            assert first not in [user["user_id"] for user in delta["users"]]
            assert (await plain.receive("PRESENCE", where=lambda data: came in data["users"])).keys() == {"users"}
        went = {"user_id": second, "display_name": "Bob", "online": False}
        await watcher.receive("PRESENCE", where=lambda data: went in data["users"], timeout=15.0)
