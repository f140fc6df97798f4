"""Tests of router.front.handover_queue: sockets on their way to a worker that the test plays, most of them in a real front."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.process.handover import IN_FLIGHT_MAX, Ticket, endpoint
from router.front.handover_queue import HandoverQueue
from tests.router.front_process import (
    HEAD,
    TIMEOUT,
    Adopted,
    Client,
    FakeWorker,
    FrontProcess,
    client_frame,
    hello,
    message,
    text,
    user_on,
    wait_until,
)


def echo(adopted: Adopted, client: Client) -> None:
    """Show that the two ends are one connection."""
    word = os.urandom(8)
    adopted.socket.sendall(word)
    assert client.read(8) == word


def test_hello_and_everything_behind_it_arrive_untouched(front: FrontProcess) -> None:
    user_id = user_on(1, 2)
    first = hello(user_id)
    sent = first + text("OPEN_CHAT", target_user_id=str(uuid4())) + text("MSG", to=str(uuid4()), content="hi")
    with FakeWorker(front.run_dir, 1) as worker, front.client(upgrade=False) as client:
        client.send(HEAD + sent)
        assert client.read_head().startswith(b"HTTP/1.1 101 ")
        adopted = worker.receive()
        assert adopted.waiting() == sent
        assert adopted.ticket.user_id == user_id
        assert adopted.ticket.carried == b""
        assert adopted.ticket.address == "{}:{}".format(*client.socket.getsockname())
        echo(adopted, client)
        adopted.socket.close()
        assert client.ends()


def test_hello_byte_by_byte_arrives_untouched_and_wakes_at_the_first_byte_from_then_on(
    front: FrontProcess,
) -> None:
    sent = hello(user_on(0, 2))
    with FakeWorker(front.run_dir, 0) as worker, front.client() as client:
        client.send(text("PING"))
        client.dribble(sent)
        adopted = worker.receive()
        assert client.json()["type"] == "PONG"
        assert adopted.waiting() == sent
        assert adopted.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
        adopted.socket.close()


def test_each_user_goes_to_the_worker_that_owns_it(front: FrontProcess) -> None:
    with FakeWorker(front.run_dir, 0) as zero, FakeWorker(front.run_dir, 1) as one, ExitStack() as clients:
        for index, worker in ((0, zero), (1, one), (0, zero), (1, one)):
            user_id = user_on(index, 2)
            clients.enter_context(client := front.client())
            client.send(hello(user_id.upper()))
            adopted = worker.receive()
            assert adopted.ticket.user_id == user_id
            adopted.socket.close()


def test_a_client_waits_for_a_worker_that_is_away(front: FrontProcess) -> None:
    with front.client() as client:
        client.send(hello(user_on(0, 2)))
        front.wait_for_stat('front_waiting{worker="0"}', 1)
        assert client.is_silent()
        with FakeWorker(front.run_dir, 0) as worker:
            adopted = worker.receive()
            echo(adopted, client)
            adopted.socket.close()


def test_d28_a_client_that_waited_in_vain_is_closed_with_1013(hasty_front: FrontProcess) -> None:
    with hasty_front.client() as client:
        client.send(hello())
        code, reason = client.closed()
    assert code == 1013
    assert "try again later" in reason


@pytest.mark.parametrize("how", ["end of file", "reset"])
def test_a_client_that_goes_while_it_waits_leaves_nothing(front: FrontProcess, how: str) -> None:
    before = front.next_stats().get("front_gone_while_waiting_total", 0)
    with front.client() as client:
        client.send(hello(user_on(0, 2)))
        front.wait_for_stat('front_waiting{worker="0"}', 1)
        if how == "reset":
            client.reset()
    front.wait_for_stat("front_gone_while_waiting_total", before + 1)
    assert front.stats['front_waiting{worker="0"}'] == 0


def test_a_socket_that_the_worker_did_not_adopt_goes_to_the_next_one(front: FrontProcess) -> None:
    user_id = user_on(0, 2)
    sent = hello(user_id) + text("PING")
    with front.client() as client:
        with FakeWorker(front.run_dir, 0) as dying:
            client.send(sent)
            taken = dying.take()
            assert taken.ticket.user_id == user_id
            taken.socket.close()
        with FakeWorker(front.run_dir, 0) as worker:
            adopted = worker.receive()
            assert adopted.waiting() == sent
            echo(adopted, client)
            adopted.socket.close()


def test_a_hello_in_fragments_goes_to_the_next_worker_too(front: FrontProcess) -> None:
    user_id = user_on(0, 2)
    body = message("HELLO", user_id=user_id, display_name="Ada Lovelace")
    with front.client() as client:
        with FakeWorker(front.run_dir, 0) as dying:
            client.send(client_frame(1, body[:9], final=False) + client_frame(0, body[9:]))
            dying.take().socket.close()
        with FakeWorker(front.run_dir, 0) as worker:
            adopted = worker.receive()
            assert adopted.ticket.carried.endswith(body)
            echo(adopted, client)
            adopted.socket.close()


def test_what_a_dying_worker_had_adopted_counts_even_if_it_left_others_unread(front: FrontProcess) -> None:
    """The kernel reports the death before the last answers: they must be read all the same."""
    with ExitStack() as stack:
        dying = stack.enter_context(FakeWorker(front.run_dir, 0))
        clients = []
        for _ in range(6):
            client = stack.enter_context(front.client())
            client.send(hello(user_on(0, 2)))
            clients.append(client)
        taken = [dying.take() for _ in range(3)]
        front.wait_for_stat('front_in_flight{worker="0"}', 6)
        # The front is stopped while this happens, so it sees all of it at once.
        front.signal(signal.SIGSTOP)
        dying.adopt(*taken[:2])
        for each in taken:
            each.socket.close()
        dying.close()
        front.signal(signal.SIGCONT)
        # Nobody holds the two adopted ones any more: their connections end. The others go on.
        assert clients[0].ends()
        assert clients[1].ends()
        worker = stack.enter_context(FakeWorker(front.run_dir, 0))
        numbers = {clients[index].socket.getsockname()[1] for index in (2, 3, 4, 5)}
        arrived = [worker.receive() for _ in range(4)]
        assert {int(each.ticket.address.rpartition(":")[2]) for each in arrived} == numbers
        for each in arrived:
            each.socket.close()


def test_a_socket_from_which_a_dead_worker_had_read_is_shut_down_for_everybody(front: FrontProcess) -> None:
    """A worker that reads before it says `adopted` breaks the contract; two readers of one connection would be worse than none."""
    with front.client() as client:
        with FakeWorker(front.run_dir, 0) as dying:
            client.send(hello(user_on(0, 2)))
            taken = dying.take()
            assert taken.socket.recv(10)
        assert client.ends()
        taken.socket.close()


def test_a_hello_of_someone_else_is_not_handed_over_again(front: FrontProcess) -> None:
    first, second = hello(user_on(0, 2)), hello(user_on(0, 2))
    with front.client() as client:
        with FakeWorker(front.run_dir, 0) as dying:
            client.send(first + second)
            taken = dying.take()
            assert taken.socket.recv(len(first)) == first
        assert client.ends()
        taken.socket.close()


def test_d28_a_worker_that_hangs_gets_no_more_time_than_one_that_is_away(hasty_front: FrontProcess) -> None:
    with FakeWorker(hasty_front.run_dir, 0) as worker, hasty_front.client() as client:
        client.send(hello())
        taken = worker.take()
        # Never adopted: the client is told, and what the worker holds is dead, too.
        assert client.closed()[0] == 1013
        assert taken.socket.recv(65536)
        assert taken.socket.recv(65536) == b""
        worker.adopt(taken)
        taken.socket.close()
        hasty_front.wait_for_stat('front_in_flight{worker="0"}', 0)


def test_at_most_128_sockets_are_under_way_and_none_is_lost(front: FrontProcess) -> None:
    extra = 20
    with ExitStack() as stack:
        worker = stack.enter_context(FakeWorker(front.run_dir, 0))
        clients: dict[str, Client] = {}
        for _ in range(IN_FLIGHT_MAX + extra):
            client = stack.enter_context(front.client())
            client.send(hello(user_id := user_on(0, 2)))
            clients[user_id] = client
        front.wait_for_stat('front_waiting{worker="0"}', extra)
        assert front.stats['front_in_flight{worker="0"}'] == IN_FLIGHT_MAX
        taken = [worker.take() for _ in range(IN_FLIGHT_MAX)]
        assert not worker.pending()
        worker.adopt(*taken[:10])
        taken += [worker.take() for _ in range(10)]
        front.wait_for_stat('front_waiting{worker="0"}', extra - 10)
        assert not worker.pending()
        worker.adopt(*taken[10:])
        taken += [worker.receive() for _ in range(extra - 10)]
        assert {each.ticket.user_id for each in taken} == set(clients)
        assert len({each.ticket.number for each in taken}) == len(taken)
        for each in taken:
            echo(each, clients[each.ticket.user_id])
            each.socket.close()


def test_a_full_queue_is_waited_for(front: FrontProcess) -> None:
    """HELLOs of 16 KiB in fragments travel in the queue itself, which holds a dozen of them."""
    with ExitStack() as stack:
        worker = stack.enter_context(FakeWorker(front.run_dir, 0))
        users = [user_on(0, 2) for _ in range(60)]
        for user_id in users:
            body = message("HELLO", user_id=user_id, display_name="Ada", padding="x" * 16_000)
            client = stack.enter_context(front.client())
            client.send(client_frame(1, body[:9], final=False) + client_frame(0, body[9:]))
        worker.connected()
        front.wait_for_stats({"front_lobby": 0})
        assert front.stats['front_waiting{worker="0"}'] > 0
        before = front.cpu_seconds()
        front.next_stats()
        assert front.cpu_seconds() - before < 0.2
        taken = [worker.receive() for _ in users]
        assert sorted(each.ticket.user_id for each in taken) == sorted(users)
        for each in taken:
            assert len(each.ticket.carried) > 16_000
            each.socket.close()


def test_a_worker_that_answers_nonsense_keeps_its_queue(front: FrontProcess) -> None:
    """It lives, and could take from a queue that was given up what is then handed over again."""
    with FakeWorker(front.run_dir, 0) as worker, front.client() as client:
        client.send(hello(user_on(0, 2)))
        taken = worker.take()
        worker.connected().send(b"abc")
        worker.adopt(taken)
        echo(taken, client)
        taken.socket.close()


def test_a_number_that_nobody_sent_does_no_harm(front: FrontProcess) -> None:
    with FakeWorker(front.run_dir, 0) as worker, front.client() as client:
        client.send(hello(user_on(0, 2)))
        taken = worker.take()
        worker.connected().send(b"\xff\xff\xff\xff")
        worker.adopt(taken)
        echo(taken, client)
        taken.socket.close()


def test_a_stale_endpoint_of_a_dead_worker_is_tried_again(run_dir: Path) -> None:
    FakeWorker(run_dir, 0).close()
    assert os.path.exists(endpoint(str(run_dir), 0))
    with FrontProcess(run_dir) as front, front.client() as client:
        client.send(hello())
        front.wait_for_stat('front_waiting{worker="0"}', 1)
        with FakeWorker(run_dir, 0) as worker:
            worker.receive().socket.close()


def test_a_storm_of_clients_is_handed_over_whole(run_dir: Path) -> None:
    """Many at once, workers that come and go meanwhile: every client ends up with exactly one worker."""
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        front = stack.enter_context(FrontProcess(run_dir))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        clients: dict[str, Client] = {}
        for _ in range(count):
            client = stack.enter_context(front.client(upgrade=False))
            client.send(HEAD + hello(user_id := str(uuid4())))
            clients[user_id] = client
        home: dict[str, Adopted] = {}
        while len(home) < count:
            with FakeWorker(run_dir, 0) as worker:
                for _ in range(min(300, count - len(home))):
                    taken = worker.receive()
                    assert taken.ticket.user_id not in home
                    home[taken.ticket.user_id] = taken
                if len(home) < count:
                    worker.take().socket.close()  # and dies with it
        for user_id, adopted in home.items():
            clients[user_id].read_head()
            echo(adopted, clients[user_id])
            adopted.socket.close()
        with FakeWorker(run_dir, 0):
            wait_until(lambda: front.descriptors() < 30, "the front to have closed its copies")


# -- By itself --


class Stub:
    """What a queue needs of a connection."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.here, self.there = socket.socketpair()
        self.descriptor = self.here.fileno()
        self.label = "1-1"
        self.done = asyncio.Event()
        self.has_failed = False

    def ticket(self, number: int) -> Ticket:
        return Ticket(number, "user", "address", 0, b"")

    def adopted(self) -> None:
        self.done.set()

    def returned(self) -> bool:
        return True

    def fail(self) -> None:
        self.has_failed = True
        self.done.set()


