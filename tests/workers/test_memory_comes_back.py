"""A real worker past its memory ceiling: it refuses newcomers, and takes them again when the others have left (D28, D29)."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.raw_client import RawClient, text
from tests.workers.process import WorkerProcess

MIB: Final = 2**20
#: Clients who read nothing: so many devices of so many users. Each has asked for so many pages of history, of nearly 64 KiB.
_USERS: Final = 20
_DEVICES: Final = 10
_PAGES: Final = 4
#: What the worker may have beyond what it has when it is empty; the answers are twice as much.
_ROOM_MIB: Final = 24


def _empty_mib() -> int:
    """The size of a worker without clients."""
    with WorkerProcess() as worker:
        worker.stats()
        pages = int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // MIB


def _write_history(worker: WorkerProcess, sender: RawClient) -> list[str]:
    """Users who have a page of history each with `sender`, and have read it."""
    users = []
    for _ in range(_USERS):
        with worker.chatter() as reader:
            users.append(reader.user_id)
            sender.say("OPEN_CHAT", target_user_id=reader.user_id, target_display_name=reader.name)
            sender.receive("CHAT_OPENED")
            for number in range(18):
                sender.send(text("MSG", to=reader.user_id, content="😀" * 900, message_id=f"m{number}"))
                sender.receive("MSG_ACK", message_id=f"m{number}")
            reader.receive("MSG", message_id="m17")
            for number in range(18):
                reader.say("MSG_ACK", message_id=f"m{number}")
    return users


@pytest.mark.slow
def test_d29_a_worker_takes_newcomers_again_when_who_left_answers_unread_has_left() -> None:
    """Hundreds of clients ask for much and read nothing of it: nothing has to be restarted for that."""
    limit = _empty_mib() + _ROOM_MIB
    generous: dict[str, Any] = {"history_per_minute": 0, "hellos_per_minute": 0, "open_chats_per_minute": 0}
    with WorkerProcess(worker_memory_mib=limit, **generous) as worker, worker.chatter() as sender:
        users = _write_history(worker, sender)
        assert worker.stats()["memory_full"] == 0
        with ExitStack() as readers:
            question = text("HISTORY", **{"with": sender.user_id})
            devices = []
            for user_id in users * _DEVICES:
                first = text("HELLO", user_id=user_id, display_name="Reader", capabilities=["history"])
                reader = worker.connect(user_id, first=first, send_buffer=4096, receive_buffer=4096)
                devices.append(readers.enter_context(reader))
            assert worker.stats(connections=1 + len(devices))["memory_full"] == 0
            for device in devices:
                device.send(question * _PAGES)
            worker.stats(60.0, memory_full=1)
            with worker.connect() as newcomer:
                assert newcomer.closed() == (1013, "this server has no memory for more; reconnect later")
            worker.stats(memory_full=1, memory_refused_total=1)
            sender.say("PING")
            sender.receive("PONG")
        stats = worker.stats(60.0, memory_full=0)
        assert stats["outbox_bytes"] == 0
        with worker.chatter() as newcomer:
            newcomer.say("PING")
            newcomer.receive("PONG")
