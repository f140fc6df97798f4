"""Tests of router.front.front and router.front.acceptor: the process as a whole, and how it ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from core.process.control import DRAIN, REFUSED, decode_control, encode_control
from core.process.settings import Settings
from tests.router.front_process import (
    HEAD,
    PROJECT,
    TIMEOUT,
    Client,
    FakeWorker,
    FrontProcess,
    hello,
    text,
    user_on,
    wait_until,
)


def all_stages(front: FrontProcess, worker: FakeWorker, stack: ExitStack) -> dict[str, Client]:
    """One client in each stage of a connection: worker 0 is there and adopts nothing by itself, worker 1 is away."""
    clients = {
        "handshake": stack.enter_context(front.client(upgrade=False)),
        "lobby": stack.enter_context(front.client()),
        "waiting": stack.enter_context(front.client()),
        "in flight": stack.enter_context(front.client()),
    }
    clients["handshake"].send(HEAD[:10])
    clients["waiting"].send(hello(user_on(1, 2)))
    clients["in flight"].send(hello(user_on(0, 2)))
    worker.connected()
    front.wait_for_stats(
        {
            "front_handshakes": 1,
            "front_lobby": 1,
            'front_waiting{worker="1"}': 1,
            'front_in_flight{worker="0"}': 1,
        }
    )
    return clients


@pytest.mark.parametrize("code", [pytest.param(1001, marks=pytest.mark.slow), 1012])
def test_d28_everybody_is_told_when_the_front_stops(run_dir: Path, code: int) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        worker = stack.enter_context(FakeWorker(run_dir, 0))
        clients = all_stages(front, worker, stack)
        if code == 1001:
            front.stop(1001, "server is shutting down")
        else:
            front.signal(signal.SIGTERM)
        assert clients["handshake"].read_all().startswith(b"HTTP/1.1 503 ")
        for stage in ("lobby", "waiting"):
            came, reason = clients[stage].closed()
            assert came == code
            assert reason
        # What is under way is the worker's, which has the time to take it.
        adopted = worker.receive()
        adopted.socket.sendall(b"hello")
        assert clients["in flight"].read(5) == b"hello"
        adopted.socket.close()
        assert front.wait() == 0


@pytest.mark.slow
def test_d28_a_worker_that_does_not_take_over_does_not_keep_the_front_from_stopping(run_dir: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        worker = stack.enter_context(FakeWorker(run_dir, 0))
        clients = all_stages(front, worker, stack)
        front.stop()
        assert clients["in flight"].closed()[0] == 1001
        assert front.wait() == 0


@pytest.mark.slow
def test_a_worker_that_dies_while_the_front_stops_gets_no_successor(run_dir: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        worker = stack.enter_context(FakeWorker(run_dir, 0))
        clients = all_stages(front, worker, stack)
        front.stop()
        assert clients["lobby"].closed()[0] == 1001
        worker.close()
        assert clients["in flight"].closed()[0] == 1001
        assert front.wait() == 0


def test_a_front_without_clients_stops_at_once(run_dir: Path) -> None:
    with FrontProcess(run_dir) as front:
        front.stop()
        front.stop()  # once is enough, twice does no harm
        assert front.wait() == 0


def test_no_new_client_is_accepted_by_a_front_that_stops(run_dir: Path) -> None:
    """They wait in the backlog, which the supervisor holds for the next front."""
    with FrontProcess(run_dir) as front, front.client() as lingering:
        front.signal(signal.SIGTERM)
        assert lingering.frame()[0] == 8
        with front.client(upgrade=False) as late:
            late.send(HEAD)
            assert front.wait() == 0
            assert late.is_silent()


def test_a_front_that_drains_answers_those_who_wait_in_its_backlog(run_dir: Path) -> None:
    """It is the last that listens on this socket: who comes after it is refused."""
    with FrontProcess(run_dir) as front, ExitStack() as stack:
        lobby = stack.enter_context(front.client())
        front.signal(signal.SIGSTOP)
        waiting = [stack.enter_context(front.client(upgrade=False)) for _ in range(40)]
        front.listener.close()
        front.control.send(encode_control(DRAIN, seconds=30.0))
        front.control.send(encode_control(DRAIN, seconds=0.0))
        front.signal(signal.SIGCONT)
        for client in waiting:
            answer = client.read_all()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 1\r\n" in answer
        assert lobby.closed() == (1012, "server is restarting")
        with pytest.raises(ConnectionRefusedError):
            front.client(upgrade=False)
        assert front.wait() == 0


def test_a_front_ends_at_once_when_the_supervisor_is_gone(run_dir: Path) -> None:
    with FrontProcess(run_dir) as front, front.client() as client:
        front.control.close()
        front.process.wait(1.0)
        assert client.ends()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_of_the_terminal_are_for_the_supervisor(front: FrontProcess, number: signal.Signals) -> None:
    front.signal(number)
    with front.client() as client:
        client.send(text("PING"))
        assert client.json()["type"] == "PONG"


def boot(run_dir: Path, listeners: str, **settings: str) -> tuple[int, dict[str, str], bytes]:
    """Start a front with these settings; its exit code, what it said first, and what it logged."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        ours.settimeout(TIMEOUT)
        numbers = (theirs.fileno(), listener.fileno())
        process = subprocess.run(
            [
                *(sys.executable, "-m", "router.front", "--index=0"),
                *(f"--control={numbers[0]}", f"--listeners={listeners or numbers[1]}"),
            ],
            cwd=PROJECT,
            env=os.environ | Settings(**cast(Any, {"run_dir": run_dir} | settings)).environment(),
            pass_fds=numbers,
            timeout=TIMEOUT,
            capture_output=True,
        )
        return process.returncode, decode_control(ours.recv(65536)), process.stderr