async def hand_over(run_dir: Path, stubs: list[Stub]) -> None:
    """Hand them over and wait until each is adopted or has failed."""
    queue = HandoverQueue(asyncio.get_running_loop(), str(run_dir), 0, lambda name: None)
    try:
        for stub in stubs:
            queue.put(stub)
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*(stub.done.wait() for stub in stubs))
        assert queue.waiting_count == 0
        assert queue.in_flight_count == 0
    finally:
        queue.close()
        for stub in stubs:
            stub.here.close()
            stub.there.close()


def refuse_some(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Have the kernel refuse the first, second and fourth descriptor."""
    send_fds = socket.send_fds
    refusals = iter([True, True, False, True])

    def refuse(*arguments: Any) -> int:
        if next(refusals, False):
            raise OSError(error, os.strerror(error))
        return send_fds(*arguments)

    monkeypatch.setattr(socket, "send_fds", refuse)


@pytest.mark.parametrize(
    ("error", "lost"), [(errno.ETOOMANYREFS, 0), (errno.ENOBUFS, 0), (errno.ENOMEM, 0), (errno.EMSGSIZE, 3)]
)
def test_what_the_kernel_refuses_for_the_moment_is_tried_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, error: int, lost: int
) -> None:
    stubs = [Stub() for _ in range(5)]

    def adopt() -> None:
        for _ in range(len(stubs) - lost):
            worker.receive().socket.close()

    refuse_some(monkeypatch, error)
    with FakeWorker(run_dir) as worker:
        adopting = threading.Thread(target=adopt)
        adopting.start()
        asyncio.run(hand_over(run_dir, stubs))
        adopting.join(TIMEOUT)
        assert not adopting.is_alive()
    assert sum(stub.has_failed for stub in stubs) == lost
