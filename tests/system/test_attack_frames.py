"""Frames by the thousand, frames that announce more than they have, and clients that read nothing: before HELLO and behind it."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest

from tests.system.harness import Server, user_on_worker, wait_until
from tests.system.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PATIENCE,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    text,
    upgrade_request,
)
from tests.system.status import figure
from tests.system.test_backlog import Memory

GREETED: Final = pytest.mark.parametrize("greeted", [False, True], ids=["before HELLO", "after HELLO"])

#: Control frames of a flood, sent in portions where each is to be answered; and of one before HELLO, for which there are 10 s.
FLOOD: Final = 20_000
FLOOD_BEFORE_HELLO: Final = 5000
PORTION: Final = 500
#: Seconds that a flood may take on a machine that is busy with other tests.
FLOOD_SECONDS: Final = 60.0
#: Bytes that a process may grow by for one client that does not read: 1 MiB waits (D29), and there are buffers on the way.
GROWTH_MAX: Final = 16 * 1024 * 1024
#: A receive buffer that is full soon, in bytes.
SMALL: Final = 4096
#: As long as a message may be, and 4 bytes each.
LONG: Final = "😀" * 1000
#: What a frame's header may announce.
LENGTHS: Final = (16_385, 65_535, 65_536, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture
def client(server: Server, greeted: bool) -> Iterator[RawClient]:
    """A client that has said HELLO, or not."""
    with RawClient.upgraded(server.port, user_on_worker(0, server.workers)) as client:
        if greeted:
            client.hello()
        yield client


def reluctant(server: Server) -> RawClient:
    """A client with a small receive buffer, upgraded."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", server.port))
    client = RawClient(sock, user_on_worker(0, server.workers))
    client.send(upgrade_request())
    assert client.response()[0] == 101
    return client


def announced(opcode: int, length: int) -> bytes:
    """A frame's header and mask, without the payload."""
    if length < 65_536:
        return bytes([0x80 | opcode, 0xFE]) + struct.pack("!H", length) + b"mask"
    return bytes([0x80 | opcode, 0xFF]) + struct.pack("!Q", length) + b"mask"


# -- Floods --


@pytest.mark.attack("ping flood")
def test_a_ping_flood_before_hello(server: Server) -> None:
    """Each is answered, in order, for as long as the answers are read; and the connection is good for HELLO and messages afterwards."""
    with RawClient.upgraded(server.port, user_on_worker(0, server.workers)) as client:
        for first in range(0, FLOOD_BEFORE_HELLO, PORTION):
            payloads = [b"%d" % number for number in range(first, first + PORTION)]
            client.send(b"".join(client_frame(PING, payload) for payload in payloads))
            for payload in payloads:
                client.pong(payload)
        client.hello()
        client.say("PING")
        client.receive("PONG")


@pytest.mark.attack("ping flood")
def test_pings_that_are_no_flood(server: Server) -> None:
    """Many in one go are answered, in order."""
    with RawClient.upgraded(server.port, user_on_worker(0, server.workers)) as client:
        client.hello()
        payloads = [b"%d" % number for number in range(PORTION)]
        client.send(b"".join(client_frame(PING, payload) for payload in payloads))
        for payload in payloads:
            client.pong(payload)
        client.say("PING")
        client.receive("PONG")


@pytest.mark.attack("ping flood")
@pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs"])
@pytest.mark.parametrize("payload", [b"", b"x" * 125], ids=["empty", "full"])
def test_a_control_flood_after_hello(server: Server, opcode: int, payload: bytes) -> None:
    """More than 1,000 in a second are abuse: they would take the time of others."""
    with RawClient.upgraded(server.port, user_on_worker(0, server.workers)) as client:
        client.hello()
        with suppress(ConnectionError):
            client.send(client_frame(opcode, payload) * FLOOD)
        code, reason = client.closed()
        assert (code, "pings and pongs" in reason) == (1008, True)


@pytest.mark.attack("ping flood")
def test_a_pong_flood_before_hello(server: Server) -> None:
    """Nobody has asked, and nobody answers; more than a receive buffer holds, so the end of it comes later."""
    with RawClient.upgraded(server.port, user_on_worker(0, server.workers)) as client:
        client.send(client_frame(PONG, b"unasked") * FLOOD)
        client.hello()
        client.say("PING")
        client.receive("PONG")
        assert all(frame.opcode == TEXT for frame in client.inbox)


@pytest.mark.attack("ping flood", "never-reading client")
@GREETED
def test_a_flood_whose_answers_are_not_read(server: Server, greeted: bool) -> None:
    """They are kept up to a bound: then it is closed with 1013 (D29), or, before HELLO, cut off."""
    before = figure(server, "front", "front_not_read_total")
    with reluctant(server) as client:
        if greeted:
            client.hello()
        memory = Memory(server.child("worker 0" if greeted else "front 0"))

        def closed() -> bool:
            lines = server.output().splitlines()
            return any(f"user={client.user_id}" in line and "code=1013" in line for line in lines)

        # After HELLO pings would be too many before their answers are.
        burst = (text("PING") if greeted else client_frame(PING, b"x" * 125)) * 100
        deadline = time.monotonic() + FLOOD_SECONDS
        client.socket.settimeout(0.5)
        with suppress(ConnectionError):
            while not closed():
                assert time.monotonic() < deadline, "the server still listens"
                with suppress(TimeoutError):
                    client.socket.sendall(burst)
        assert memory.growth() < GROWTH_MAX
    if greeted:
        wait_until(closed, "the log to say 1013")
    else:
        wait_until(lambda: figure(server, "front", "front_not_read_total") > before, "the cut to be counted")


