"""A disk that is full, or fails, under a running server: what can't be kept is refused, everything else goes on, and so does all of it when
the disk is back (D20, D26).

Faults are brought upon one worker: a limit for the size of its files (which anybody may set), and errors that strace puts in the place
of its writes or of its syncs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.system.harness import Server, processes, user_on_worker, wait_until
from tests.system.raw_client import CLOSE, RawClient
from tests.system.status import status
from tests.system.trace import Tracer

pytestmark = pytest.mark.slow

WORKERS: Final = 2
#: The worker whose disk fails.
FAILING: Final = 0
#: Seconds within which the server has to notice that the disk is back, without anybody asking for anything.
RECOVERS_WITHIN: Final = 10.0
#: Bytes that a file may have: less than the first record of the commit log, so that no commit can be written.
TINY: Final = 64

Fault = Callable[[int, Path], AbstractContextManager[object]]


@contextmanager
def no_room(worker: int, directory: Path) -> Iterator[None]:
    """No file may grow or be written to beyond its first few bytes (EFBIG)."""
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE, (TINY, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)


def full(worker: int, directory: Path) -> Tracer:
    """Writing says that the disk is full."""
    return Tracer([worker], directory, "--trace=pwrite64", "--inject=pwrite64:error=ENOSPC")


def unsynced(worker: int, directory: Path) -> Tracer:
    """Writing succeeds, and the sync says that the disk did not take it."""
    return Tracer([worker], directory, "--trace=fsync,fdatasync", "--inject=fsync,fdatasync:error=EIO")


FAULTS: Final = pytest.mark.parametrize("fault", [no_room, full, unsynced])


class People:
    """Bob's disk will fail, and Carol's, who is on the same worker; Alice and Dave are on another one. Bob resumes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.alice = self._come("Alice", 1)
        self.dave = self._come("Dave", 1)
        self.carol = self._come("Carol", FAILING)
        #: Known, and away.
        self.erin = self._come("Erin", FAILING)
        self.bob = RawClient.upgraded(server.port, user_on_worker(FAILING, WORKERS), "Bob")
        self.hello = self.bob.hello(capabilities=["history", "resume"])
        for opener in (self.alice, self.carol):
            for target in (self.bob, self.dave):
                opened(opener, target)
        self.erin.socket.close()
        #: Has never been here.
        self.stranger = user_on_worker(FAILING, WORKERS)

    def _come(self, name: str, worker: int) -> RawClient:
        client = RawClient.upgraded(self.server.port, user_on_worker(worker, WORKERS), name)
        client.hello()
        return client

    def present(self) -> list[RawClient]:
        return [self.alice, self.bob, self.carol, self.dave]

    def leave(self) -> None:
        for client in self.present():
            client.socket.close()


@contextmanager
def people(server: Server) -> Iterator[People]:
    them = People(server)
    try:
        yield them
    finally:
        them.leave()


def send(sender: RawClient, recipient: RawClient, *message_ids: str) -> None:
    """Send a message for each id; all are accepted."""
    for message_id in message_ids:
        say(sender, recipient, message_id)
        sender.receive("MSG_ACK", message_id=message_id)


def say(sender: RawClient, recipient: RawClient, message_id: str) -> None:
    sender.say("MSG", to=recipient.user_id, content=f"content of {message_id}", message_id=message_id)


def fail(sender: RawClient, recipient: RawClient, *message_ids: str) -> None:
    """Send a message for each id; none is accepted, and the sender is told which one was not."""
    for message_id in message_ids:
        say(sender, recipient, message_id)
        details = sender.error("MESSAGE_FAILED")["details"]
        assert (details["type"], details["message_id"]) == ("MSG", message_id)


def receive(client: RawClient, *messages: tuple[int, str]) -> None:
    """Receive these (position, id), in this order, and nothing else."""
    for seq, message_id in messages:
        came = client.receive("MSG")
        assert (came["seq"], came["message_id"]) == (seq, message_id)
        assert came["content"] == f"content of {message_id}"
    assert "MSG" not in [kind for kind, _ in client.everything()]


def chat(sender: RawClient, recipient: RawClient, message_id: str) -> None:
    """A message that is delivered, since the recipient's disk works."""
    say(sender, recipient, message_id)
    assert sender.receive("MSG_ACK", message_id=message_id)["status"] == "delivered"
    assert recipient.receive("MSG", message_id=message_id)


def health(server: Server) -> str:
    """What the admin port says; with 200 for both `ok` and `degraded`, since other workers do their work."""
    with build_opener(ProxyHandler({})).open(f"{server.admin_url}/healthz", timeout=10.0) as response:
        answer: dict[str, str] = json.load(response)
    return answer["status"]


def failing(server: Server) -> list[int]:
    """For each worker, whether it says that its store fails."""
    workers = [process for process in status(server)["processes"] if process["kind"] == "worker"]
    return [process["stats"]["store_failing"] for process in workers]


def failures(server: Server) -> int:
    """How often the store of the failing worker has failed."""
    count: int = next(
        process["stats"]["store_failures_total"]
        for process in status(server)["processes"]
        if (process["kind"], process["index"]) == ("worker", FAILING)
    )
    return count


def history(client: RawClient, peer: RawClient) -> list[str]:
    """The ids of the messages of two users, oldest first."""
    client.say("HISTORY", **{"with": peer.user_id})
    return [message["message_id"] for message in reversed(client.receive("HISTORY")["messages"])]


