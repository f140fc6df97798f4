"""Another number of workers: everybody finds everything again, whatever happens while the files are made."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from uuid import uuid4

import pytest

from core.process.layout import Layout
from tests.system.harness import (
    ChatClient,
    Process,
    Server,
    ServerFailed,
    process_title,
    processes,
    run_async,
    wait_until,
)
from tests.workers.store_files import content, fill, layout_of

pytestmark = pytest.mark.slow

#: How many people chat.
PEOPLE = 8


async def connected(stack: AsyncExitStack, server: Server, ids: list[str]) -> list[ChatClient]:
    """All of them, greeted."""
    clients = [
        await stack.enter_async_context(ChatClient(server.url, user, f"Person {index}"))
        for index, user in enumerate(ids)
    ]
    for client in clients:
        await client.hello()
    return clients


async def gets(client: ChatClient, expected: list[tuple[str, str]]) -> None:
    """These (sender, content) come, in the order of each sender, and no message beside them."""
    came = [await client.receive("MSG") for _ in expected]
    assert [message for message in await client.drain() if message.type == "MSG"] == []
    for sender in {sender for sender, _ in expected}:
        told = [text for who, text in expected if who == sender]
        assert [message["content"] for message in came if message["from"] == sender] == told


@run_async
async def test_1_3_8_2(tmp_path: Path) -> None:
    """What was acknowledged does not come again, what was not does; chats are open; new messages find their way."""
    ids = [str(uuid4()) for _ in range(PEOPLE)]
    waiting: dict[str, list[tuple[str, str]]] = {user: [] for user in ids}
    for round_, workers in enumerate((1, 3, 8, 2)):
        with Server(tmp_path, workers=workers) as server:
            async with AsyncExitStack() as stack:
                people = await connected(stack, server, ids)
                for person in people:
                    await gets(person, waiting[person.user_id])
                for person, next_ in zip(people, [*people[1:], people[0]], strict=True):
                    if round_ == 0:
                        await person.open_chat(next_)
                    for number in range(3):
                        text, message_id = f"round {round_}, message {number}", f"{round_}-{number}"
                        await person.message(next_, text, message_id=message_id)
                        await next_.receive("MSG", message_id=message_id, content=text)
                        if number != 1:
                            await next_.send("MSG_ACK", message_id=message_id)
                    waiting[next_.user_id].append((person.user_id, f"round {round_}, message 1"))
                for person in people:
                    await person.drain()  # after which their acknowledgements have been heard
        before = content(tmp_path / "data")
        assert layout_of(tmp_path / "data").workers == workers
        assert before.users.keys() == set(ids)
        for box in before.mailboxes.values():
            assert [row[0] for row in box] == list(range(1, 3 * (round_ + 1) + 1))
        assert all(len(chats) == 2 for chats in before.chats.values())
        assert "Traceback" not in server.output()


def quietly(start: Callable[[], None]) -> Callable[[], None]:
    """Start a server that is not going to be ready."""

    def run() -> None:
        with suppress(ServerFailed):
            start()

    return run


def wait_for_prepare(server: Server) -> Process:
    """The process that makes the files of a server which is being started, once there is one."""
    found: list[Process] = []

    def look() -> bool:
        if server._make is not None:
            found.extend(
                process
                for process in processes().values()
                if process.session == server._make.pid and process_title(process.pid) == "fastchat: prepare"
            )
        return bool(found)

    wait_until(look, "the files to be made")
    return found[0]


def wait_ended(process: Process) -> None:
    """Wait until it has gone with its supervisor."""

    def is_gone() -> bool:
        running = processes().get(process.pid)
        return running is None or running.started != process.started

    wait_until(is_gone, "the child to end with its supervisor", timeout=5.0)


def test_the_supervisor_is_killed_while_the_files_are_made(tmp_path: Path) -> None:
    """Again and again, at any moment; the child goes with it, and in the end everything is there."""
    generator = random.Random(20_260_103)
    data = tmp_path / "data"
    data.mkdir()
    fill(data, 2, users=1000, messages=50_000)
    before = content(data)
    for _ in range(4):
        held = layout_of(data)
        workers = {2: 5, 5: 2}[held.workers]
        server = Server(tmp_path, workers=workers, retention_days=0)
        starting = threading.Thread(target=quietly(server.start))
        starting.start()
        child = wait_for_prepare(server)
        time.sleep(generator.uniform(0.2, 1.0))  # any moment is as good as any other
        os.kill(child.parent, signal.SIGKILL)
        wait_ended(child)
        starting.join()
        server.kill()
        assert layout_of(data) in (held, Layout(held.generation + 1, workers))
        assert content(data) == before
    with Server(tmp_path, workers=workers, retention_days=0):
        pass
    assert content(data) == before
    holds = layout_of(data)
    assert holds.workers == workers
    assert sorted(path.name for path in data.iterdir()) == ["layout.json", "lock", holds.directory]


def test_files_that_cannot_be_made_keep_the_server_from_starting(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    fill(data, 2, users=10, messages=100)
    path = data / layout_of(data).shard(1)
    whole = path.read_bytes()
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(ServerFailed) as failure, Server(tmp_path, workers=3):
        pass
    assert failure.value.exit_code == 2
    assert (
        f"fastchat: can't prepare the data directory {data}" in failure.value.output
        or "can't be used" in failure.value.output
    )
    assert "Traceback" not in failure.value.output
    path.write_bytes(whole)
    with Server(tmp_path, workers=3):
        pass
