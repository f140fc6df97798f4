"""The operator's tools, on the data of a real server: what they see of what people did, and what people see of what they did."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import PROJECT, ChatClient, Server, clean_environment, run_async

pytestmark = pytest.mark.slow


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one as an operator does."""
    return subprocess.run(
        [".venv/bin/python", "-m", "workers.store", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


@run_async
async def test_check_export_and_purge(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(tmp_path, workers=3) as server:
        alice, bob, carol = (ChatClient(server.url, name=name) for name in ("Alice", "Bobby", "Carol"))
        async with alice, bob:
            async with carol:
                for client in (alice, bob, carol):
                    await client.hello()
            await alice.open_chat(bob)
            await alice.open_chat(carol)
            await bob.open_chat(carol)
            for number in range(5):
                await alice.message(bob, f"a to b {number}")
                await bob.message(alice, f"b to a {number}")
                await alice.message(carol, f"a to c {number}")
                await bob.message(carol, f"b to c {number}")
            # A running server is in nobody's way, but for who wants to delete.
            checked = tool("check", data)
            assert (checked.returncode, checked.stderr) == (0, ""), checked
            assert "3 users, 6 chats, 20 messages; no problem" in checked.stdout
            exported = tool("export", data, alice.user_id)
            assert exported.returncode == 0
            lines = [json.loads(line) for line in exported.stdout.splitlines()]
            assert [line["type"] for line in lines] == ["user", "chat", "chat", *["message"] * 15]
            assert [line["content"] for line in lines[3:] if line["to"] == bob.user_id] == [
                f"a to b {number}" for number in range(5)
            ]
            refused = tool("purge", data, alice.user_id)
            assert refused.returncode == 2
            assert f"is in use by a server or a tool (process {server.pid})" in refused.stderr
    purged = tool("purge", data, alice.user_id)
    assert purged.returncode == 0, purged
    assert "5 messages received and 10 sent; 2 people had a chat with this user" in purged.stdout
    with Server(tmp_path, workers=3) as server:
        async with (
            ChatClient(server.url, bob.user_id, "Bobby") as bob,
            ChatClient(server.url, carol.user_id, "Carol") as carol,
        ):
            await bob.hello()
            await carol.hello()
            # What is left of the conversation that has nothing to do with Alice, in order.
            for number in range(5):
                assert (await carol.receive("MSG"))["content"] == f"b to c {number}"
            assert [message for message in await carol.drain() if message.type == "MSG"] == []
            await bob.send("MSG", to=alice.user_id, content="are you there?")
            await bob.error("USER_NOT_FOUND")
            # And new messages take positions behind the gap.
            await bob.message(carol, "one more")
            assert (await carol.receive("MSG"))["content"] == "one more"
    assert tool("check", data).returncode == 0
    # Who comes back is somebody new.
    with Server(tmp_path, workers=2) as server:
        async with ChatClient(server.url, alice.user_id, "Alice") as alice:
            await alice.hello()
            assert [
                message for message in await alice.drain() if message.type in ("MSG", "CHAT_OPENED")
            ] == []
    assert tool("check", data).returncode == 0
