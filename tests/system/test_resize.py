"""`fastchat resize N`: another number of workers, and no client notices.

The clients are raw ones, which see each byte, and those of ``tests.system.talker``, which note everything.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.router import command
from tests.system.company import chatting, come_to_rest
from tests.system.couple import ALL, chat, couple
from tests.system.harness import Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.ledger import Ledger
from tests.system.raw_client import (
    CONTINUATION,
    PING,
    TEXT,
    RawClient,
    client_frame,
    message,
    upgrade_request,
)
from tests.system.status import descriptors, figure, status
from tests.system.talker import Manners, Talker
from tests.system.test_reload import PATIENCE, TIMEOUT, pids, reload_well

#: Who talks while the number of workers changes, and seconds between two messages of one of them.
USERS: Final = 12
PACE: Final = 0.05


def resize(server: Server, workers: int | str, *clients: RawClient) -> command.Done:
    """Change the number of workers, as an operator does; clients give signs of life meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        done = executor.submit(command.fastchat, "resize", "--admin", server.admin_url, "--", str(workers))
        while not done.done():
            for client in clients:
                client.send(client_frame(PING))
            wait([done], timeout=1.0)
    return done.result()


def number_of_workers(server: Server) -> int:
    """How many workers there are, as the server says; all serve."""
    told = status(server)
    workers = [process for process in told["processes"] if process["kind"] == "worker"]
    assert all(process["state"] == "ready" for process in workers), workers
    assert told["settings"]["workers"] == len(workers)
    return len(workers)


def resize_well(server: Server, workers: int, *clients: RawClient) -> None:
    """Change the number of workers; all of them are new processes, and the fronts are the same ones."""
    before, old = pids(server), number_of_workers(server)
    done = resize(server, workers, *clients)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert done.stdout.startswith(f"the server has {workers} workers instead of {old} (")
    assert number_of_workers(server) == workers
    after = pids(server)
    assert not set(before[:old]) & set(after)
    assert after[workers:] == before[old:]


def stays(server: Server, workers: int | str, *clients: RawClient, because: str) -> None:
    """Try to change the number of workers; the operator reads why not, and everything is as it was."""
    before = pids(server)
    done = resize(server, workers, *clients)
    assert done.returncode == 2
    assert because in done.stderr, done
    assert pids(server) == before
    wait_until(lambda: len(server.children()) == len(before), "what was started for it to end", TIMEOUT)


@pytest.mark.slow
def test_two_people_chat_on_and_see_nothing_of_it(start_server: StartServer) -> None:
    server = start_server(workers=1)
    with couple(server) as (ann, bob):
        resize_well(server, 2, ann, bob)
        for client in (ann, bob):
            assert client.everything() == []
        chat(ann, bob, "after")
        ann.socket.close()
        assert bob.receive("PRESENCE")["users"] is not None


@pytest.mark.parametrize(
    ("workers", "because"),
    [
        (2, "the server has 2 workers already"),
        (0, "the number of workers must be from 1 to 64, not 0"),
        (65, "the number of workers must be from 1 to 64, not 65"),
        ("many", "a valid integer"),
    ],
)
def test_a_number_that_makes_no_sense_changes_nothing(
    server: Server, workers: int | str, because: str
) -> None:
    stays(server, workers, because=because)


@pytest.mark.slow
def test_the_store_in_memory_is_refused(start_server: StartServer) -> None:
    stays(start_server(store="memory"), 3, because="the store in memory has no files")


@pytest.mark.slow
def test_half_a_message_goes_along(start_server: StartServer) -> None:
    server = start_server()
    with couple(server) as (ann, bob):
        whole = message("MSG", to=bob.user_id, content="in two pieces", message_id="pieces")
        ann.send(client_frame(TEXT, whole[:30], fin=False))
        ann.everything()
        resize_well(server, 3, ann, bob)
        ann.send(client_frame(CONTINUATION, whole[30:]))
        assert bob.receive("MSG")["content"] == "in two pieces"
        ann.receive("MSG_ACK", message_id="pieces")


@pytest.mark.slow
def test_who_does_not_read_gets_everything_afterwards(start_server: StartServer) -> None:
    """Also what was neither in the kernel nor in the store's hands: each message once, in order."""
    server = start_server()
    with couple(server) as (ann, bob):
        bob.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        size, number = 900, 800
        for index in range(number):
            ann.say("MSG", to=bob.user_id, content=f"{index} " + "x" * size, message_id=f"slow-{index}")
        for index in range(number):
            ann.receive("MSG_ACK", message_id=f"slow-{index}", status="accepted")
        wait_until(lambda: figure(server, "worker", "outbox_bytes") > 0, "bytes to wait in the worker")
        resize_well(server, 1, ann, bob)
        ann.say("MSG", to=bob.user_id, content="the last one", message_id="last")
        came = [bob.receive("MSG")["content"].partition(" ")[0] for _ in range(number + 1)]
        assert came == [*map(str, range(number)), "the"]


