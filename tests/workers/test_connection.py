"""workers.connection in a real worker: RFC 6455 as D25 and D28 ask for it, and what a client that misbehaves costs others (D29).

The fake front hands over a socket that has just been upgraded; every rule is looked at before and after HELLO where that matters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from core.placement import Placement
from tests.started_processes import has_the_core_of_the_tests
from tests.system.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    message,
    text,
)
from tests.workers.process import WorkerProcess


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess(open_chats_per_minute=0, hellos_per_minute=0, pings_per_second=0) as worker:
        yield worker


def test_it_has_the_core_of_the_tests(worker: WorkerProcess) -> None:
    assert has_the_core_of_the_tests(worker.process.pid)


@pytest.fixture
def client(worker: WorkerProcess) -> Iterator[RawClient]:
    with worker.chatter() as client:
        yield client


def frames(*payloads: bytes) -> bytes:
    """A text message in as many frames as there are payloads."""
    last = len(payloads) - 1
    return b"".join(
        client_frame(TEXT if index == 0 else CONTINUATION, payload, fin=index == last)
        for index, payload in enumerate(payloads)
    )


#: What breaks a rule, and the code that it is closed with.
VIOLATIONS = {
    "binary": (client_frame(BINARY, b"{}"), 1003),
    "binary fragment": (client_frame(BINARY, b"{}", fin=False), 1003),
    "too long": (client_frame(TEXT, b"x" * 16385), 1009),
    "far too long": (client_frame(TEXT, b"x" * 70000), 1009),
    "length of 2^62": (b"\x81\xff" + b"\x3f" + b"\xff" * 7 + b"mask", 1009),
    "length of 2^64 - 1": (b"\x81\xff" + b"\xff" * 8 + b"mask", 1002),
    "length not in its shortest form": (b"\x81\xfe\0\x02mask{}", 1002),
    "too long in two fragments": (frames(b"x" * 16384, b"x"), 1009),
    "too long in many fragments": (frames(*[b"x" * 100] * 164), 1009),
    "invalid UTF-8": (client_frame(TEXT, b'{"type":"\xff"}'), 1007),
    "invalid UTF-8 in the second fragment": (frames(b'{"type":"', b'\xff"}'), 1007),
    "overlong UTF-8": (client_frame(TEXT, b'{"type":"\xc0\xaf"}'), 1007),
    "surrogate in UTF-8": (client_frame(TEXT, b'{"type":"\xed\xa0\x80"}'), 1007),
    "RSV1": (client_frame(TEXT, b"{}", rsv=4), 1002),
    "RSV2": (client_frame(TEXT, b"{}", rsv=2), 1002),
    "RSV3": (client_frame(TEXT, b"{}", rsv=1), 1002),
    "RSV1 in a ping": (client_frame(PING, b"", rsv=4), 1002),
    "unmasked": (client_frame(TEXT, b"{}", mask=False), 1002),
    "unmasked ping": (client_frame(PING, b"", mask=False), 1002),
    **{
        f"opcode {opcode:#x}": (client_frame(opcode, b""), 1002)
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "ping of 126 bytes": (client_frame(PING, b"x" * 126), 1002),
    "fragmented ping": (client_frame(PING, b"x", fin=False), 1002),
    "fragmented Close": (client_frame(CLOSE, b"", fin=False), 1002),
    "continuation out of nothing": (client_frame(CONTINUATION, b"{}"), 1002),
    "text inside a fragmented text": (client_frame(TEXT, b"{", fin=False) + client_frame(TEXT, b"}"), 1002),
    "text inside a fragmented text, fragmented": (client_frame(TEXT, b"{", fin=False) * 2, 1002),
    "second end of a fragmented text": (
        frames(b'{"type":"PING",', b'"data":{}}') + client_frame(CONTINUATION),
        1002,
    ),
}


@pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_broken_rule_closes_with_its_code(
    worker: WorkerProcess, client: RawClient, data: bytes, code: int
) -> None:
    """D25, D28: the code, a reason, the end of the connection; and nobody else notices."""
    with worker.chatter() as healthy:
        client.send(data)
        closed, reason = client.closed()
        assert (closed, bool(reason)) == (code, True)
        healthy.say("PING")
        healthy.receive("PONG")


@pytest.mark.parametrize("name", ["binary", "too long in many fragments", "RSV1", "unmasked", "opcode 0x3"])
def test_a_broken_rule_before_hello(worker: WorkerProcess, name: str) -> None:
    data, code = VIOLATIONS[name]
    with worker.connect(first=data) as client:
        assert client.closed()[0] == code


def test_what_follows_a_broken_rule_is_not_looked_at(worker: WorkerProcess, client: RawClient) -> None:
    with worker.chatter() as other:
        client.send(
            client_frame(BINARY, b"")
            + text("OPEN_CHAT", target_user_id=other.user_id, target_display_name="Bob")
        )
        assert client.closed()[0] == 1003
        assert [kind for kind, _ in other.everything() if kind == "CHAT_OPENED"] == []


def test_the_largest_message_there_may_be(client: RawClient) -> None:
    """D25: 16 KiB, in one frame and in many, is not too much."""
    padding = b" " * (16384 - len(message("PING")))
    whole = message("PING") + padding
    client.send(client_frame(TEXT, whole))
    client.receive("PONG")
    client.send(frames(*[whole[start : start + 64] for start in range(0, len(whole), 64)]))
    client.receive("PONG")


def test_fragments_are_put_together(client: RawClient) -> None:
    """D25: also empty ones, also in the middle of a character."""
    whole = '{"type":"PING","data":{"é":"😀"}}'.encode()
    client.send(frames(*[whole[index : index + 1] for index in range(len(whole))]))
    client.receive("PONG")
    client.send(frames(b"", whole[:7], b"", whole[7:], b""))
    client.receive("PONG")


def test_control_frames_between_fragments_are_answered(client: RawClient) -> None:
    """D25: at once, not behind the message; and the message is not disturbed."""
    whole = message("PING")
    client.send(client_frame(TEXT, whole[:5], fin=False) + client_frame(PING, b"between"))
    client.pong(b"between")
    client.send(client_frame(PONG, b"unasked") + client_frame(CONTINUATION, whole[5:9], fin=False))
    client.send(client_frame(PING, b"") + client_frame(CONTINUATION, whole[9:]))
    client.pong(b"")
    client.receive("PONG")


def test_pong_carries_what_the_ping_did(client: RawClient) -> None:
    for payload in (b"", b"x", bytes(range(125))):
        client.send(client_frame(PING, payload))
        client.pong(payload)


def test_every_byte_in_a_segment_of_its_own(client: RawClient) -> None:
    client.dribble(client_frame(PING, b"slow") + text("PING"))
    client.pong(b"slow")
    client.receive("PONG")


# -- Close --


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
)
def test_a_close_is_answered_with_its_own_code(client: RawClient, code: int) -> None:
    client.send(client_frame(CLOSE, code.to_bytes(2, "big") + b"bye"))
    assert client.closed()[0] == code


def test_a_close_without_a_code_is_answered(client: RawClient) -> None:
    client.send(client_frame(CLOSE))
    assert client.closed()[0] in (1000, 1005)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_code_that_may_not_be_sent_is_answered_1002(client: RawClient, code: int) -> None:
    client.send(client_frame(CLOSE, code.to_bytes(2, "big")))
    closed, reason = client.closed()
    assert (closed, bool(reason)) == (1002, True)


def test_a_close_with_half_a_code_is_answered_1002(client: RawClient) -> None:
    client.send(client_frame(CLOSE, b"\x03"))
    assert client.closed()[0] == 1002


def test_a_close_whose_reason_is_not_utf8_is_answered_1007(client: RawClient) -> None:
    client.send(client_frame(CLOSE, b"\x03\xe8\xff"))
    assert client.closed()[0] == 1007


def test_what_was_sent_before_a_close_still_counts(worker: WorkerProcess, client: RawClient) -> None:
    with worker.chatter() as other:
        client.say("OPEN_CHAT", target_user_id=other.user_id, target_display_name="Bob")
        client.receive("CHAT_OPENED")
        client.everything()
        client.send(text("MSG", to=other.user_id, content="last words") + client_frame(CLOSE, b"\x03\xe8"))
        assert client.closed()[0] == 1000
        assert other.receive("MSG")["content"] == "last words"


#: What picows itself refuses: it says so before it hands over the frame that stands in front.
UNREADABLE = {
    "unmasked": (client_frame(TEXT, b"{}", mask=False), 1002),
    "opcode": (client_frame(3), 1002),
    "too long": (client_frame(TEXT, b"x" * 16385), 1009),
    "wrong code": (client_frame(CLOSE, b"\x03\xec"), 1002),
}


@pytest.mark.parametrize(("data", "code"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_was_sent_before_a_broken_frame_still_counts(
    worker: WorkerProcess, client: RawClient, data: bytes, code: int
) -> None:
    """In the same segment: the message is delivered, and the ping answered."""
    with worker.chatter() as other:
        client.say("OPEN_CHAT", target_user_id=other.user_id, target_display_name="Bob")
        client.receive("CHAT_OPENED")
        client.send(text("MSG", to=other.user_id, content="last words") + client_frame(PING, b"x") + data)
        client.pong(b"x")
        assert client.closed()[0] == code
        assert other.receive("MSG")["content"] == "last words"


def test_a_second_close_in_the_same_segment_is_ignored(client: RawClient) -> None:
    client.send(client_frame(CLOSE, b"\x03\xe8") + client_frame(CLOSE))
    assert client.closed()[0] == 1000


def test_a_client_that_does_not_answer_our_close_is_ended_all_the_same(client: RawClient) -> None:
    """And what it goes on sending does not turn the Close frame into a reset."""
    client.send(client_frame(BINARY, b""))
    client.send(text("PING") * 1000)
    assert client.frame().close()[0] == 1003
    client.end()


@pytest.mark.parametrize("state", ["hello", "half a header", "half a frame", "half a message"])
def test_half_closed(worker: WorkerProcess, state: str) -> None:
    """A client whose sending side ends, wherever it is, is gone; nothing of it stays."""
    half = {
        "hello": b"",
        "half a header": b"\x81",
        "half a frame": text("PING")[:-3],
        "half a message": client_frame(TEXT, b"{", fin=False),
    }[state]
    with worker.chatter() as client:
        client.send(half)
        client.end_of_sending()
        client.end()
    worker.stats(connections=0)


def test_too_many_invalid_messages_close_1008(client: RawClient) -> None:
    """D25: 20 a minute are answered, the 21st ends it."""
    for _ in range(20):
        client.send(client_frame(TEXT, b"nonsense"))
        client.error("VALIDATION")
    client.send(client_frame(TEXT, b"nonsense"))
    assert client.closed()[0] == 1008


# -- Stopping --


def test_the_order_to_stop() -> None:
    """D28: clients get the code and the reason that the supervisor chose, greeted or not, and the process ends with 0."""
    with WorkerProcess() as worker:
        greeted, waiting = worker.chatter(), worker.connect(first=b"")
        with greeted, waiting:
            worker.say("stop", code=1001, reason="shutting down")
            assert greeted.closed() == (1001, "shutting down")
            assert waiting.closed() == (1001, "shutting down")
            assert worker.process.wait(5.0) == 0


def test_the_order_to_stop_with_a_client_that_does_not_listen() -> None:
    with WorkerProcess() as worker, worker.chatter() as deaf:
        deaf.send(b"\x81")
        worker.say("stop", code=1001, reason="shutting down")
        assert worker.process.wait(10.0) == 0


def test_the_end_of_the_supervisor_is_the_end_of_the_worker() -> None:
    """No child outlives it: after end of file on the control pipe the process is gone, though a client is there."""
    with WorkerProcess() as worker, worker.chatter() as client:
        worker.control.close()
        assert worker.process.wait(10.0) != 0
        client.end()


# -- Backpressure --


def open_chat(opener: RawClient, target: RawClient) -> None:
    opener.say("OPEN_CHAT", target_user_id=target.user_id, target_display_name=target.name)
    opener.receive("CHAT_OPENED")
    target.receive("CHAT_OPENED")


def test_a_slow_reader_is_closed_and_loses_nothing(worker: WorkerProcess) -> None:
    """D29: when 1 MiB waits it is closed with 1013; nobody else waits for it, and what it missed comes again."""
    small = 16 * 1024
    with (
        worker.chatter(send_buffer=small, receive_buffer=small) as slow,
        worker.chatter() as sender,
        worker.chatter() as other,
    ):
        open_chat(sender, slow)
        open_chat(sender, other)
        content = "😀" * 1000
        sent, status, slowest = 0, "delivered", 0.0
        while status == "delivered":
            assert sent < 1000, "the server holds more than 1 MiB for a client that does not read"
            sender.send(text("MSG", to=slow.user_id, content=content, message_id=f"slow-{sent}"))
            status = sender.receive("MSG_ACK", message_id=f"slow-{sent}")["status"]
            sent += 1
            if sent % 20 == 0:
                began = time.monotonic()
                sender.say("MSG", to=other.user_id, content="and you?")
                other.receive("MSG")
                slowest = max(slowest, time.monotonic() - began)
        assert sent >= 1024 * 1024 / 4100, "it was closed too early"
        assert slowest < 1.0
        code, reason = slow.closed()
        assert (code, bool(reason)) == (1013, True)
        with worker.chatter(slow.user_id) as again:
            for number in range(sent):
                assert again.receive("MSG")["message_id"] == f"slow-{number}"


@pytest.mark.slow
def test_a_client_too_far_ahead_is_not_read_from() -> None:
    """D29: with 256 messages undecided, reading stops until they are; here the recipient's worker does not exist, so they fail (D26)."""
    # When reading stops, as many more may have been read already as fit in 64 KiB; the messages are long, so that these are few.
    sent, in_memory = 400, 64
    content = "hello?" * 166
    with WorkerProcess(workers=2, pings_per_second=0) as worker:
        placement = Placement(2)
        mine, theirs = (
            (next(u for u in iter(lambda: str(uuid4()), "") if placement.worker_of(u) == index))
            for index in (0, 1)
        )
        with worker.chatter(mine) as client:
            begun = time.monotonic()
            for number in range(sent):
                client.say("MSG", to=theirs, content=content, message_id=f"{number}")
            client.send(client_frame(PING, b"behind them all"))
            decided = 0
            while (came := client.frame(timeout=15.0)).opcode == TEXT:
                kind, data = came.message()
                if kind == "PRESENCE":
                    continue
                assert data["code"] == "MESSAGE_FAILED"
                assert data["details"]["message_id"] == f"{decided}"
                decided += 1
                if decided == 1:
                    assert 4.5 < time.monotonic() - begun < 7.0
            assert came.payload == b"behind them all"
            assert decided >= sent - 256 - in_memory, "the ping was read while too many were undecided"


def test_a_client_too_far_ahead_does_not_hold_up_others(worker: WorkerProcess, client: RawClient) -> None:
    with worker.chatter() as target, worker.chatter() as other:
        open_chat(client, target)
        for number in range(1000):
            client.say("MSG", to=target.user_id, content="x", message_id=f"{number}")
        other.say("PING")
        other.receive("PONG")
        for number in range(1000):
            assert client.receive("MSG_ACK")["message_id"] == f"{number}"
            assert target.receive("MSG")["message_id"] == f"{number}"
