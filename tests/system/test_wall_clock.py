"""What a clock that is wrong does to people: nothing (D14, D18, D20)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.started_processes import has_the_core_of_the_tests
from tests.system.harness import ChatClient, Server, StartServer, run_async, wait_until
from tests.system.servers import two_users
from tests.system.wall_clock import WallClock

pytestmark = pytest.mark.slow


@pytest.fixture
def wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    directory = tmp_path / "clock"
    directory.mkdir()
    return WallClock(directory, monkeypatch)


def restart(server: Server, title: str) -> int:
    """Kill a process of the server; the one that takes its place."""
    old = server.child(title)
    os.kill(old, signal.SIGKILL)
    wait_until(
        lambda: f"fastchat: {title}" in [name for pid, name in server.children().items() if pid != old],
        f"another {title}",
    )
    return server.child(title)


async def history(client: ChatClient, peer: ChatClient, limit: int) -> list[str]:
    """What both have written, newest first, read page by page."""
    contents: list[str] = []
    page: dict[str, Any] = {"next": None}
    while True:
        await client.send("HISTORY", **{"with": peer.user_id, "limit": limit, "before": page["next"]})
        page = await client.receive("HISTORY")
        contents += [message["content"] for message in page["messages"]]
        if page["next"] is None:
            return contents


@pytest.mark.parametrize(
    ("where", "back", "who"),
    [
        ("other shard", 5 * 3600, "worker 0"),
        ("same shard", 600, "server"),
        ("other shard", 5 * 3600, "server"),
        ("other shard", 30 * 86_400, "server"),
        ("other shard", 5 * 3600, "worker 1"),
    ],
)
@run_async
async def test_d14_a_clock_that_is_put_back_moves_no_message(
    start_server: StartServer, wall_clock: WallClock, where: str, back: int, who: str
) -> None:
    """Across a restart of the server, or of one worker that then has another time than the others."""
    server = start_server()
    assert has_the_core_of_the_tests(server.child("worker 0"))
    users = two_users(server, where)
    number = 0
    for is_first in (True, False):
        async with ChatClient(server.url, users[0]) as alice, ChatClient(server.url, users[1]) as bob:
            await alice.hello(capabilities=["history"])
            await bob.hello(capabilities=["history"])
            await alice.open_chat(bob)
            for _ in range(3):
                for sender, recipient in ((alice, bob), (bob, alice), (bob, alice)):
                    await sender.message(recipient, f"{number}")
                    number += 1
            if not is_first:
                for limit in (1, 3, 100):
                    expected = [f"{sent}" for sent in reversed(range(number))]
                    assert await history(alice, bob, limit) == expected
                    assert await history(bob, alice, limit) == expected
        if is_first:
            if who == "server":
                server.stop()
                wall_clock.is_off_by(-back)
                server.start()
            else:
                wall_clock.is_off_by(-back, restart(server, who))


async def contents(server: Server, users: tuple[str, str]) -> list[str]:
    """What HISTORY has of the two, newest first."""
    async with ChatClient(server.url, users[0]) as alice:
        await alice.hello(capabilities=["history"])
        await alice.send("HISTORY", **{"with": users[1]})
        page = await alice.receive("HISTORY")
        return [message["content"] for message in page["messages"]]


async def write(server: Server, users: tuple[str, str]) -> None:
    """One message that is delivered and acknowledged, and one that waits."""
    async with ChatClient(server.url, users[0]) as alice:
        await alice.hello()
        async with ChatClient(server.url, users[1]) as bob:
            await bob.hello()
            await alice.open_chat(bob)
            assert (await alice.message(bob, "delivered"))["status"] == "delivered"
            message = await bob.receive("MSG")
            await bob.send("MSG_ACK", message_id=message["message_id"])
            await bob.send("PING")
            await bob.receive("PONG")
        await alice.message(bob, "waits")


@pytest.mark.parametrize("case", ["one start ahead", "ahead while it runs", "first start in 1970"])
@run_async
async def test_d20_no_mail_goes_on_the_word_of_a_wrong_clock(
    start_server: StartServer, wall_clock: WallClock, case: str
) -> None:
    """With a retention of an hour: neither what waits, nor what was delivered."""
    in_1970 = -int(time.time())
    if case == "first start in 1970":
        wall_clock.is_off_by(in_1970)
    server = start_server(retention_days=1 / 24)
    users = two_users(server, "other shard")
    await write(server, users)
    if case == "one start ahead":
        server.stop()
        wall_clock.is_off_by(60 * 86_400)
        server.start()
        await asyncio.sleep(2)
        assert "the clock has jumped 60.0 days ahead" in server.output()
        server.stop()
        wall_clock.is_off_by(0)
        server.start()
    elif case == "ahead while it runs":
        wall_clock.is_off_by(60 * 86_400)
        wait_until(
            lambda: server.output().count("the clock has jumped 60.0 days ahead") == 2,
            "the jump to be noticed",
        )
        wall_clock.is_off_by(0)
        wait_until(
            lambda: server.output().count("the clock has jumped 60.0 days back") == 2,
            "the jump to be noticed",
        )
    else:
        wall_clock.is_off_by(0)
        wait_until(lambda: server.output().count("days ahead") == 2, "the jump to be noticed")
        server.stop()
        server.start()
    # Retention has looked through everything at least once more.
    await asyncio.sleep(2)
    assert await contents(server, users) == ["waits", "delivered"]


@run_async
async def test_d20_what_is_really_past_the_retention_goes(start_server: StartServer) -> None:
    """Delivered or not; nothing needs to be written for that."""
    server = start_server(retention_days=3 / 86_400)
    users = two_users(server, "other shard")
    await write(server, users)
    async with asyncio.timeout(60):
        while True:
            if not await contents(server, users):
                return
            await asyncio.sleep(1)
