"""`fastchat reload`: every worker and front is replaced, and no client notices.

The clients are raw ones, which see each byte, and those of ``tests.system.talker``, which note everything. What is told of the server's own
processes comes from ``/status``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from core.wire.protocol import TYPING_EXPIRY
from tests.core.token_forge import SECRET, forge
from tests.router import command
from tests.system.company import chatting, come_to_rest
from tests.system.couple import chat, couple
from tests.system.harness import Server, StartServer, run_async, user_on_worker, wait_until
from tests.system.ledger import Ledger
from tests.system.raw_client import CONTINUATION, TEXT, RawClient, client_frame, message
from tests.system.status import descriptors, figure, status
from tests.system.talker import Manners, Talker

#: Seconds that a reload may take on a machine that is busy with other tests.
TIMEOUT: Final = 90.0
#: Seconds that talkers may take for anything.
PATIENCE: Final = 30.0
#: Seconds that a token is good for which expires after a reload: with each next one a busy machine has more time for that.
LIVES: Final = (10.0, 30.0, 90.0)


def reload(server: Server) -> command.Done:
    """Replace all processes, as an operator does."""
    return command.fastchat("reload", "--admin", server.admin_url)


def pids(server: Server) -> list[int]:
    """The numbers of the processes, workers first."""
    return [process["pid"] for process in status(server)["processes"]]


def reload_well(server: Server) -> None:
    """Replace all processes; each is another one afterwards."""
    before = pids(server)
    done = reload(server)
    assert (done.returncode, done.stderr) == (0, ""), done
    after = pids(server)
    assert not set(before) & set(after)
    assert all(process["restarts"] == 0 for process in status(server)["processes"])


@pytest.fixture(scope="module")
def server(own_server: Server) -> Server:
    """Of its own, since its processes are replaced."""
    return own_server


@pytest.fixture
def pair(server: Server) -> Iterator[tuple[RawClient, RawClient]]:
    """Two users who chat, each on a worker of their own; all has been read."""
    with couple(server) as clients:
        yield clients


@pytest.mark.slow
def test_two_people_chat_on_and_see_nothing_of_it(server: Server, pair: tuple[RawClient, RawClient]) -> None:
    ann, bob = pair
    began = time.monotonic()
    ann.say("TYPING", is_typing=True)
    bob.receive("TYPING", is_typing=True)
    bob.say("TYPING", is_typing=True)
    ann.receive("TYPING", is_typing=True)
    reload_well(server)
    came = [*ann.everything(), *bob.everything()]
    # On a machine that is very busy nobody types any more by then.
    still_types = time.monotonic() - began < TYPING_EXPIRY
    for kind, data in came:
        # Somebody else may have left.
        assert kind == "PRESENCE" or (kind == "TYPING" and not still_types), data
        if kind == "PRESENCE":
            assert not {ann.user_id, bob.user_id} & {user["user_id"] for user in data["users"]}, data
    if still_types:
        bob.say("TYPING", is_typing=False)
        ann.receive("TYPING", is_typing=False)
    chat(ann, bob, "after")
    if still_types:
        # Ann was shown as typing, and her message ended that.
        assert [data["is_typing"] for kind, data in bob.everything() if kind == "TYPING"] == [False]
    ann.socket.close()
    assert bob.receive("PRESENCE")["users"] is not None


@pytest.mark.slow
def test_half_a_message_goes_along(server: Server, pair: tuple[RawClient, RawClient]) -> None:
    """The fragments that have come; the rest follows on the new process."""
    ann, bob = pair
    whole = message("MSG", to=bob.user_id, content="in two pieces", message_id="pieces")
    ann.send(client_frame(TEXT, whole[:30], fin=False))
    ann.everything()
    reload_well(server)
    ann.send(client_frame(CONTINUATION, whole[30:]))
    assert bob.receive("MSG")["content"] == "in two pieces"
    ann.receive("MSG_ACK", message_id="pieces")


@pytest.mark.slow
def test_who_does_not_read_gets_everything_afterwards(
    server: Server, pair: tuple[RawClient, RawClient]
) -> None:
    """Also what was neither in the kernel nor in the store's hands: each message once, in order."""
    ann, bob = pair
    bob.everything()
    bob.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    size, number = 900, 800
    for index in range(number):
        ann.say("MSG", to=bob.user_id, content=f"{index} " + "x" * size, message_id=f"slow-{index}")
    for index in range(number):
        ann.receive("MSG_ACK", message_id=f"slow-{index}", status="accepted")
    wait_until(lambda: figure(server, "worker", "outbox_bytes") > 0, "bytes to wait in the worker")
    reload_well(server)
    ann.say("MSG", to=bob.user_id, content="the last one", message_id="last")
    came = [bob.receive("MSG")["content"].partition(" ")[0] for _ in range(number + 1)]
    assert came == [*map(str, range(number)), "the"]


