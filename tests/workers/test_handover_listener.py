"""workers.handover_listener, alone and in a real worker: sockets arrive once, whole, and only if the worker can hold them."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from core.process.handover import Ticket, decode_adopted, encode_ticket, endpoint
from tests.system.harness import wait_until
from tests.system.raw_client import PING, TEXT, client_frame, message, text
from tests.workers.process import WorkerProcess
from workers.handover_listener import HandoverListener


@pytest.fixture
def run_dir() -> Iterator[str]:
    """A short path: that of a Unix socket ends at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="fastchat-test-") as directory:
        yield directory


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    with WorkerProcess() as worker:
        yield worker


# -- The queue alone --


class Host:
    """An event loop with a queue in it, and a front that talks to it; a step at a time."""

    def __init__(self, run_dir: str, room: Callable[[], int]) -> None:
        self.taken: list[tuple[Ticket, socket.socket]] = []
        self.said_before_taken: list[int] = []
        self.loop = asyncio.new_event_loop()
        self.path = endpoint(run_dir, 0)
        self.queue = HandoverListener(self.path, self.loop, self._adopt, room)
        self.front = self.connect()

    def _adopt(self, ticket: Ticket, client: socket.socket) -> None:
        self.said_before_taken += self.answers()
        self.taken.append((ticket, client))

    def connect(self) -> socket.socket:
        front = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        front.connect(self.path)
        front.setblocking(False)
        return front

    def step(self) -> None:
        """Let the loop look at everything that is readable."""
        for _ in range(3):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def answers(self) -> list[int]:
        """The numbers that were adopted since the last look."""
        try:
            return decode_adopted(self.front.recv(4096))
        except BlockingIOError:
            return []

    def gone(self) -> bool:
        """Whether the worker has closed the front's connection."""
        try:
            return self.front.recv(4096) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        if os.path.exists(self.path):
            self.queue.close()
        self.front.close()
        for _, client in self.taken:
            client.close()
        self.loop.close()


@pytest.fixture
def room() -> list[int]:
    """How many more sockets the worker has room for; tests change it."""
    return [1000]


@pytest.fixture
def host(run_dir: str, room: list[int]) -> Iterator[Host]:
    queue_host = Host(run_dir, lambda: room[0] - len(queue_host.taken))
    yield queue_host
    queue_host.close()


def hand_over(front: socket.socket, number: int, carried: bytes = b"") -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(front, [encode_ticket(Ticket(number, "alice", "::1", 0, carried))], [theirs.fileno()])


def test_adopted_is_said_before_the_worker_touches_the_socket(host: Host) -> None:
    """So a socket without that word is untouched, and the front may give it to somebody else."""
    hand_over(host.front, 5)
    host.step()
    assert host.said_before_taken == [5]
    assert [ticket.number for ticket, _ in host.taken] == [5]


def test_the_ticket_comes_with_the_socket(host: Host) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            ticket = Ticket(1, "alice", "192.0.2.1", 0, b"x" * 16384)
            socket.send_fds(host.front, [encode_ticket(ticket)], [theirs.fileno()])
        host.step()
        ((came, client),) = host.taken
        assert came == ticket
        ours.sendall(b"hello")
        assert client.recv(100) == b"hello"


def test_sockets_wait_while_there_is_no_room(host: Host, room: list[int]) -> None:
    room[0] = 2
    for number in range(4):
        hand_over(host.front, number)
    host.step()
    assert [ticket.number for ticket, _ in host.taken] == [0, 1]
    assert host.queue.pauses == 1
    host.queue.resume()
    host.step()
    assert len(host.taken) == 2
    room[0] = 10
    host.queue.resume()
    host.step()
    assert [ticket.number for ticket, _ in host.taken] == [0, 1, 2, 3]


def test_a_front_that_comes_while_there_is_no_room_is_heard_later(host: Host, room: list[int]) -> None:
    room[0] = 1
    hand_over(host.front, 0)
    host.step()
    with host.connect() as second:
        hand_over(second, 1)
        host.step()
        assert len(host.taken) == 1
        room[0] = 10
        host.queue.resume()
        host.step()
        assert [ticket.number for ticket, _ in host.taken] == [0, 1]


def test_many_sockets_at_once(host: Host) -> None:
    for number in range(100):
        hand_over(host.front, number)
    while len(host.taken) < 100:
        host.step()
    assert sorted(host.said_before_taken + host.answers()) == list(range(100))


