"""D20 to the letter: nothing is acknowledged or shown before the disk has it. By what the kernel is asked, and in which order."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from tests.system.harness import Server, StartServer, user_on_worker
from tests.system.raw_client import RawClient, text
from tests.system.trace import LOG_SUFFIX, SEGMENT_SUFFIXES, SYNCS, WRITES, Call, Tracer, frames, safe_since

WORKERS: Final = 2
#: Messages to each recipient that are sent one by one, and all at once.
SINGLE: Final = 40
BURST: Final = 120
NEWCOMERS: Final = 10

#: What is looked for in the files: no two messages or names have the same.
MARKER: Final = re.compile(rb"\[trace [0-9a-f]{32}\]")
MARKER_SIZE: Final = 40
STRACE: Final = (
    f"--trace={','.join(sorted(SYNCS | WRITES))}",
    "--signal=none",
    "--string-limit=2000000",
    "-y",
)


def mark() -> str:
    """A new marker."""
    return f"[trace {uuid4().hex}]"


class Talk:
    """What was said while the workers were traced: who said what to whom."""

    def __init__(self) -> None:
        #: Message id -> marker.
        self.sent: dict[str, bytes] = {}
        #: Recipient -> ids of the messages to them, in order.
        self.received: defaultdict[str, list[str]] = defaultdict(list)
        #: User -> marker in the display name.
        self.newcomers: dict[str, bytes] = {}

    def hello(self, newcomer: RawClient) -> None:
        """Have a user say HELLO for the first time, whose name is a marker."""
        self.newcomers[newcomer.user_id] = newcomer.name.encode()
        newcomer.hello()

    def message(self, recipient: RawClient) -> bytes:
        """The frame of a new message."""
        message_id, marker = f"m-{len(self.sent)}", mark()
        self.sent[message_id] = marker.encode()
        self.received[recipient.user_id].append(message_id)
        return text("MSG", to=recipient.user_id, content=f"this is {marker} indeed", message_id=message_id)


def talk(server: Server) -> Talk:
    """Alice writes to Bob on her worker and to Carol on another one; singly and in bursts. Then newcomers come."""
    said = Talk()
    clients = [RawClient.upgraded(server.port, user_on_worker(index, WORKERS), mark()) for index in (0, 0, 1)]
    alice, bob, carol = clients
    try:
        for client in clients:
            said.hello(client)
        for client in (bob, carol):
            alice.say("OPEN_CHAT", target_user_id=client.user_id, target_display_name="Somebody")
            alice.receive("CHAT_OPENED")
        for _ in range(SINGLE):
            for client in (bob, carol):
                alice.send(said.message(client))
                alice.receive("MSG_ACK", timeout=30.0)
                client.receive("MSG", timeout=30.0)
        alice.send(b"".join(said.message(client) for _ in range(BURST) for client in (bob, carol)))
        for _ in range(2 * BURST):
            alice.receive("MSG_ACK", timeout=30.0)
        for _ in range(BURST):
            bob.receive("MSG", timeout=30.0)
            carol.receive("MSG", timeout=30.0)
        for number in range(NEWCOMERS):
            user_id = user_on_worker(number % WORKERS, WORKERS)
            with RawClient.upgraded(server.port, user_id, mark()) as newcomer:
                said.hello(newcomer)
        # The client may see a frame before strace sees the end of the call that wrote it. Each worker's next call is behind that.
        for client in (bob, carol):
            client.say("PING")
            client.receive("PONG")
    finally:
        for client in clients:
            client.socket.close()
    return said


def shown_too_early(calls: list[Call], said: Talk) -> list[str]:
    """Every MSG_ACK, MSG, and HELLO_ACK that was written before what it is about was safe. All of them have to be in the trace."""
    safe = safe_since(calls, MARKER, MARKER_SIZE)
    assert set(said.sent.values()) | set(said.newcomers.values()) <= safe.keys(), (
        "the trace shows all that was stored"
    )
    early: list[str] = []

    def check(what: str, marker: bytes, began: int) -> None:
        was_safe = safe[marker]
        if was_safe is None:
            early.append(
                f"{what} was written in line {began} of the trace, and what it is about never synced"
            )
        elif began < was_safe.since:
            early.append(f"{what} was written in line {began}, and safe in line {was_safe.since}")

    acknowledged: list[str] = []
    received: list[list[str]] = []
    newcomers: list[str] = []
    for stream in frames(calls).values():
        received_here = []
        for payload, began in stream:
            if not payload.startswith(b"{"):
                continue
            match json.loads(payload):
                case {"type": "MSG_ACK", "data": {"message_id": message_id}}:
                    acknowledged.append(message_id)
                    check(f"MSG_ACK {message_id}", said.sent[message_id], began)
                case {"type": "MSG", "data": {"message_id": message_id}}:
                    received_here.append(message_id)
                    check(f"MSG {message_id}", said.sent[message_id], began)
                case {"type": "HELLO_ACK", "data": {"user_id": user_id}}:
                    newcomers.append(user_id)
                    check(f"HELLO_ACK of {user_id}", said.newcomers[user_id], began)
        if received_here:
            received.append(received_here)
    assert sorted(acknowledged) == sorted(said.sent)
    assert sorted(received) == sorted(said.received.values())
    assert sorted(newcomers) == sorted(said.newcomers)
    return early


def traced(start_server: StartServer, directory: Path, durability: str) -> tuple[list[Call], Talk]:
    """Have the talk on a server whose workers are traced."""
    server = start_server(workers=WORKERS, durability=durability)
    workers = [server.child(f"worker {index}") for index in range(WORKERS)]
    with Tracer(workers, directory, *STRACE) as tracer:
        said = talk(server)
    return tracer.calls(), said


def test_d20_nothing_is_shown_before_it_is_synced(start_server: StartServer, tmp_path: Path) -> None:
    calls, said = traced(start_server, tmp_path, "fsync")
    assert shown_too_early(calls, said) == []
    segments = {call.target: call for call in reversed(calls) if call.target.endswith(SEGMENT_SUFFIXES)}
    assert len(segments) == WORKERS, "each worker has a file of its own"
    for segment, first in segments.items():
        directory = str(Path(segment).parent)
        assert any(call.target == directory and call.ended < first.began for call in calls), (
            "the name of the file is on the disk before anything is in it"
        )


@pytest.mark.slow
def test_the_test_fails_without_the_sync(start_server: StartServer, tmp_path: Path) -> None:
    """With FASTCHAT_DURABILITY=os nothing waits for the disk, and the check above has to say so of nearly everything."""
    calls, said = traced(start_server, tmp_path, "os")
    early = shown_too_early(calls, said)
    assert len(early) > 0.9 * (2 * len(said.sent) + len(said.newcomers)), early[:20]


@pytest.mark.parametrize("suffix", [LOG_SUFFIX, SEGMENT_SUFFIXES[0]])
@pytest.mark.parametrize("kind", ["MSG_ACK", "MSG", "HELLO_ACK"])
def test_the_test_fails_when_one_sync_fails_to_come_first(kind: str, suffix: str) -> None:
    """One frame that is written while the sync is still under way is enough."""
    log, marker = f"/data/shard-0.db{suffix}", mark().encode()
    said = Talk()
    said.sent["m-0"] = marker
    said.received["bob"].append("m-0")
    said.newcomers["carol"] = mark().encode()
    page = b"".join([marker, *said.newcomers.values()])
    shown = {
        "MSG_ACK": (1, b'{"type":"MSG_ACK","data":{"message_id":"m-0"}}'),
        "MSG": (2, b'{"type":"MSG","data":{"message_id":"m-0"}}'),
        "HELLO_ACK": (3, b'{"type":"HELLO_ACK","data":{"user_id":"carol"}}'),
    }

    def history(early: str | None) -> list[Call]:
        if suffix == LOG_SUFFIX:
            calls = [
                Call("pwrite64", log, 0, 0, 24, b"\0\0\0\1\0\0\0\1" + bytes(16), 32),
                Call("pwrite64", log, 1, 1, len(page), page, 56),
            ]
        else:
            record = len(page).to_bytes(4, "little") + bytes(4) + page
            calls = [Call("pwrite64", log, 1, 1, len(record), record, 0)]
        sync = Call("fdatasync", log, 2, 4, 0, b"", 0)
        for name, (client, payload) in shown.items():
            data = bytes([0x81, len(payload)]) + payload
            line = 3 if name == early else 5
            calls.append(Call("write", f"socket:[{client}]", line, line, len(data), data, 0))
        return sorted([*calls, sync], key=lambda call: call.ended)

    assert shown_too_early(history(None), said) == []
    (problem,) = shown_too_early(history(kind), said)
    assert problem.startswith(f"{kind} ")