def test_what_the_operator_has_to_change_is_2(run_dir: Path) -> None:
    code, said, logged = boot(run_dir, "", allowed_origins="nonsense")
    assert (code, said["op"], logged) == (2, REFUSED, b"")
    assert "FASTCHAT_ALLOWED_ORIGINS" in said["reason"]


def test_what_the_system_refuses_is_3(run_dir: Path) -> None:
    code, said, logged = boot(run_dir, "0")  # standard input is no socket
    assert (code, said["op"], logged) == (3, REFUSED, b"")
    assert "socket" in said["reason"]


def test_nothing_that_a_client_sent_is_logged(run_dir: Path) -> None:
    with FrontProcess(run_dir, log_level="debug") as front, FakeWorker(run_dir, 0) as worker:
        with front.client() as client:
            client.send(text("MSG", content="s3cret"))
            client.json()
            client.send(hello())
            worker.receive().socket.close()
        front.http(b"GET /s3cret HTTP/1.1\r\nHost: s3cret\r\n\r\n")
        front.http(b"GET / HTTP/1.1\r\ns3cret\r\n\r\n")
        front.http(b"GET /ws HTTP/1.1\r\nHost: s3cret\r\ns3cret: s3cret\r\n\r\n")
        front.stop()
        _, logged = front.process.communicate(timeout=TIMEOUT)
    assert b"s3cret" not in logged


def test_too_few_descriptors_are_a_pause_and_not_the_end(run_dir: Path) -> None:
    """Who cannot be accepted now waits in the backlog; who is there does not notice."""
    with FrontProcess(run_dir) as front, ExitStack() as stack:
        resource.prlimit(front.process.pid, resource.RLIMIT_NOFILE, (front.descriptors() + 10, 1024))
        clients = [stack.enter_context(front.client(upgrade=False)) for _ in range(30)]
        for client in clients:
            client.send(HEAD)
        wait_until(lambda: front.next_stats().get("front_accept_pauses_total", 0) > 1, "accepting to pause")
        before = front.cpu_seconds()
        clients[0].send(text("PING"))
        clients[0].read_head()
        assert clients[0].json()["type"] == "PONG"
        front.next_stats()
        assert front.cpu_seconds() - before < 0.3
        assert clients[-1].is_silent()
        resource.prlimit(front.process.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        for client in clients[1:]:
            client.send(text("PING"))
            client.read_head()
            assert client.json()["type"] == "PONG"
        front.stop()
        _, logged = front.process.communicate(timeout=TIMEOUT)
    assert logged.count(b"can't accept") == 1
