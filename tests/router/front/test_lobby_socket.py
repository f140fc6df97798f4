"""Tests of router.front.lobby_socket: a connection before HELLO (D2, D25, D28), in a real front."""

from __future__ import annotations

import socket
import struct
import threading
from uuid import uuid4

import pytest

from core.wire.frames import Opcode
from core.wire.protocol import MESSAGE_MAX_BYTES
from tests.router.front_process import FakeWorker, FrontProcess, client_frame, hello, message, text, user_on


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


# -- D2: what is answered before HELLO --


def test_d2_ping_is_answered_before_hello(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(text("PING"))
        answer = client.json()
    assert answer["type"] == "PONG"
    assert len(answer["data"]["timestamp"]) == len("2024-01-01T12:00:00.000Z")


def test_d2_everything_else_is_unauthorized_and_the_connection_stays_usable(front: FrontProcess) -> None:
    user_id = user_on(0, 2)
    with FakeWorker(front.run_dir, 0) as worker, front.client() as client:
        for kind in ("MSG", "OPEN_CHAT", "TYPING", "NONSENSE"):
            client.send(text(kind))
            answer = client.json()
            assert answer["type"] == "ERROR"
            assert answer["data"]["code"] == "UNAUTHORIZED"
            assert answer["data"]["details"]["type"] == kind
        client.send(hello(user_id))
        adopted = worker.receive()
        assert adopted.ticket.user_id == user_id
        adopted.socket.close()


def test_d2_a_hello_that_breaks_a_rule_is_told_so_and_may_be_sent_again(front: FrontProcess) -> None:
    with FakeWorker(front.run_dir, 1) as worker, front.client() as client:
        client.send(text("HELLO", user_id="me", display_name="Ada"))
        assert client.json()["data"]["details"]["field"] == "user_id"
        client.send(text("HELLO", user_id=str(uuid4()), display_name="x"))
        assert client.json()["data"]["details"]["field"] == "display_name"
        client.send(hello(user_on(1, 2)))
        worker.receive().socket.close()


def test_d2_no_hello_in_time_is_closed_with_1008(hasty_front: FrontProcess) -> None:
    with hasty_front.client() as client:
        code, reason = client.closed()
    assert code == 1008
    assert "HELLO" in reason


def test_d2_talking_does_not_prolong_the_time_for_hello(hasty_front: FrontProcess) -> None:
    with hasty_front.client() as client:
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"
        client.send(hello()[:-1])
        assert client.closed()[0] == 1008


def test_d25_more_than_20_invalid_messages_close_with_1008(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(client_frame(Opcode.TEXT, b"no JSON") * 21)
        for _ in range(20):
            assert client.json()["data"]["code"] == "VALIDATION"
        assert client.closed()[0] == 1008


def test_many_messages_at_once_are_answered_in_order(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(b"".join(text(f"KIND-{number}") for number in range(300)))
        for number in range(300):
            assert client.json()["data"]["details"]["type"] == f"KIND-{number}"


def test_d23_a_flood_before_hello_is_read_slowly_and_answered(front: FrontProcess) -> None:
    """The front does not look at the flood for a moment, time and again; all are answered, in order, and others meanwhile."""
    before = front.next_stats().get("front_slowed_total", 0)
    with FakeWorker(front.run_dir, 0) as worker, front.client() as flood, front.client() as other:
        sender = threading.Thread(
            target=lambda: flood.send(b"".join(text(f"KIND-{number}") for number in range(2000)))
        )
        sender.start()
        assert flood.json()["data"]["details"]["type"] == "KIND-0"
        other.send(text("PING"))
        assert other.json()["type"] == "PONG"
        for number in range(1, 2000):
            assert flood.json()["data"]["details"]["type"] == f"KIND-{number}"
        sender.join()
        user_id = user_on(0, 2)
        flood.send(hello(user_id))
        adopted = worker.receive()
        assert adopted.ticket.user_id == user_id
        adopted.socket.close()
    assert front.next_stats().get("front_slowed_total", 0) > before


# -- Control frames --


def test_a_websocket_ping_is_answered_before_hello(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(client_frame(Opcode.PONG, b"unasked"))
        client.send(client_frame(Opcode.PING, b"are you there?"))
        assert client.frame() == (Opcode.PONG, b"are you there?")
        client.dribble(client_frame(Opcode.PING, b""))
        assert client.frame() == (Opcode.PONG, b"")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"", 1005),
        (close_payload(1000), 1000),
        (close_payload(1000, "schön".encode()), 1000),
        (close_payload(4321), 4321),
        (b"\x03", 1002),
        (close_payload(1005), 1002),
        (close_payload(999), 1002),
        (close_payload(1000, b"\xff"), 1007),
    ],
)
def test_d28_a_close_is_answered_with_its_code_or_with_what_is_wrong_with_it(
    front: FrontProcess, sent: bytes, code: int
) -> None:
    with front.client() as client:
        client.send(client_frame(Opcode.CLOSE, sent))
        assert client.closed()[0] == code


def test_what_follows_a_close_is_ignored(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(client_frame(Opcode.CLOSE, close_payload(1000)) + text("PING") + hello())
        assert client.closed()[0] == 1000


# -- D25: frames that break a rule --


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (client_frame(Opcode.BINARY, b"x"), 1003),
        (client_frame(Opcode.BINARY, b"x", final=False), 1003),
        (client_frame(Opcode.TEXT, b"\xff\xfe"), 1007),
        (client_frame(Opcode.TEXT, b'{"type":"\xed\xa0\x80"}'), 1007),
        (client_frame(Opcode.TEXT, b"x" * (MESSAGE_MAX_BYTES + 1))[:8], 1009),
        (client_frame(Opcode.TEXT, b"x" * 70_000)[:14], 1009),
        (b"\x81\xff" + b"\xff" * 8, 1002),
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x81\x00", 1002),  # nor this, in two bytes
        (b"\xc1\x80", 1002),  # RSV1
        (b"\x83\x80", 1002),  # opcode 3
        (client_frame(Opcode.PING, b"x", final=False), 1002),
        (b"\x89\xfe\x00\x7e", 1002),  # a ping of 126 bytes
        (b"\x81\xfe\x00\x05", 1002),  # 5, but not in its shortest form
        (client_frame(Opcode.CONTINUATION, b"x"), 1002),
        (client_frame(Opcode.TEXT, b"{", final=False) + client_frame(Opcode.TEXT, b"}"), 1002),
    ],
)
def test_d25_what_breaks_a_rule_is_closed_with_its_code_and_a_reason(
    front: FrontProcess, frame: bytes, code: int
) -> None:
    with front.client() as client:
        client.send(frame)
        came, reason = client.closed()
    assert came == code
    assert reason