@pytest.mark.slow
def test_a_message_in_the_middle_of_a_frame_is_the_only_one_that_is_lost(
    server: Server, pair: tuple[RawClient, RawClient]
) -> None:
    """Its connection is closed with 1012 when the rest does not come; that is counted."""
    ann, bob = pair
    with RawClient.upgraded(server.port) as slow:
        slow.hello()
        slow.send(client_frame(TEXT, message("PING"))[:9])
        before = figure(server, "worker", "not_moved_total")
        reload_well(server)
        assert slow.closed()[0] == 1012
    wait_until(lambda: figure(server, "worker", "not_moved_total") == before + 1, "it to be counted")
    chat(ann, bob, "meanwhile")


@pytest.mark.slow
def test_the_rest_of_a_frame_that_comes_in_time_is_waited_for(
    server: Server, pair: tuple[RawClient, RawClient]
) -> None:
    with RawClient.upgraded(server.port) as slow:
        slow.hello()
        frame = client_frame(TEXT, message("PING"))
        with ThreadPoolExecutor(1) as executor:
            done = executor.submit(reload, server)
            while not done.done():
                slow.send(frame[:9])
                # Most of the time half of a frame has come.
                wait([done], timeout=0.1)
                slow.send(frame[9:])
                slow.receive("PONG")
        assert done.result().returncode == 0


@pytest.mark.slow
def test_a_client_that_has_not_said_hello_can_do_so_later(server: Server) -> None:
    """It is the front's, and the front that leaves goes on with it."""
    with RawClient.upgraded(server.port) as client, RawClient.to(server.port) as connected:
        client.say("PING")
        client.receive("PONG")
        reload_well(server)
        client.hello()
        connected.send(b"GET /ws HTTP/1.1\r\n\r\n")
        assert connected.response()[0] == 400


@pytest.mark.slow
def test_a_process_that_does_not_start_replaces_nothing(
    server: Server, pair: tuple[RawClient, RawClient]
) -> None:
    """The operator reads why, and everybody chats on with the old processes."""
    ann, bob = pair
    run_directory = Path(status(server)["settings"]["run_dir"])
    in_the_way = run_directory / "succession-0"
    before = pids(server)
    in_the_way.mkdir()
    try:
        done = reload(server)
    finally:
        in_the_way.rmdir()
    assert done.returncode == 2
    assert done.stderr.startswith("fastchat: worker 0 goes on with the old process: ")
    assert pids(server) == before
    chat(ann, bob, "with-the-old-processes")
    reload_well(server)
    chat(ann, bob, "with-the-new-processes")
    assert len([*run_directory.glob("bus-*")]) == server.workers, "nothing is left of the one that failed"


@pytest.mark.slow
def test_sighup_does_the_same(server: Server, pair: tuple[RawClient, RawClient]) -> None:
    before = pids(server)
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: not set(before) & set(pids(server)), "all processes to be replaced", TIMEOUT)
    chat(*pair, "after-SIGHUP")