@pytest.mark.slow
def test_typing_of_before_ends_once(start_server: StartServer) -> None:
    server = start_server()
    with couple(server) as (ann, bob):
        ann.say("TYPING", is_typing=True)
        bob.receive("TYPING", is_typing=True)
        resize_well(server, 5, ann, bob)
        bob.receive("TYPING", timeout=TIMEOUT, is_typing=False)
        assert not [data for kind, data in bob.everything() if kind == "TYPING"]


@pytest.mark.slow
def test_who_comes_meanwhile_is_served(start_server: StartServer) -> None:
    """Also those who have to wait in a front for a worker of theirs."""
    server = start_server()
    with ExitStack() as stack:
        clients: list[RawClient] = []
        for workers in (5, 1):
            with ThreadPoolExecutor(1) as executor:
                done = executor.submit(resize_well, server, workers)
                while not done.done():
                    user = user_on_worker(len(clients) % 5, 5)
                    client = stack.enter_context(RawClient.upgraded(server.port, user))
                    client.hello()
                    clients.append(client)
                    wait([done], timeout=0.05)
            done.result()
        for client in clients:
            client.say("PING")
            client.receive("PONG")


@pytest.mark.slow
def test_limits_go_on_where_they_were(start_server: StartServer) -> None:
    """60 messages a minute are 60, whoever counts them; so are the connections of an address."""
    server = start_server(limits=True, connections_per_ip=3)
    with couple(server) as (ann, bob), RawClient.upgraded(server.port) as other:
        other.hello()
        for number in range(40):
            ann.say("MSG", to=bob.user_id, content="hi", message_id=f"{number}")
            ann.receive("MSG_ACK", message_id=f"{number}", status="accepted")
        resize_well(server, 5, ann, bob)
        for number in range(40, 59):  # one was sent before
            ann.say("MSG", to=bob.user_id, content="hi", message_id=f"{number}")
            ann.receive("MSG_ACK", message_id=f"{number}", status="accepted")
        ann.say("MSG", to=bob.user_id, content="one too many")
        ann.error("RATE_LIMITED")
        with RawClient.to(server.port) as fourth:
            fourth.send(upgrade_request())
            assert fourth.response()[0] == 503


@pytest.mark.slow
def test_a_new_worker_that_does_not_start_changes_nothing(start_server: StartServer) -> None:
    server = start_server()
    with couple(server) as (ann, bob):
        data, run = (Path(status(server)["settings"][name]) for name in ("data_dir", "run_dir"))
        in_the_way = run / "succession-2"
        in_the_way.mkdir()
        try:
            stays(server, 3, ann, bob, because="the server still has 2 workers: ")
        finally:
            in_the_way.rmdir()
        chat(ann, bob, "with-the-old-workers")
        assert len([*data.glob("shards-*")]) == 1, "what was copied is removed"
        resize_well(server, 3, ann, bob)
        chat(ann, bob, "with-the-new-workers")
        wait_until(lambda: len([*data.glob("shards-*")]) == 1, "the old files to be removed")
        assert len([*run.glob("bus-*")]) == 3


@pytest.mark.slow
def test_a_reload_and_a_restart_go_by_the_new_number(tmp_path: Path) -> None:
    with Server(tmp_path) as server, couple(server) as (ann, bob):
        resize_well(server, 3, ann, bob)
        reload_well(server)
        chat(ann, bob, "after-the-reload")
        killed = set(pids(server)[:3])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: not killed & set(pids(server)) and status(server)["status"] == "ok",
            "all workers to be back",
            TIMEOUT,
        )
        assert number_of_workers(server) == 3
        users = ann.user_id, bob.user_id
    with Server(tmp_path, workers=3) as server, ExitStack() as stack:
        ann, bob = (stack.enter_context(RawClient.upgraded(server.port, user)) for user in users)
        ann.hello(capabilities=ALL)
        bob.hello()
        for client in (ann, bob):
            client.everything()  # what was acknowledged a moment before the kill may come again
        chat(ann, bob, "after-the-restart")


@pytest.mark.slow
@run_async
async def test_everybody_chats_through_all_numbers(tmp_path: Path) -> None:
    """Nothing is lost, doubled or reordered, no connection ends, and nothing of the processes that have gone is left."""
    ledger, dice = Ledger(), random.Random(3)
    users = [user_on_worker(number % 2, 2) for number in range(USERS)]
    manners = (Manners(resumes=True), Manners(acknowledges=0.9), Manners(), Manners(receipts=True))
    talkers = [
        Talker(user, [*users, *users][number + 1 : number + 5], manners[number % 4], ledger, dice, PACE)
        for number, user in enumerate(users)
    ]
    with Server(tmp_path, workers=2, fronts=2) as server:
        async with chatting(talkers, server.url, PATIENCE):
            before: dict[str, int] | None = None
            for workers in (5, 1, 4, 2) * 2:
                await asyncio.to_thread(resize_well, server, workers)
                if workers == 2:
                    now = await asyncio.to_thread(descriptors, server)
                    assert before in (None, now)
                    before = now
            await come_to_rest(ledger, talkers, PATIENCE)
    figures = ledger.figures()
    assert ledger.problems() == []
    assert figures["connections"] == len(talkers), "nobody had to reconnect"
    assert figures["sent"] == figures["messages"] == figures["acknowledged"] > 500, (
        "nothing had to be sent again"
    )