def test_d25_a_message_of_exactly_16_kib_is_accepted(front: FrontProcess) -> None:
    body = message("PING", padding="")
    padded = body.replace(b'""', b'"' + b"x" * (MESSAGE_MAX_BYTES - len(body)) + b'"')
    assert len(padded) == MESSAGE_MAX_BYTES
    with front.client() as client:
        client.send(client_frame(Opcode.TEXT, padded) * 2)
        assert client.json()["type"] == "PONG"
        assert client.json()["type"] == "PONG"


# -- D25: fragments --


def test_d25_fragments_are_reassembled_and_pings_between_them_answered_at_once(front: FrontProcess) -> None:
    body = message("PING")
    with front.client() as client:
        client.send(client_frame(Opcode.TEXT, body[:5], final=False))
        client.send(client_frame(Opcode.PING, b"in between"))
        assert client.frame() == (Opcode.PONG, b"in between")
        client.send(client_frame(Opcode.CONTINUATION, b"", final=False))
        client.dribble(client_frame(Opcode.CONTINUATION, body[5:9], final=False))
        client.send(client_frame(Opcode.CONTINUATION, body[9:]))
        assert client.json()["type"] == "PONG"
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"


def test_d25_a_hello_in_fragments_travels_with_the_socket(front: FrontProcess) -> None:
    user_id = user_on(1, 2)
    body = message("HELLO", user_id=user_id, display_name="Ada Lovelace")
    behind = text("OPEN_CHAT", target_user_id=str(uuid4()), target_display_name="Bob")
    with FakeWorker(front.run_dir, 1) as worker, front.client() as client:
        client.send(client_frame(Opcode.TEXT, body[:20], final=False))
        client.send(client_frame(Opcode.PING, b"1"))
        client.send(client_frame(Opcode.CONTINUATION, body[20:]) + behind)
        assert client.frame() == (Opcode.PONG, b"1")
        adopted = worker.receive()
        assert adopted.ticket.user_id == user_id
        assert adopted.ticket.carried.endswith(body)
        assert adopted.waiting() == behind
        adopted.socket.close()


def test_d25_all_fragments_together_have_at_most_16_kib(front: FrontProcess) -> None:
    half = b"x" * (MESSAGE_MAX_BYTES // 2)
    with front.client() as client:
        client.send(client_frame(Opcode.TEXT, half, final=False))
        client.send(client_frame(Opcode.CONTINUATION, half, final=False))
        client.send(client_frame(Opcode.PING, b"a ping does not count"))
        assert client.frame()[0] == Opcode.PONG
        client.send(client_frame(Opcode.CONTINUATION, b"x"))
        assert client.closed()[0] == 1009


def test_d25_invalid_utf_8_across_fragments_is_1007(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(
            client_frame(Opcode.TEXT, b'"\xc3', final=False) + client_frame(Opcode.CONTINUATION, b'"')
        )
        assert client.closed()[0] == 1007


# -- The other end goes away --


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        text("PING"),
        text("PING")[:-1],
        client_frame(Opcode.TEXT, b"{", final=False),
        b"\x81",
        hello()[:30],
    ],
)
@pytest.mark.parametrize("how", ["end of file", "reset"])
def test_a_client_that_goes_in_the_middle_leaves_nothing(front: FrontProcess, sent: bytes, how: str) -> None:
    with front.client() as client:
        client.send(sent)
        if how == "reset":
            client.reset()


def test_what_was_said_before_the_end_is_still_answered(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(text("PING") + text("PING")[:-1])
        client.socket.shutdown(socket.SHUT_WR)
        assert client.json()["type"] == "PONG"
        assert client.read_all() == b""


def test_a_client_that_does_not_read_is_dropped(front: FrontProcess) -> None:
    """Answers go into the kernel's buffer and nowhere else: when that is full, the client is reset."""
    before = front.next_stats().get("front_not_read_total", 0)
    with front.client() as client, front.client() as other:
        messages = client_frame(Opcode.PING, b"x" * 125) * 10
        with pytest.raises(ConnectionError):
            while True:
                client.send(messages)
                other.send(
                    client_frame(Opcode.PING, b"")
                )  # a round trip: the front had its turn, so nothing piles up there
                assert other.frame() == (Opcode.PONG, b"")
    front.wait_for_stat("front_not_read_total", before + 1)