@pytest.mark.attack("fragment flood", "flood of messages")
@GREETED
def test_a_flood_of_empty_messages(client: RawClient) -> None:
    """Each is invalid, and the 21st is the last."""
    with suppress(ConnectionError):
        client.send(client_frame(TEXT) * 2000)
    for _ in range(20):
        client.error("VALIDATION")
    assert client.closed()[0] == 1008


@pytest.mark.attack("fragment flood")
@GREETED
def test_fragments_of_one_byte(client: RawClient) -> None:
    """16 KiB of them are a message, though no good one; with one more they are too large."""
    body = client_frame(TEXT, b" ", fin=False) + client_frame(CONTINUATION, b" ", fin=False) * (16_384 - 2)
    client.send(body + client_frame(CONTINUATION, b" "))
    client.error("VALIDATION")
    with suppress(ConnectionError):
        client.send(body + client_frame(CONTINUATION, b" ", fin=False) * 2)
    assert client.closed()[0] == 1009


@pytest.mark.attack("fragment flood")
@GREETED
def test_fragments_without_content(client: RawClient, greeted: bool) -> None:
    """Some are nothing special; without end they would be a message that never is one."""
    begin, empty = client_frame(TEXT, b"", fin=False), client_frame(CONTINUATION, b"", fin=False)
    client.send(begin + empty * 100 + client_frame(CONTINUATION, b'{"type":"PING","data":{}}'))
    client.receive("PONG")
    with suppress(ConnectionError):
        client.send(begin + empty * 2000)
    code, reason = client.closed()
    assert (code, "fragments" in reason) == (1008, True)


# -- Frames that say too much --


@pytest.mark.attack("oversized frame")
@GREETED
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CONTINUATION])
def test_what_is_too_long_is_closed_by_its_header(server: Server, greeted: bool, opcode: int) -> None:
    """Without waiting for a payload that may never come; a continuation of a message as well."""
    for length in LENGTHS:
        with RawClient.upgraded(server.port) as client:
            if greeted:
                client.hello()
            begin = client_frame(TEXT, b"x", fin=False) if opcode == CONTINUATION else b""
            client.send(begin + announced(opcode, length))
            code, reason = client.closed(timeout=6.0)
            # RFC 6455, 5.2: the most significant bit is 0; what has it is too long as well.
            assert code in ((1002, 1009) if length >= 2**63 else (1009,)), (length, code, reason)
            assert reason


@pytest.mark.attack("bad UTF-8")
@GREETED
@pytest.mark.parametrize("reason", [b"\xff", b"ok\xed\xa0\x80", b"\xf0\x9f", b"\xc0\xaf"])
def test_a_close_whose_reason_is_no_utf_8(client: RawClient, reason: bytes) -> None:
    client.send(client_frame(CLOSE, b"\x03\xe8" + reason))
    code, told = client.closed()
    assert (code, bool(told)) == (1007, True)


# -- Reading nothing --


def long_message(recipient: RawClient, number: int) -> bytes:
    return text("MSG", to=recipient.user_id, content=LONG, message_id=f"{number}")


@pytest.mark.attack("never-reading client")
@pytest.mark.parametrize("worker", [0, 1], ids=["same shard", "other shard"])
def test_who_never_reads_is_closed_and_loses_nothing(server: Server, worker: int) -> None:
    """D29: when 1 MiB waits; its worker stays small, and all comes again, in order, to whoever comes back and reads."""
    with reluctant(server) as deaf, RawClient.upgraded(server.port, user_on_worker(worker, 2)) as sender:
        deaf.hello()
        sender.hello()
        sender.say("OPEN_CHAT", target_user_id=deaf.user_id, target_display_name="Deaf")
        sender.receive("CHAT_OPENED")
        memory = Memory(server.child("worker 0"))
        sent, stored = 0, False
        while not stored:
            assert sent < 2000, "the server holds more than 1 MiB for a client that does not read"
            burst = range(sent, sent + 20)
            sender.send(b"".join(long_message(deaf, number) for number in burst))
            for number in burst:
                stored = sender.receive("MSG_ACK", message_id=f"{number}")["status"] == "stored"
            sent += len(burst)
        assert sent * len(LONG.encode()) > 1024 * 1024, "it was closed too early"
        print("GROWTH", memory.growth())
        assert memory.growth() < GROWTH_MAX
        code, reason = deaf.closed()
        assert (code, bool(reason)) == (1013, True)
    with RawClient.upgraded(server.port, deaf.user_id) as again:
        again.hello()
        for number in range(sent):
            assert again.receive("MSG")["message_id"] == f"{number}"
