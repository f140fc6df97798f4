"""What a clock that is wrong does to people: nothing (D14, D18, D20)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import ChatClient, Server, StartServer, run_async, wait_until
from tests.system.servers import two_users
from tests.system.wall_clock import WallClock


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
        ("same shard", 600, "server"),
        ("other shard", 5 * 3600, "server"),
        ("other shard", 30 * 86_400, "server"),
        ("other shard", 5 * 3600, "worker 0"),
        ("other shard", 5 * 3600, "worker 1"),
    ],
)
@run_async
async def test_d14_a_clock_that_is_put_back_moves_no_message(
    start_server: StartServer, wall_clock: WallClock, where: str, back: int, who: str
) -> None:
    """Across a restart of the server, or of one worker that then has another time than the others."""
    server = start_server()
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
