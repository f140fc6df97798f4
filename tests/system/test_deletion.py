"""Deleting a user while the server runs: D36, as seen from the wire, by the operator, and in the files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from router.operator.client import Refused, RunningServer, Unreachable
from tests.system.harness import (
    PROJECT,
    ChatClient,
    Server,
    StartServer,
    clean_environment,
    run_async,
    wait_until,
)
from tests.system.servers import two_users
from tests.system.test_chat_lists import ALL, WHERE, listed, told

#: Seconds that a deletion may take on a machine that is busy with other tests, deaths of workers included.
_PATIENCE: Final = 40.0


def fastchat(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """What an operator does."""
    done = subprocess.run(
        [".venv/bin/fastchat", *words, "--admin", server.admin_url],
        cwd=PROJECT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
    )
    assert "Traceback" not in done.stderr
    return done


async def delete(server: Server, user_id: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(fastchat, server, "delete", user_id, "--yes")


def begin(server: Server, user_id: str) -> asyncio.Task[dict[str, Any]]:
    """Ask without a command, which takes its time to start: whoever is suspended meanwhile is soon killed for hanging."""

    def ask() -> dict[str, Any]:
        try:
            return RunningServer({}, server.admin_url).ask("delete", user=user_id)
        except (Refused, Unreachable) as problem:
            return {"state": str(problem)}

    return asyncio.create_task(asyncio.to_thread(ask))


async def deleted(server: Server, user_id: str) -> None:
    """Ask until the deletion that was begun has ended."""
    async with asyncio.timeout(_PATIENCE):
        while (done := await delete(server, user_id)).returncode not in (0, 1):
            assert done.returncode in (2, 3), done


def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [".venv/bin/python", "-m", "workers.store", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def files(data: Path) -> list[Path]:
    """The databases that hold."""
    return sorted(max(data.glob("shards-*"), key=lambda path: path.name).glob("*.db"))


def noted(data: Path) -> bool:
    """Whether a deletion is noted in one of the files."""
    for path in files(data):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            if connection.execute("SELECT 1 FROM users WHERE deleting").fetchone():
                return True
    return False


def data_of(tmp_path: Path) -> Path:
    """The data directory of the only server of a test."""
    return tmp_path / "server-0" / "data"


async def begins_anew(server: Server, user_id: str, peer_id: str) -> None:
    """The id is a new user's: nothing is listed and nothing comes; and the peer has no chat with it, and no history."""
    async with (
        ChatClient(server.url, user_id, "Another") as new,
        ChatClient(server.url, peer_id, "Bob") as bob,
    ):
        await new.hello(capabilities=ALL)
        await bob.hello(capabilities=[*ALL, "history"])
        assert await listed(new) == []
        assert [chat["user_id"] for chat in await listed(bob)] == []
        for client in (new, bob):
            assert not [each for each in await client.drain() if each.type in ("MSG", "CHAT_OPENED")]
        await bob.send("HISTORY", **{"with": user_id})
        await bob.error("CHAT_NOT_OPENED")
        await bob.send("MSG", to=user_id, content="hello?", message_id="1")
        await bob.error("CHAT_NOT_OPENED")
        await new.open_chat(bob)
        await new.message(bob, "from the new one", message_id="0")
        assert (await bob.receive("MSG"))["content"] == "from the new one"


def assert_nothing_of(data: Path, user_id: str) -> None:
    """The files are sound, and say nothing of the user."""
    checked = tool("check", data)
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    exported = tool("export", data, user_id)
    assert (exported.returncode, exported.stdout) == (2, "")
    assert f"there is no user '{user_id}'" in exported.stderr
    for path in files(data):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            assert not connection.execute("SELECT 1 FROM chats WHERE peer = ?", (user_id,)).fetchall()
            assert not connection.execute("SELECT 1 FROM blocks WHERE peer = ?", (user_id,)).fetchall()


async def talk(server: Server, mallory_id: str, bob_id: str, messages: int) -> None:
    """Both have written to each other, and Bob has not read what came last."""
    mallory, bob = ChatClient(server.url, mallory_id, "Mallory"), ChatClient(server.url, bob_id, "Bob")
    async with mallory:
        await mallory.hello(capabilities=ALL)
        async with bob:
            await bob.hello(capabilities=ALL)
            await mallory.open_chat(bob)
            await bob.message(mallory, "to Mallory", message_id="0")
        for number in range(messages):
            await mallory.message(bob, f"insult {number}", message_id=f"{number}")


