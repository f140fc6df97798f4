"""A front whose workers are replaced by more or fewer: clients that wait go to those that own them now."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from core.placement import Placement
from core.process.counting import counts_endpoint, encode_counts
from tests.router.front_process import (
    HEAD,
    TIMEOUT,
    Adopted,
    Client,
    FakeWorker,
    FrontProcess,
    hello,
    user_on,
    wait_until,
)


def user_who_moves(before: int, after: int) -> str:
    """A new user id that lives on the worker `before` of 2, and `after` of 3."""
    while Placement(2).worker_of(user_id := user_on(after, 3)) != before:
        pass
    return user_id


def echo(adopted: Adopted, client: Client) -> None:
    """Show that the two ends are one connection."""
    word = os.urandom(8)
    adopted.socket.sendall(word)
    assert client.read(8) == word
    adopted.socket.close()


def test_who_waits_goes_to_the_new_owner_first_come_first_served(run_dir: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        users = [user_who_moves(*owners) for owners in ((1, 2), (0, 2), (0, 0))]
        clients: dict[str, Client] = {}
        for number, user_id in enumerate(users, 1):
            clients[user_id] = stack.enter_context(front.client())
            clients[user_id].send(hello(user_id))
            worker = Placement(2).worker_of(user_id)
            mine = sum(Placement(2).worker_of(each) == worker for each in users[:number])
            front.wait_for_stat(f'front_waiting{{worker="{worker}"}}', mine)
        front.resize(3)
        for index, expected in ((0, [users[2]]), (2, [users[0], users[1]])):
            worker_process = stack.enter_context(FakeWorker(run_dir, index))
            for user_id in expected:
                adopted = worker_process.receive()
                assert adopted.ticket.user_id == user_id
                echo(adopted, clients[user_id])


@pytest.mark.slow
def test_who_was_adopted_stays_and_who_was_not_comes_back(run_dir: Path) -> None:
    """The workers before are at rest: they take no more, and what they have said last may not have been read."""
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        old = stack.enter_context(FakeWorker(run_dir, 1))
        users = [user_who_moves(1, owner) for owner in (1, 2)]
        first, second = (stack.enter_context(front.client()) for _ in users)
        first.send(hello(users[0]))
        second.send(hello(users[1]))
        taken = {adopted.ticket.user_id: adopted for adopted in (old.take(), old.take())}
        old.adopt(taken[users[0]])
        taken[users[1]].socket.close()
        front.resize(3)
        echo(taken[users[0]], first)
        new = stack.enter_context(FakeWorker(run_dir, 2))
        adopted = new.receive()
        assert adopted.ticket.user_id == users[1]
        echo(adopted, second)
        front.wait_for_stats({"front_adopted_total": 2, "front_returned_total": 1})


@pytest.mark.slow
def test_up_and_down_and_whoever_comes_afterwards(run_dir: Path) -> None:
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir, workers=2))
        with front.no_leak():
            for workers in (3, 1):
                front.resize(workers)
                for index in range(workers):
                    user_id = user_on(index, workers)
                    with FakeWorker(run_dir, index) as worker, front.client() as client:
                        client.send(hello(user_id))
                        adopted = worker.receive()
                        assert adopted.ticket.user_id == user_id
                        echo(adopted, client)
            assert 'front_waiting{worker="1"}' not in front.next_stats()


@pytest.mark.slow
def test_nobody_waits_longer_than_before(run_dir: Path) -> None:
    with FrontProcess(run_dir, workers=2, limits={"wait": 0.5}) as front, front.client() as client:
        client.send(hello(user_on(0, 2)))
        front.resize(1)
        assert client.closed()[0] == 1013


def test_a_front_that_leaves_hands_over_to_the_new_workers(run_dir: Path) -> None:
    with FrontProcess(run_dir, workers=2) as front, front.client() as client:
        front.leave()
        front.resize(3)
        client.send(hello(user_who_moves(1, 2)))
        with FakeWorker(run_dir, 2) as worker:
            echo(worker.receive(), client)
        assert front.wait() == 0


def _counting(run_dir: Path, worker: int) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.settimeout(TIMEOUT)
    listener.bind(counts_endpoint(str(run_dir), worker))
    listener.listen()
    return listener


def _tell(counting: socket.socket, connections: int) -> socket.socket:
    front, _ = counting.accept()
    front.recv(64)
    front.sendall(b"".join(encode_counts(connections, {"127.0.0.1": connections}, None)))
    return front


def _is_denied(front: FrontProcess) -> bool:
    """Whether a client that comes now is one too many; its connection ends."""
    with front.client(upgrade=False) as client:
        client.send(HEAD)
        head = client.read_head()
    assert head.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 101 "))
    return head.startswith(b"HTTP/1.1 503 ")


def test_connections_of_the_new_workers_count_and_those_of_the_old_ones_do_not(run_dir: Path) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(_counting(run_dir, 1))
        front = stack.enter_context(
            FrontProcess(run_dir, workers=2, connections_per_ip=5, half_open_per_ip=0)
        )
        stack.enter_context(_tell(old, 5))
        wait_until(lambda: _is_denied(front), "the front to count the connections of the worker")
        front.resize(3)
        assert not _is_denied(front)
        new = stack.enter_context(_counting(run_dir, 2))
        stack.enter_context(_tell(new, 5))
        wait_until(lambda: _is_denied(front), "the front to count the connections of the new worker")


@pytest.mark.slow
@pytest.mark.parametrize("end", [FrontProcess.stop, lambda front: front.control.close()])
def test_a_front_can_end_while_workers_are_away(run_dir: Path, end: Callable[[FrontProcess], None]) -> None:
    with FrontProcess(run_dir, workers=2, connections_per_ip=5) as front:
        front.resize(3)
        end(front)
        front.wait()