@pytest.mark.slow
def test_limits_go_on_where_they_were(start_server: StartServer) -> None:
    """60 messages a minute are 60, whoever counts them."""
    server = start_server(limits=True)
    with (
        RawClient.upgraded(server.port, user_on_worker(0, 2)) as ann,
        RawClient.upgraded(server.port, user_on_worker(1, 2)) as bob,
    ):
        ann.hello()
        bob.hello()
        ann.say("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Somebody")
        ann.receive("CHAT_OPENED")
        for number in range(40):
            ann.say("MSG", to=bob.user_id, content="hi", message_id=f"{number}")
            ann.receive("MSG_ACK", message_id=f"{number}")
        reload_well(server)
        for number in range(40, 60):
            ann.say("MSG", to=bob.user_id, content="hi", message_id=f"{number}")
            ann.receive("MSG_ACK", message_id=f"{number}")
        ann.say("MSG", to=bob.user_id, content="one too many")
        ann.error("RATE_LIMITED")


@pytest.mark.slow
def test_typing_of_before_ends_in_time_and_is_seen_to_end_once(
    server: Server, pair: tuple[RawClient, RawClient]
) -> None:
    """Who says nothing more is typing for 15 s (D17), whichever process counts them."""
    ann, bob = pair
    bob.everything()
    began = time.monotonic()
    ann.say("TYPING", is_typing=True)
    bob.receive("TYPING", is_typing=True)
    reload_well(server)
    bob.receive("TYPING", timeout=TIMEOUT, is_typing=False)
    assert time.monotonic() - began >= TYPING_EXPIRY, "that was too early"
    assert not [data for kind, data in bob.everything() if kind == "TYPING"]


@pytest.mark.slow
def test_a_token_of_before_expires_when_it_would_have(start_server: StartServer) -> None:
    """The new process closes its client with 1008, neither earlier nor never, and nobody else (D5)."""
    server = start_server(auth="jwt", jwt_key=SECRET, jwt_leeway=0)
    with ExitStack() as stack:
        for seconds in LIVES:
            expiry = time.time() + seconds
            clients = [
                stack.enter_context(RawClient.upgraded(server.port, user_on_worker(index % 2, 2)))
                for index in range(4)
            ]
            passing, staying = clients[:2], clients[2:]
            for client in clients:
                exp = expiry if client in passing else expiry + 3600.0
                client.hello(token=forge({"sub": client.user_id, "exp": exp}, SECRET))
            reload_well(server)
            if time.time() < expiry:
                break  # else the machine was too busy, and the old process has done it
        else:
            pytest.fail(f"a reload took longer than {LIVES[-1]:g} s")
        for client in passing:
            assert client.closed(TIMEOUT) == (1008, "token expired")
            assert time.time() >= expiry, "that was too early"
        for client in staying:
            client.say("PING")
            client.receive("PONG")


@pytest.mark.slow
@run_async
async def test_everybody_chats_through_reloads(tmp_path: Path) -> None:
    """Nothing is lost, doubled or reordered, no connection ends, and nothing of the processes that have gone is left."""
    ledger, dice = Ledger(), random.Random(1)
    users = [user_on_worker(number % 3, 3) for number in range(12)]
    manners = (Manners(resumes=True), Manners(acknowledges=0.9), Manners(), Manners(receipts=True))
    talkers = [
        Talker(user, [*users, *users][number + 1 : number + 5], manners[number % 4], ledger, dice, 0.05)
        for number, user in enumerate(users)
    ]
    with Server(tmp_path, workers=3, fronts=2) as server:
        async with chatting(talkers, server.url, PATIENCE):
            await asyncio.to_thread(reload_well, server)
            before = await asyncio.to_thread(descriptors, server)
            for _ in range(2):
                await asyncio.to_thread(reload_well, server)
            assert await asyncio.to_thread(descriptors, server) == before
            await come_to_rest(ledger, talkers, PATIENCE)
    figures = ledger.figures()
    assert ledger.problems() == []
    assert figures["connections"] == len(talkers), "nobody had to reconnect"
    assert figures["sent"] == figures["messages"] == figures["acknowledged"] > 500, (
        "nothing had to be sent again"
    )