@WHERE
@pytest.mark.attack("a deleted user")
@run_async
async def test_d36_a_user_is_deleted_while_everybody_is_connected(server: Server, where: str) -> None:
    """Devices are closed, the peer's list, history and mailbox have nothing of the user, and other chats are as they were."""
    mallory_id, bob_id = two_users(server, where)
    mallory, phone = (ChatClient(server.url, mallory_id, "Mallory") for _ in range(2))
    bob, carol = ChatClient(server.url, bob_id, "Bob"), ChatClient(server.url, name="Carol")
    async with mallory, phone, bob, carol:
        for client in (mallory, phone, carol):
            await client.hello(capabilities=ALL)
        start = (await bob.hello(capabilities=ALL))["cursor"]
        await mallory.open_chat(bob)
        await carol.open_chat(bob)
        for number in range(4):
            await (mallory, carol)[number % 2].message(bob, f"{number}", message_id=f"{number}")
        await bob.message(mallory, "to Mallory", message_id="0")
        await told(bob, mallory_id, unread=2)
        done = await delete(server, mallory_id)
        assert (done.returncode, done.stdout) == (
            0,
            "deleted: 1 messages received and 2 sent, 1 chats; connections closed: 2\n",
        )
        for device in (mallory, phone):
            assert await device.expect_close() == (4004, "this user was deleted")
        await told(bob, mallory_id, hidden=True, last=None)
        (chat,) = await listed(bob)
        assert (chat["user_id"], chat["unread"], chat["last"]["content"]) == (carol.user_id, 2, "3")
        await bob.send("MSG", to=mallory_id, content="are you there?", message_id="1")
        await bob.error("USER_NOT_FOUND")
        await bob.send("HISTORY", **{"with": mallory_id})
        await bob.error("CHAT_NOT_OPENED")
        assert (await begin(server, mallory_id))["state"] == "unknown"
    # What a device gets that resumes has holes, and nothing of the user.
    async with ChatClient(server.url, bob_id, "Bob") as later:
        await later.hello(capabilities=ALL, resume={"cursor": start})
        messages = [await later.receive("MSG") for _ in range(2)]
        assert [(message["seq"], message["content"]) for message in messages] == [(2, "1"), (4, "3")]
        assert not [each for each in await later.drain() if each.type == "MSG"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker 0", "worker 1", "both"])
@run_async
async def test_d36_whoever_is_killed_meanwhile_it_goes_on(
    start_server: StartServer, tmp_path: Path, victim: str
) -> None:
    """The worker of the peer, which is suspended, keeps the deletion from its end until the kill."""
    server = start_server(workers=2)
    mallory_id, bob_id = two_users(server, "other shard")
    await talk(server, mallory_id, bob_id, 30)
    data = data_of(tmp_path)
    peer = server.child("worker 1")
    os.kill(peer, signal.SIGSTOP)
    asked = begin(server, mallory_id)
    await asyncio.to_thread(wait_until, lambda: noted(data), "the note to be durable")
    for title in ("worker 0", "worker 1") if victim == "both" else (victim,):
        with contextlib.suppress(ProcessLookupError, AssertionError):
            os.kill(server.child(title), signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(peer, signal.SIGCONT)
    await asked
    await deleted(server, mallory_id)
    assert not noted(data)
    await begins_anew(server, mallory_id, bob_id)
    await deleted(server, mallory_id)
    assert server.stop() == 0
    assert_nothing_of(data, mallory_id)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
@run_async
async def test_d36_it_survives_the_death_of_everything(tmp_path: Path, workers: int) -> None:
    """Also when the server is started with another number of workers."""
    with Server(tmp_path, workers=2) as server:
        mallory_id, bob_id = two_users(server, "other shard")
        await talk(server, mallory_id, bob_id, 30)
        os.kill(server.child("worker 1"), signal.SIGSTOP)
        asked = begin(server, mallory_id)
        await asyncio.to_thread(wait_until, lambda: noted(tmp_path / "data"), "the note to be durable")
        await asyncio.to_thread(server.kill)
        assert (await asked)["state"] != "deleted"
    assert noted(tmp_path / "data")
    with Server(tmp_path, workers=workers) as server:
        await deleted(server, mallory_id)
        await begins_anew(server, mallory_id, bob_id)
        await deleted(server, mallory_id)
    assert_nothing_of(tmp_path / "data", mallory_id)


@pytest.mark.slow
@run_async
async def test_d36_it_goes_on_through_a_reload_and_a_resize(
    start_server: StartServer, tmp_path: Path
) -> None:
    """And chats of others go on beside thousands of messages that are removed."""
    server = start_server(workers=2)
    mallory_id, bob_id = two_users(server, "other shard")
    await talk(server, mallory_id, bob_id, 3000)
    bob, carol = ChatClient(server.url, bob_id, "Bob"), ChatClient(server.url, name="Carol")
    async with bob, carol:
        for client in (bob, carol):
            await client.hello()
        await carol.open_chat(bob)
        asked = asyncio.create_task(delete(server, mallory_id))
        for words in (("reload",), ("resize", "3")):
            changed = asyncio.create_task(asyncio.to_thread(fastchat, server, *words))
            while not changed.done():
                await carol.message(bob, words[0])
                await bob.receive("MSG", content=words[0])
            assert (await changed).returncode == 0, await changed
        await asked
        await deleted(server, mallory_id)
    assert server.stop() == 0
    assert_nothing_of(data_of(tmp_path), mallory_id)


def told_apart(done: subprocess.CompletedProcess[str]) -> tuple[int, Any]:
    return done.returncode, done.stderr


def test_d36_an_operator_confirms(server: Server) -> None:
    """Nothing is deleted by a word too few."""
    user = two_users(server, "same shard")[0]
    done = fastchat(server, "delete", user)
    assert told_apart(done) == (
        2,
        "fastchat: standard input is not a terminal: confirm the deletion with --yes\n",
    )
    unknown = fastchat(server, "delete", user, "--yes", "--json")
    assert (unknown.returncode, unknown.stdout) == (1, f'{{"user":"{user}","state":"unknown"}}\n')
