"""A backup of a server that is busy, and a new server on what was restored: what had been acknowledged before is there."""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import PROJECT, ChatClient, Server, clean_environment, run_async, user_on_worker

pytestmark = pytest.mark.slow

#: Messages that are acknowledged before the backup begins, from each of the four writers.
BEFORE = 25


async def tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the store's tools as an operator does, while connections are kept alive."""
    return await asyncio.to_thread(
        subprocess.run,
        [".venv/bin/python", "-m", "workers.store", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


class Writer:
    """Writes to a user who is offline, one message after the other, until it is told to stop."""

    def __init__(self, client: ChatClient, target: ChatClient) -> None:
        self._client = client
        self._target = target
        self._stop = False
        #: What was acknowledged, in order.
        self.acknowledged: list[str] = []
        self.enough = asyncio.Event()

    async def run(self) -> None:
        while not self._stop:
            content = f"{self._client.name} {len(self.acknowledged)}"
            await self._client.message(self._target, content)
            self.acknowledged.append(content)
            if len(self.acknowledged) >= BEFORE:
                self.enough.set()

    def stop(self) -> None:
        self._stop = True


async def everything_for(
    url: str, user_id: str, cursor: str, number: int
) -> tuple[dict[str, Any], list[str]]:
    """HELLO_ACK, and the first `number` messages that follow, of a client that asks to resume from `cursor`."""
    async with ChatClient(url, user_id, "Reader") as reader:
        acknowledged = await reader.hello(capabilities=["resume"], resume={"cursor": cursor})
        messages = [(await reader.receive("MSG"))["content"] for _ in range(number)]
    return acknowledged, messages


async def messages_to(user_id: str, directory: Path) -> list[str]:
    """What is in a user's mailbox."""
    done = await tool("export", directory, user_id)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line["content"] for line in lines if line["type"] == "message" and line["to"] == user_id]


@run_async
async def test_a_backup_while_people_write_is_restored(tmp_path: Path) -> None:
    copy, restored = tmp_path / "backup", tmp_path / "restored" / "data"
    readers = [user_on_worker(index, 2) for index in (0, 1)]
    cursors = []
    with Server(tmp_path / "first", workers=2) as server:
        async with AsyncExitStack() as clients:
            writers: list[Writer] = []
            for user_id in readers:
                async with ChatClient(server.url, user_id, "Reader") as reader:
                    cursors.append((await reader.hello(capabilities=["resume"]))["cursor"])
                    for index in (0, 1):
                        client = ChatClient(server.url, user_on_worker(index, 2), f"Writer {len(writers)}")
                        await clients.enter_async_context(client)
                        await client.hello()
                        await client.open_chat(reader)
                        writers.append(Writer(client, reader))
            writing = [asyncio.create_task(writer.run()) for writer in writers]
            async with asyncio.timeout(60.0):
                for writer in writers:
                    await writer.enough.wait()
            promised = [list(writer.acknowledged) for writer in writers]
            done = await tool("backup", tmp_path / "first" / "data", copy)
            assert (done.returncode, done.stderr) == (0, ""), done
            during = [len(writer.acknowledged) for writer in writers]
            assert all(now > len(before) for now, before in zip(during, promised, strict=True))
            for writer in writers:
                writer.stop()
            await asyncio.gather(*writing)
            again = await tool("backup", tmp_path / "first" / "data", copy)
            assert again.returncode == 2
            assert (
                again.stderr == f"fastchat: {copy} is there already: name a directory that does not exist\n"
            )
        # Who is ahead of the backup will meet a server that is behind.
        everything = sum(len(writer.acknowledged) for writer in writers[:2])
        hello, _ = await everything_for(server.url, readers[0], cursors[0], everything)
        assert hello["resumed"] == "full"
    assert (await tool("check", copy)).returncode == 0
    assert json.loads((copy / "layout.json").read_text())["workers"] == 2
    restored.parent.mkdir()
    done = await tool("restore", copy, restored)
    assert (done.returncode, done.stderr) == (0, ""), done
    # With another number of workers, since a new machine may have more cores.
    with Server(tmp_path / "restored", workers=3) as server:
        for index, user_id in enumerate(readers):
            stored = len(await messages_to(user_id, copy))
            hello, messages = await everything_for(server.url, user_id, cursors[index], stored)
            assert hello["resumed"] == "reset"
            for number in (2 * index, 2 * index + 1):
                mine = [content for content in messages if content.startswith(f"Writer {number} ")]
                # No gap: what came while it was copied is there up to some message.
                assert mine == writers[number].acknowledged[: len(mine)]
                assert len(mine) >= len(promised[number])
