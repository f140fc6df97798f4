"""More sockets than there are descriptors for, before HELLO and behind it: newcomers wait or are refused, and nobody else notices."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from itertools import count
from typing import Final

import pytest

from tests.system.crowd import Crowd, as_many_as
from tests.system.harness import Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import RawClient, text, upgrade_request
from tests.system.status import descriptors, figure

pytestmark = pytest.mark.slow

#: What each process may have open: the least that the server starts with. A worker keeps half of it for itself.
DESCRIPTORS: Final = 1024
CROWD: Final = 1400
#: Seconds within which the server has ended who says nothing, on a machine that is busy with other tests.
ENDED_WITHIN: Final = 40.0
#: Seconds over which CPU time is measured, and the share of one core that is more than any work there is.
MEASURED: Final = 2.0
SPINNING: Final = 0.4


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_calm(server: Server, *titles: str) -> None:
    """These processes do not spin on what they can't do now."""
    pids = [server.child(title) for title in titles]
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(MEASURED)  # it is a rate
    for title, pid, earlier in zip(titles, pids, before, strict=True):
        used = cpu_seconds(pid) - earlier
        assert used < SPINNING * MEASURED, f"{title} took {used:.2f} s of CPU in {MEASURED:g} s"


def something_came(client: RawClient) -> bool:
    client.socket.setblocking(False)
    try:
        return bool(client.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def greeted(crowd: Crowd) -> int:
    crowd.look()
    return sum(b'"HELLO_ACK"' in received for received in crowd.received)


@pytest.mark.attack("file descriptor exhaustion", "silent socket")
@pytest.mark.timeout(180)
def test_a_front_without_descriptors(start_server: StartServer) -> None:
    """Who comes now waits in the kernel's queue; who is there is served; and when the crowd has had its time it goes on by itself."""
    size = as_many_as(CROWD, CROWD)
    server = start_server(descriptors=DESCRIPTORS, host="127.0.0.1")
    with RawClient.upgraded(server.port) as early:
        before = descriptors(server)["fastchat: front 0"]
        with Crowd(server.port, size, lambda index: b"" if index % 2 else upgrade_request()) as crowd:
            wait_until(
                lambda: figure(server, "front", "front_accept_pauses_total") > 1, "the front to be full"
            )
            # It was there before, and needs no descriptor of the front any more.
            early.hello()
            with RawClient.to(server.port, user_on_worker(1, 2)) as newcomer:
                newcomer.send(upgrade_request() + newcomer.hello_bytes())
                assert_calm(server, "front 0", "worker 0", "worker 1")
                early.say("PING")
                early.receive("PONG")

                def welcome() -> bool:
                    # Nobody leaves but by the server's word.
                    crowd.look()
                    return something_came(newcomer)

                wait_until(welcome, "the newcomer to be served", ENDED_WITHIN)
                assert newcomer.response()[0] == 101
                newcomer.receive("HELLO_ACK")

                def all_ended() -> bool:
                    crowd.look()
                    return len(crowd.ended) == size

                wait_until(all_ended, "everybody to be ended by the server", ENDED_WITHIN)
        assert server.output().count("can't accept connections for a moment") >= 1
        with RawClient.upgraded(server.port) as late:
            late.hello()
        wait_until(
            lambda: descriptors(server)["fastchat: front 0"] <= before,
            "the front's descriptors to be free",
            20.0,
        )


@pytest.mark.attack("file descriptor exhaustion")
def test_a_full_front_finds_a_worker_that_was_started_again(start_server: StartServer) -> None:
    """The way to it needs a descriptor, which newcomers may not take."""
    size = as_many_as(CROWD, CROWD)
    server = start_server(descriptors=DESCRIPTORS, host="127.0.0.1", workers=3)
    with (
        RawClient.upgraded(server.port, user_on_worker(1, 3)) as early,
        Crowd(server.port, size, lambda _: b"G"),
    ):
        wait_until(lambda: figure(server, "front", "front_accept_pauses_total") > 1, "the front to be full")
        os.kill(server.child("worker 1"), signal.SIGKILL)
        early.hello()
        early.say("PING")
        early.receive("PONG")


@pytest.mark.attack("file descriptor exhaustion")
@pytest.mark.timeout(180)
def test_a_worker_without_descriptors(start_server: StartServer) -> None:
    """It takes no more than it has room for: the others wait for 10 s, then they are told 1013; who leaves makes room."""
    size = as_many_as(DESCRIPTORS // 2 + 100, DESCRIPTORS // 2 + 100)
    server = start_server(descriptors=DESCRIPTORS, host="127.0.0.1")

    def words(_: int) -> bytes:
        return upgrade_request() + text("HELLO", user_id=user_on_worker(0, 2), display_name="One")

    with Crowd(server.port, size, words) as crowd:

        def full() -> bool:
            return greeted(crowd) > size - 150 and figure(server, "worker", "handover_pauses_total") > 0

        wait_until(full, "the worker to be full", 30.0)
        assert_calm(server, "front 0", "worker 0")
        with RawClient.upgraded(server.port, user_on_worker(1, 2)) as elsewhere:
            elsewhere.hello()

        def told() -> bool:
            crowd.look()
            return greeted(crowd) + len(crowd.ended) == size

        wait_until(told, "those who wait to be told", ENDED_WITHIN)
        assert len(crowd.ended) > 0
        assert all(b"\x03\xf5" in crowd.received[index] for index in crowd.ended), "1013"
        assert "no room for more connections" in server.output()
        inside = [index for index in range(size) if index not in crowd.ended]
        with RawClient.upgraded(server.port, user_on_worker(0, 2)) as waiting:
            waiting.send(waiting.hello_bytes())
            crowd.leave(inside[:50])
            waiting.receive("HELLO_ACK")
        crowd.leave(inside[50:])
        with RawClient.upgraded(server.port, user_on_worker(0, 2)) as late:
            late.hello()


@pytest.mark.attack("file descriptor exhaustion")
@pytest.mark.parametrize("what", ["the last is taken", "it has more than it may"])
def test_a_worker_whose_descriptors_were_taken_by_something_else(
    start_server: StartServer, what: str
) -> None:
    """Sockets get lost on the way (MSG_CTRUNC), then the front itself is not let in; it still has them, and tries again."""
    server = start_server(host="127.0.0.1")
    pid = server.child("worker 0")
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest_free = next(number for number in count() if number not in taken)
    allowed, event = {
        "the last is taken": (lowest_free, "a hand-over came without its socket"),
        "it has more than it may": (3, "can't accept a front for a moment"),
    }[what]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (allowed, limits[1]))
    with (
        RawClient.upgraded(server.port, user_on_worker(0, 2)) as first,
        RawClient.to(server.port, user_on_worker(0, 2)) as second,
    ):
        first.send(first.hello_bytes())
        wait_until(lambda: figure(server, "worker", "handover_truncated_total") > 0, "the socket to get lost")
        wait_until(lambda: event in server.output(), "the log to say it")
        assert_calm(server, "front 0", "worker 0")
        with RawClient.upgraded(server.port, user_on_worker(1, 2)) as elsewhere:
            elsewhere.hello()
        second.send(upgrade_request() + second.hello_bytes())
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert second.response()[0] == 101
        second.receive("HELLO_ACK")
        second.say("PING")
        second.receive("PONG")
    assert server.child("worker 0") == pid, "it is the same process"
