"""Who is told that a chat is open: on lines that die, by workers that die, and thousands at once (D7), as seen from the wire."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.system.harness import Server, StartServer, user_on_worker, wait_until
from tests.system.raw_client import PING, PONG, TEXT, RawClient, client_frame
from tests.system.servers import two_users
from tests.workers.store_files import shards

WHERE = pytest.mark.parametrize("where", ["same shard", "other shard"])
#: Chats that were opened while somebody was away: more than 1 MiB of CHAT_OPENED.
MANY = 6000


def come(server: Server, user: str) -> RawClient:
    """A connection that has said HELLO; it answers no pings."""
    client = RawClient.upgraded(server.port, user)
    client.hello()
    return client


def open_chat(client: RawClient, peer: str) -> None:
    client.say("OPEN_CHAT", target_user_id=peer, target_display_name="Somebody")
    client.receive("CHAT_OPENED", target_user_id=peer)


def is_told(server: Server, user: str, peer: str) -> bool:
    """Whether a connection that comes now is told of the chat with `peer`; it confirms nothing."""
    with come(server, user) as probe:
        return ("CHAT_OPENED", peer) in [
            (kind, data.get("target_user_id")) for kind, data in probe.everything()
        ]


def kill_worker(server: Server, index: int) -> None:
    """And wait for the next one."""
    title = f"worker {index}"
    killed = server.child(title)
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: killed not in server.children() and f"fastchat: {title}" in server.children().values(), title
    )


def is_confirmed(data: Path, user: str) -> bool:
    """Whether the store knows that this user has read of all chats."""
    for path in shards(data):
        with closing(sqlite3.connect(path)) as connection:
            select = (
                "SELECT min(confirmed) FROM chats WHERE user = (SELECT number FROM users WHERE user_id = ?)"
            )
            (found,) = connection.execute(select, (user,)).fetchone()
            if found is not None:
                return bool(found)
    return False


@WHERE
def test_d7_what_nobody_has_read_is_told_at_the_next_hello(server: Server, where: str) -> None:
    """The line is open, and its client reads nothing; the opener's is not better. What comes is read on the third connection."""
    ann_id, bob_id = two_users(server, where)
    ann, dead = come(server, ann_id), come(server, bob_id)
    open_chat(ann, bob_id)
    ann.say("MSG", to=bob_id, content="Hi.", message_id="1")
    assert ann.receive("MSG_ACK")["status"] == "delivered", "written it was"
    assert is_told(server, bob_id, ann_id)
    with come(server, bob_id) as bob:
        kinds = [
            bob.receive("CHAT_OPENED", target_user_id=ann_id) and "CHAT_OPENED",
            bob.receive("MSG") and "MSG",
        ]
        assert kinds == ["CHAT_OPENED", "MSG"]
        bob.send(client_frame(PONG, bob.ping()))
        wait_until(lambda: not is_told(server, bob_id, ann_id), "the pong to confirm it")
    ann.socket.close()
    dead.socket.close()


@pytest.mark.slow
def test_d7_a_worker_that_is_killed_forgets_no_chat(start_server: StartServer, tmp_path: Path) -> None:
    """Between writing and confirmation: it is told again. Behind the confirmation, also of one who acknowledges with MSG_ACK: it is not."""
    server = start_server()
    data = next(tmp_path.glob("server-*")) / "data"
    ann_id, bob_id = user_on_worker(0, 2), user_on_worker(1, 2)
    with come(server, ann_id) as ann:
        bob = come(server, bob_id)
        bob.say("MSG_ACK", message_id="none-of-that-id")
        open_chat(ann, bob_id)
        bob.receive("CHAT_OPENED", target_user_id=ann_id)
        kill_worker(server, 1)
        bob.socket.close()
        assert is_told(server, bob_id, ann_id)
        with come(server, bob_id) as bob:
            bob.send(client_frame(PONG, bob.ping()))
            wait_until(lambda: is_confirmed(data, bob_id), "the confirmation to be stored")
        kill_worker(server, 1)
        assert not is_told(server, bob_id, ann_id)


@pytest.mark.parametrize("act", ["MSG", "TYPING", "MSG_ACK"])
def test_d7_what_one_does_in_a_chat_confirms_it(server: Server, act: str) -> None:
    """Without a pong."""
    ann_id, bob_id = two_users(server, "other shard")
    with come(server, ann_id) as ann, come(server, bob_id) as bob:
        open_chat(ann, bob_id)
        bob.receive("CHAT_OPENED", target_user_id=ann_id)
        assert is_told(server, bob_id, ann_id)
        if act == "MSG":
            bob.say("MSG", to=ann_id, content="Hi.")
        elif act == "TYPING":
            bob.say("TYPING", is_typing=True, to=ann_id)
        else:
            ann.say("MSG", to=bob_id, content="Hi.", message_id="1")
            bob.receive("MSG", message_id="1")
            bob.say("MSG_ACK", message_id="1")
        bob.everything()
        assert not is_told(server, bob_id, ann_id)


@pytest.mark.slow
def test_d7_d13_thousands_are_paced_and_close_nothing(tmp_path: Path) -> None:
    """To a client that begins to read when as much is under way as can be; then all of them come, once, in order, before the message."""
    bob_id, peers = user_on_worker(0, 1), [str(uuid4()) for _ in range(MANY)]
    with Server(tmp_path, workers=1) as server:
        come(server, bob_id).socket.close()
    (path,) = shards(tmp_path / "data")
    with closing(sqlite3.connect(path)) as connection, connection:
        (number,) = connection.execute("SELECT number FROM users WHERE user_id = ?", (bob_id,)).fetchone()
        rows = [(index + 1, number, peer, "Some Stranger") for index, peer in enumerate(peers)]
        connection.executemany(
            "INSERT INTO chats (number, user, peer, peer_name, confirmed, written) VALUES (?, ?, ?, ?, 0, 0)",
            rows,
        )
    with Server(tmp_path, workers=1) as server, RawClient.upgraded(server.port, bob_id) as bob:
        bob.socket.setsockopt(6, 10, 4096)  # TCP_WINDOW_CLAMP: little is under way that neither end has
        bob.send(bob.hello_bytes())
        with come(server, user_on_worker(0, 1)) as late:
            open_chat(late, bob_id)
            late.say("MSG", to=bob_id, content="Hi.", message_id="1")
            assert late.receive("MSG_ACK")["status"] == "stored", "it waits behind the chats"
            for _ in range(20):
                late.say("PING")
                late.receive("PONG")
            told: list[str] = []
            while True:
                frame = bob.frame()
                if frame.opcode == PING:
                    bob.send(client_frame(PONG, frame.payload))
                    continue
                assert frame.opcode == TEXT, frame.close()
                kind, data = frame.message()
                if kind == "MSG":
                    break
                if kind == "CHAT_OPENED":
                    told.append(data["target_user_id"])
            assert told == [*peers, late.user_id]
            wait_until(lambda: is_confirmed_but_one(path, bob), "the pongs to confirm them")


def is_confirmed_but_one(path: Path, bob: RawClient) -> bool:
    """Answers the pings that come meanwhile; the store knows of all chats then."""
    bob.say("PING")
    bob.receive("PONG")
    for frame in list(bob.inbox):
        if frame.opcode == PING:
            bob.inbox.remove(frame)
            bob.send(client_frame(PONG, frame.payload))
    with closing(sqlite3.connect(path)) as connection:
        (open_,) = connection.execute("SELECT count(*) FROM chats WHERE NOT confirmed").fetchone()
    return int(open_) <= 1
