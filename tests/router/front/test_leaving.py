"""A front that leaves: it accepts no more, serves the connections that it has, and ends with the last one."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from core.process.control import RESTART_REASON
from core.process.counting import counts_endpoint, encode_counts
from router.static_files import WEB
from tests.router.front_process import HEAD, TIMEOUT, Client, FakeWorker, FrontProcess, hello, text, user_on

GET: Final = "GET /{} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"


class NarrowClient(Client):
    """A client to which the server can send about a KiB before it reads."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""


def page(client: Client) -> bytes:
    """The body of the answer, which must be the last on its connection."""
    head, _, body = client.read_all().partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    return body


def test_every_connection_goes_on_through_all_stages(run_dir: Path) -> None:
    """And the front ends with the last one. Worker 1 comes when the front leaves already."""
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        worker = stack.enter_context(FakeWorker(run_dir, 0))
        handshake = stack.enter_context(front.client(upgrade=False))
        lobby, waiting, in_flight = (stack.enter_context(front.client()) for _ in range(3))
        handshake.send(HEAD[:10])
        waiting.send(hello(user_on(1, 2)))
        in_flight.send(hello(user_on(0, 2)))
        taken = worker.take()
        front.wait_for_stats({"front_handshakes": 1, "front_lobby": 1, 'front_waiting{worker="1"}': 1})
        front.leave()
        handshake.send(HEAD[10:])
        assert handshake.read_head().startswith(b"HTTP/1.1 101 ")
        lobby.send(text("PING"))
        assert lobby.json()["type"] == "PONG"
        front.wait_for_stats({"front_handshakes": 0, "front_lobby": 2})
        worker.adopt(taken)
        taken.socket.close()
        for client in (handshake, lobby):
            client.send(hello(user_on(0, 2)))
            worker.receive().socket.close()
        other = stack.enter_context(FakeWorker(run_dir, 1))
        other.receive().socket.close()
        assert front.wait() == 0


def test_the_backlog_is_for_the_other_front(run_dir: Path) -> None:
    """The two have one index and one listener; to a worker each is the front with its process id."""
    with ExitStack() as stack:
        old = stack.enter_context(FrontProcess(run_dir))
        worker = stack.enter_context(FakeWorker(run_dir))
        early = stack.enter_context(old.client())
        old.leave()
        late = stack.enter_context(old.client(upgrade=False))
        late.send(HEAD)
        before = old.cpu_seconds()
        old.next_stats()
        assert old.cpu_seconds() - before < 0.3, "it looks at a listener that is not its own any more"
        assert late.is_silent()
        new = stack.enter_context(FrontProcess(run_dir, beside=old))
        assert late.read_head().startswith(b"HTTP/1.1 101 ")
        late.send(hello())
        late_one = worker.receive()
        worker.next_front()
        early.send(hello())
        early_one = worker.receive()
        assert late_one.ticket.label == f"{new.process.pid}-1"
        assert early_one.ticket.label == f"{old.process.pid}-1"
        late_one.socket.close()
        early_one.socket.close()
        assert old.wait() == 0
        with new.client() as another:
            another.send(text("PING"))
            assert another.json()["type"] == "PONG"


@pytest.mark.slow
def test_pages_are_served_to_their_end(run_dir: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir))
        # Accepted sockets inherit this, so the server can't write the file before the client reads.
        front.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        download = stack.enter_context(NarrowClient(front.port))
        download.send(GET.format("icon-512.png").encode())
        idle = stack.enter_context(front.client(upgrade=False))
        front.wait_for_stats({"front_pages": 1, "front_handshakes": 1})
        front.leave()
        idle.send(GET.format("").encode())
        assert page(idle) == (WEB / "index.html").read_bytes()
        front.wait_for_stats({"front_pages": 1, "front_handshakes": 0})
        assert page(download) == (WEB / "icon-512.png").read_bytes()
        assert front.wait() == 0


def test_connections_of_workers_count_against_those_of_a_front_that_leaves(run_dir: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.settimeout(TIMEOUT)
        listener.bind(counts_endpoint(str(run_dir), 0))
        listener.listen()
        front = stack.enter_context(FrontProcess(run_dir, connections_per_ip=1))
        worker, _ = listener.accept()
        stack.enter_context(worker)
        assert worker.recv(64) == f"{front.process.pid}\n".encode()
        client = stack.enter_context(front.client())
        front.leave()
        worker.sendall(b"".join(encode_counts(1, {"127.0.0.1": 1}, None)))
        # What came before a PING has been read when its answer is there.
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"
        client.send(hello())
        assert client.closed()[0] == 1013
        assert front.wait() == 0


def test_a_front_without_connections_leaves_at_once(run_dir: Path) -> None:
    with FrontProcess(run_dir) as front:
        front.leave()
        assert front.wait() == 0


@pytest.mark.slow
def test_connections_that_are_left_are_closed_when_time_is_up(run_dir: Path) -> None:
    with (
        FrontProcess(run_dir, limits={"leave": 0.5}) as front,
        front.client() as client,
        front.client(upgrade=False) as handshake,
    ):
        front.wait_for_stat("front_handshakes", 1)
        front.leave()
        assert client.closed() == (1012, RESTART_REASON)
        assert handshake.read_all().startswith(b"HTTP/1.1 503 ")
        handshake.socket.close()
        assert front.wait() == 0


@pytest.mark.parametrize("code", [pytest.param(1001, marks=pytest.mark.slow), 1012])
def test_a_front_that_leaves_can_be_stopped(run_dir: Path, code: int) -> None:
    with FrontProcess(run_dir) as front, front.client() as client:
        front.leave()
        front.leave()  # once is enough, twice does no harm
        if code == 1001:
            front.stop()
        else:
            front.signal(signal.SIGTERM)
        assert client.closed()[0] == code
        assert front.wait() == 0
