"""Tests of router.front.lingering: how a front says FIN (D28), and what it gives back when it stood still (D27)."""

from __future__ import annotations

import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from core.wire.frames import Opcode
from router.front.lingering import LINGER_SECONDS
from tests.router.front_process import Client, FakeWorker, FrontProcess, client_frame, hello, text, wait_until

CLOSE = client_frame(Opcode.CLOSE, struct.pack("!H", 1000))


def code_of(client: Client) -> int:
    """The code of the Close frame that comes next."""
    opcode, payload = client.frame()
    assert opcode == Opcode.CLOSE, (opcode, payload)
    return int.from_bytes(payload[:2], "big")


def stays_open(client: Client, seconds: float) -> None:
    """Nothing comes for so long, and no FIN."""
    client.socket.settimeout(seconds)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)


def fin_comes(client: Client, seconds: float) -> None:
    """And it is no reset."""
    client.socket.settimeout(seconds)
    assert client.socket.recv(1) == b""


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (client_frame(Opcode.BINARY, b"{}"), 1003),
        (b"\x81\x02{}", 1002),
        (client_frame(Opcode.TEXT, b"\xff", final=False), 1007),
        (b"\x81\xff\0\0\0\0\0\x01\0\0mask" + b"x" * 65536, 1009),
        (client_frame(Opcode.TEXT, b"no JSON") * 21, 1008),
    ],
    ids=["1003", "1002", "1007", "1009", "1008"],
)
def test_d28_fin_follows_the_clients_close(front: FrontProcess, sent: bytes, code: int) -> None:
    with front.client() as client:
        client.send(sent)
        while (opcode := client.frame())[0] == Opcode.TEXT:
            pass
        assert int.from_bytes(opcode[1][:2], "big") == code
        client.send(text("PING") * 3)
        stays_open(client, 0.5)
        client.send(CLOSE)
        fin_comes(client, LINGER_SECONDS / 2)


def test_d28_fin_comes_at_the_end_of_the_linger_time_to_who_does_not_answer(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(client_frame(Opcode.BINARY, b"{}"))
        assert code_of(client) == 1003
        stays_open(client, LINGER_SECONDS - 1.0)
        fin_comes(client, 10.0)


def test_d28_a_close_of_the_clients_is_answered_with_fin_right_behind(front: FrontProcess) -> None:
    """RFC 6455, 7.1.1."""
    with front.client() as client:
        client.send(CLOSE)
        assert code_of(client) == 1000
        fin_comes(client, LINGER_SECONDS / 2)


def test_d28_an_answer_without_an_upgrade_ends_with_fin(front: FrontProcess) -> None:
    with front.client(upgrade=False) as client:
        client.send(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.socket.settimeout(LINGER_SECONDS / 2)
        assert client.read_all().startswith(b"HTTP/1.1 426 ")


def test_d28_fin_follows_the_clients_close_when_its_worker_is_away(hasty_front: FrontProcess) -> None:
    with hasty_front.client() as client:
        client.send(hello())
        assert code_of(client) == 1013
        stays_open(client, 0.5)
        client.send(CLOSE)
        fin_comes(client, LINGER_SECONDS / 2)


def test_d28_fin_follows_the_clients_close_when_its_worker_says_nothing(hasty_front: FrontProcess) -> None:
    """The worker has the socket already: nothing is read from under it, and the end is one for both."""
    with FakeWorker(hasty_front.run_dir) as worker, hasty_front.client() as client:
        client.send(hello())
        taken = worker.take()
        assert code_of(client) == 1013
        stays_open(client, 0.5)
        assert taken.waiting()[0] == 0x81, "the HELLO"
        client.send(CLOSE)
        fin_comes(client, LINGER_SECONDS / 2)
        worker.adopt(taken)
        taken.socket.close()


def test_d28_in_flight_fin_comes_at_the_end_of_the_linger_time(hasty_front: FrontProcess) -> None:
    with FakeWorker(hasty_front.run_dir) as worker, hasty_front.client() as client:
        client.send(hello())
        taken = worker.take()
        assert code_of(client) == 1013
        stays_open(client, LINGER_SECONDS - 1.0)
        fin_comes(client, 10.0)
        worker.adopt(taken)
        taken.socket.close()


@pytest.mark.parametrize(
    "number", [pytest.param("stop", marks=pytest.mark.slow), signal.SIGTERM], ids=["1001", "1012"]
)
def test_d28_an_orderly_end_waits_for_the_close_frames(run_dir: Path, number: str | signal.Signals) -> None:
    """Of those that answer; the process ends without the others."""
    with FrontProcess(run_dir) as front, front.client() as answering, front.client() as deaf:
        if isinstance(number, signal.Signals):
            front.signal(number)
        else:
            front.stop()
        assert code_of(answering) == code_of(deaf) == (1001 if number == "stop" else 1012)
        stays_open(answering, 0.3)
        answering.send(CLOSE)
        fin_comes(answering, 10.0)
        assert front.wait() == 0
        fin_comes(deaf, 10.0)


def test_nothing_stays_of_who_answers_or_does_not(front: FrontProcess) -> None:
    clients = [front.client() for _ in range(10)]
    for client in clients:
        client.send(client_frame(Opcode.BINARY, b"{}"))
    for client in clients[:5]:
        assert client.closed()[0] == 1003
        client.socket.close()
    front.wait_for_stat("front_lingering", 0)
    for client in clients[5:]:
        client.socket.close()


# -- A front that stood still --


def suspend(front: FrontProcess, seconds: float) -> None:
    """Stop the process for so long, and let it go on."""
    front.signal(signal.SIGSTOP)
    state = Path(f"/proc/{front.process.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "the front to stand still")
    time.sleep(seconds)
    front.signal(signal.SIGCONT)


@pytest.mark.parametrize("stage", [pytest.param("head", marks=pytest.mark.slow), "hello"])
def test_d27_a_front_that_stood_still_gives_everybody_the_rest_of_the_time(run_dir: Path, stage: str) -> None:
    """A client that goes on where it was gets through, though its time is over by the clock."""
    limits = {"head": 1.5, "hello": 1.5}
    with (
        FakeWorker(run_dir) as worker,
        FrontProcess(run_dir, limits=limits) as front,
        front.client(upgrade=stage == "hello") as client,
    ):
        suspend(front, 2.5)
        time.sleep(0.3)
        if stage == "head":
            client.send(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert client.read_head().startswith(b"HTTP/1.1 101 ")
        client.send(hello())
        worker.receive().socket.close()


def test_d27_who_says_nothing_goes_after_a_stall_too(run_dir: Path) -> None:
    with FrontProcess(run_dir, limits={"hello": 1.5}) as front, front.client() as client:
        suspend(front, 2.0)
        assert client.closed()[0] == 1008


def test_d27_what_came_while_a_front_stood_still_is_read(run_dir: Path) -> None:
    """A HELLO that waits in the socket when its time is over by the clock."""
    with (
        FakeWorker(run_dir) as worker,
        FrontProcess(run_dir, limits={"hello": 1.0, "wait": 1.0}) as front,
        front.client() as client,
    ):
        front.signal(signal.SIGSTOP)
        client.send(hello())
        time.sleep(3.0)
        front.signal(signal.SIGCONT)
        with worker.receive().socket as taken:
            assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