@pytest.mark.parametrize("data", [b"nonsense", encode_ticket(Ticket(1, "alice", "", 0, b""))[:-1]])
def test_a_ticket_that_cannot_be_read_closes_the_queue(host: Host, data: bytes) -> None:
    """The two ends run different versions: better no hand-over than a wrong one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(host.front, [data], [theirs.fileno()])
        host.step()
        assert host.gone()
        assert host.taken == []


def test_a_ticket_without_its_socket_closes_the_queue(host: Host) -> None:
    """MSG_CTRUNC: the front takes back what was not adopted and tries again; other fronts are not concerned."""
    with host.connect() as second:
        hand_over(host.front, 1)
        host.front.send(encode_ticket(Ticket(2, "alice", "", 0, b"")))
        host.step()
        assert host.queue.truncated == 1
        assert [ticket.number for ticket, _ in host.taken] == [1]
        assert host.said_before_taken == [1]
        assert host.gone()
        hand_over(second, 3)
        host.step()
        assert [ticket.number for ticket, _ in host.taken] == [1, 3]


def test_a_front_that_cannot_be_let_in_waits_without_a_spin(host: Host) -> None:
    """For want of a descriptor; it gets in when there is one again."""
    host.step()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with host.connect() as late:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(20):
                host.step()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert host.queue.pauses == 1
        hand_over(late, 1)

        def let_in() -> bool:
            host.step()
            return [ticket.number for ticket, _ in host.taken] == [1]

        wait_until(let_in, "the front to be let in")


def test_the_endpoint_is_private_and_goes_with_the_queue(host: Host) -> None:
    assert os.stat(host.path).st_mode & 0o777 == 0o600
    host.queue.close()
    assert not os.path.exists(host.path)
    assert host.gone()


def test_the_endpoint_of_a_killed_predecessor_is_replaced(run_dir: str) -> None:
    Path(endpoint(run_dir, 0)).touch()
    host = Host(run_dir, lambda: 1)
    hand_over(host.front, 1)
    host.step()
    assert len(host.taken) == 1
    host.close()


# -- In a worker --


def test_hello_that_is_still_in_the_kernel(worker: WorkerProcess) -> None:
    with worker.connect() as client:
        assert client.receive("HELLO_ACK") == {"user_id": client.user_id, "status": "connected"}


def test_what_was_sent_behind_hello_is_neither_lost_nor_reordered(worker: WorkerProcess) -> None:
    with worker.chatter() as bob:
        alice = worker.connect(first=b"")
        with alice:
            burst = alice.hello_bytes() + text(
                "OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob"
            )
            for number in range(20):
                burst += text("MSG", to=bob.user_id, content=f"{number}", message_id=f"{number}")
            alice.send(burst)
            for number in range(20):
                assert bob.receive("MSG")["content"] == f"{number}"


def test_hello_that_travels_with_the_socket(worker: WorkerProcess) -> None:
    """HELLO in fragments around a ping can't stay in the kernel: the front answered the ping."""
    user_id = str(uuid4())
    hello = message("HELLO", user_id=user_id, display_name="Somebody")
    carried = client_frame(TEXT, hello[:10], fin=False) + client_frame(0, hello[10:20], fin=False)
    rest = client_frame(0, hello[20:]) + text("PING")
    with worker.connect(user_id, first=rest, carried=carried) as client:
        client.receive("HELLO_ACK")
        client.receive("PONG")


def test_all_of_hello_and_more_travels_with_the_socket(worker: WorkerProcess) -> None:
    user_id = str(uuid4())
    hello = text("HELLO", user_id=user_id, display_name="Somebody")
    carried = hello + client_frame(PING, b"x") + text("PING") * 3
    with worker.connect(user_id, first=b"", carried=carried) as client:
        client.receive("HELLO_ACK")
        client.pong(b"x")
        for _ in range(3):
            client.receive("PONG")


def test_another_user_than_the_ticket_says_is_a_bug_and_closes_1011(worker: WorkerProcess) -> None:
    """D28. The injected fault: front and worker disagree about the first message."""
    with worker.connect() as right, worker.connect(claimed=right.user_id) as wrong:
        code, reason = wrong.closed()
        assert code == 1011
        assert reason
        right.receive("HELLO_ACK")


@pytest.mark.slow
def test_no_hello_in_time_closes_1008(worker: WorkerProcess) -> None:
    """D2: 10 s, also for a client whose HELLO ends after the hand-over or never."""
    with worker.connect(first=b"") as client:
        code, reason = client.closed(timeout=15.0)
        assert (code, bool(reason)) == (1008, True)


def test_a_client_that_is_gone_already_leaves_nothing(worker: WorkerProcess) -> None:
    worker.chatter().reset()  # the first one costs the event loop a descriptor that stays
    before = worker.stats(connections=0)["adopted_total"]
    descriptors = worker.descriptors()
    for _ in range(20):
        worker.connect().reset()
    worker.stats(connections=0, adopted_total=before + 20)
    wait_until(lambda: worker.descriptors() <= descriptors, "the worker to close the sockets")


def test_no_descriptor_is_lost_in_200_connections(worker: WorkerProcess) -> None:
    worker.chatter().reset()  # the first one costs the event loop a descriptor that stays
    worker.stats(connections=0)
    descriptors = worker.descriptors()
    for number in range(200):
        with worker.chatter() as client:
            if number % 4 == 1:
                client.send(client_frame(8, b"\x03\xe8"))
                client.closed()
            elif number % 4 == 2:
                client.end_of_sending()
                client.end()
            elif number % 4 == 3:
                client.reset()
    worker.stats(connections=0, sessions=0)
    wait_until(lambda: worker.descriptors() <= descriptors, "the worker to close the sockets")


def test_several_fronts(worker: WorkerProcess) -> None:
    """Each has a queue of its own, and its own numbers."""
    first, worker.front = worker.front, worker.open_queue()
    try:
        with worker.chatter() as client:
            client.say("PING")
            client.receive("PONG")
            worker.front.close()  # a front that dies takes nobody along
            client.say("PING")
            client.receive("PONG")
    finally:
        worker.front = first