def told_1013(client: RawClient) -> bool:
    """Whether a HELLO that has been sent is answered with 1013, not with HELLO_ACK."""
    while True:
        frame = client.frame()
        if frame.opcode == CLOSE:
            code, reason = frame.close()
            assert (code, bool(reason)) == (1013, True)
            return True
        if frame.message()[0] == "HELLO_ACK":
            return False


@FAULTS
def test_the_disk_fails_and_comes_back(tmp_path: Path, fault: Fault) -> None:
    with Server(tmp_path, workers=WORKERS) as server, people(server) as them:
        alice, bob, carol, dave = them.present()
        send(alice, bob, "1", "2")
        send(carol, bob, "3")
        receive(bob, (1, "1"), (2, "2"), (3, "3"))
        worker = server.child(f"worker {FAILING}")
        with fault(worker, tmp_path):
            for number in range(3):
                fail(alice, bob, f"a-{number}")
                fail(carol, bob, f"c-{number}")
                chat(alice, dave, f"a-{number}")
                chat(carol, dave, f"c-{number}")
            wait_until(lambda: health(server) == "degraded", "the server to say that it is degraded")
            wait_until(lambda: failing(server) == [1, 0], "the worker to say that its store fails")
            receive(bob)
            tries = failures(server)
            wait_until(lambda: failures(server) >= tries + 2, "the worker to try again by itself, in vain")
            refused_newcomers(them)
            for opener in (alice, carol):
                not_opened(opener, them.erin)
            fail(alice, bob, "a-3")
            for client in them.present():
                assert all(kind in ("PRESENCE", "CHAT_OPENED") for kind, _ in client.everything()), (
                    "nobody was dropped or is told anything"
                )
        wait_until(lambda: health(server) == "ok", "the server to be well again", RECOVERS_WITHIN)
        assert failing(server) == [0, 0]
        assert server.child(f"worker {FAILING}") == worker, "it is the same process all the time"
        assert history(bob, alice) == ["1", "2"], "what has failed has left no trace"
        send(alice, bob, "a-0", "a-1")
        send(carol, bob, "c-0", "new")
        send(alice, bob, "a-0")
        stored = [(4, "a-0"), (5, "a-1"), (6, "c-0"), (7, "new")]
        receive(bob, *stored)
        for opener in (alice, carol):
            opened(opener, them.erin)
        with RawClient.upgraded(server.port, them.stranger) as stranger:
            stranger.hello()
            opened(stranger, alice)
            opened(carol, stranger)
            chat(carol, stranger, "welcome")
        assert "Traceback" not in server.output()
    with Server(tmp_path, workers=WORKERS) as server, RawClient.upgraded(server.port, bob.user_id) as again:
        resumed = again.hello(capabilities=["resume"], resume={"cursor": them.hello["cursor"]})
        assert resumed["resumed"] == "full"
        receive(again, (1, "1"), (2, "2"), (3, "3"), *stored)


def refused_newcomers(them: People) -> None:
    """Who is known is let in or told 1013; who is not can't be, and is told 1013."""
    port = them.server.port
    for known in (them.bob, them.erin):
        with RawClient.upgraded(port, known.user_id, known.name) as device:
            device.send(device.hello_bytes())
            told_1013(device)
    with RawClient.upgraded(port, them.stranger) as stranger:
        stranger.send(stranger.hello_bytes())
        assert told_1013(stranger)


def not_opened(opener: RawClient, target: RawClient) -> None:
    """A chat can't be opened, and the opener is told so."""
    opener.say("OPEN_CHAT", target_user_id=target.user_id, target_display_name=target.name)
    assert opener.error("MESSAGE_FAILED")["details"]["type"] == "OPEN_CHAT"


def opened(opener: RawClient, target: RawClient) -> None:
    opener.say("OPEN_CHAT", target_user_id=target.user_id, target_display_name=target.name)
    opener.receive("CHAT_OPENED", target_user_id=target.user_id)


@FAULTS
def test_the_worker_dies_while_its_disk_fails(tmp_path: Path, fault: Fault) -> None:
    """What had failed may be there or not, since nobody knows (D26): sent again it comes once, and no position is left out."""
    with Server(tmp_path, workers=WORKERS) as server, people(server) as them:
        alice, bob = them.alice, them.bob
        send(alice, bob, "1", "2")
        receive(bob, (1, "1"), (2, "2"))
        worker = server.child(f"worker {FAILING}")
        with fault(worker, tmp_path):
            fail(alice, bob, "3", "4")
            os.kill(worker, signal.SIGKILL)
            bob.until_end()
            wait_until(lambda: worker not in processes(), "the worker to end")
        with RawClient.upgraded(server.port, bob.user_id, "Bob") as again:
            ack = again.hello(capabilities=["history", "resume"], resume={"cursor": them.hello["cursor"]})
            assert ack["resumed"] == "full"
            send(alice, bob, "4", "3", "5")
            came = [again.receive("MSG") for _ in range(5)]
            assert "MSG" not in [kind for kind, _ in again.everything()]
            assert [data["seq"] for data in came] == [1, 2, 3, 4, 5]
            message_ids = [data["message_id"] for data in came]
            assert sorted(message_ids) == ["1", "2", "3", "4", "5"]
            assert message_ids[:2] == ["1", "2"]
            assert message_ids[-1] == "5"
            assert history(again, alice) == message_ids
        wait_until(lambda: health(server) == "ok", "the new worker to have said that it is well")
