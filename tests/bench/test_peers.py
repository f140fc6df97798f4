"""Every peer does what it is measured for: it relays, acknowledges, and keeps the order. Runs the real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosedOK, InvalidHandshake
from websockets.sync.client import ClientConnection, connect

from bench import peers
from bench.peers import PEERS, Peer, PeerFailed, Recipe, Unavailable, start

pytestmark = pytest.mark.slow

PATIENCE = 10.0


@pytest.fixture(scope="module", params=sorted(PEERS))
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """Each of the peers, running."""
    with running(request.param) as peer:
        yield peer


@contextmanager
def running(name: str) -> Iterator[Peer]:
    """A peer; the test is skipped when it is not available."""
    with ExitStack() as stack:
        try:
            peer = stack.enter_context(start(name))
        except Unavailable as why:
            pytest.skip(f"{name}: {why}")
        yield peer


class User:
    """One connected user."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.user_id = str(uuid4())
        self.name = f"User {self.user_id[:8]}"

    def send(self, kind: str, **data: str) -> None:
        self.connection.send(encoded(kind, **data))

    def receive(self, kind: str) -> dict[str, Any]:
        """The data of the next message, which has to be of this kind and to look as the driver expects it."""
        text = self.connection.recv(PATIENCE, decode=True)
        assert text.startswith(f'{{"type":"{kind}"'), text
        data: dict[str, Any] = json.loads(text)["data"]
        return data

    def hello(self) -> None:
        self.send("HELLO", user_id=self.user_id, display_name=self.name)
        assert self.receive("HELLO_ACK") == {"user_id": self.user_id, "status": "connected"}

    def acknowledged(self, message_id: str, status: str = "delivered") -> None:
        assert self.receive("MSG_ACK") == {"message_id": message_id, "status": status}


def encoded(kind: str, **data: str) -> str:
    """A message as a browser writes it, without blanks."""
    return json.dumps({"type": kind, "data": data}, separators=(",", ":"), ensure_ascii=False)


@contextmanager
def user(peer: Peer) -> Iterator[User]:
    """Somebody who has said HELLO."""
    with connect(peer.url, open_timeout=PATIENCE, close_timeout=PATIENCE) as connection:
        somebody = User(connection)
        somebody.hello()
        yield somebody


@contextmanager
def pair(peer: Peer) -> Iterator[tuple[User, User]]:
    """Two users, the first of whom opened a chat with the second."""
    with user(peer) as alice, user(peer) as bob:
        alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name=bob.name)
        chats = []
        for one, other in ((alice, bob), (bob, alice)):
            opened = one.receive("CHAT_OPENED")
            chats.append(opened.pop("chat_id"))
            assert sorted(opened.pop("participants")) == sorted([alice.user_id, bob.user_id])
            assert opened == {"target_user_id": other.user_id, "target_display_name": other.name}
        assert chats[0] == chats[1]
        yield alice, bob


def check_message(peer: Peer, got: dict[str, Any], sender: User, to: User, content: str, number: str) -> None:
    """`got` is what the recipient has to get."""
    if PEERS[peer.name].completes:
        assert got.pop("from") == sender.user_id
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", got.pop("timestamp"))
    assert got == {"to": to.user_id, "content": content, "message_id": number}


# -- The relay --


@pytest.mark.parametrize("length", [0, 1, 70, 200, 1000, 40_000])
def test_both_can_write(peer: Peer, length: int) -> None:
    """Short and long: the header of a frame has one form below 126 bytes and another one up to 65,535."""
    with pair(peer) as (alice, bob):
        for number, (sender, recipient) in enumerate([(alice, bob), (bob, alice), (alice, bob)]):
            content = ("Grüße! " * length)[:length]
            message_id = str(number)
            sender.send("MSG", to=recipient.user_id, content=content, message_id=message_id)
            check_message(peer, recipient.receive("MSG"), sender, recipient, content, message_id)
            sender.acknowledged(message_id)


def test_a_burst_keeps_its_order(peer: Peer) -> None:
    with pair(peer) as (alice, bob):
        numbers = [str(number) for number in range(1000, 1500)]
        for number in numbers:
            alice.send("MSG", to=bob.user_id, content=number, message_id=number)
        assert [bob.receive("MSG")["message_id"] for _ in numbers] == numbers
        for number in numbers:
            alice.acknowledged(number)


def test_frames_may_come_in_pieces(peer: Peer) -> None:
    with pair(peer) as (alice, bob):
        raw = alice.connection.socket
        frames = b"".join(
            masked(encoded("MSG", to=bob.user_id, content="x" * length, message_id=str(length)).encode())
            for length in (5, 200)
        )
        for at in range(len(frames)):
            raw.sendall(frames[at : at + 1])
        for length in (5, 200):
            check_message(peer, bob.receive("MSG"), alice, bob, "x" * length, str(length))
            alice.acknowledged(str(length))


def test_many_frames_may_come_at_once(peer: Peer) -> None:
    """More than a server reads at once, so that a frame is cut somewhere."""
    with pair(peer) as (alice, bob):
        numbers = range(1000)
        frames = b"".join(
            masked(
                encoded("MSG", to=bob.user_id, content="y" * (number % 180), message_id=str(number)).encode()
            )
            for number in numbers
        )
        assert len(frames) > 2 * 65_536
        alice.connection.socket.sendall(frames)
        assert [bob.receive("MSG")["message_id"] for _ in numbers] == [str(number) for number in numbers]
        for number in numbers:
            alice.acknowledged(str(number))


def test_a_partner_who_is_not_there(peer: Peer) -> None:
    with user(peer) as alice:
        nobody = str(uuid4())
        alice.send("OPEN_CHAT", target_user_id=nobody, target_display_name="Nobody")
        assert alice.receive("CHAT_OPENED")["target_user_id"] == nobody
        alice.send("MSG", to=nobody, content="hello?", message_id="7")
        alice.acknowledged("7", "stored")


def test_a_partner_who_goes_and_comes_back(peer: Peer) -> None:
    with user(peer) as alice:
        with user(peer) as bob:
            alice.send("OPEN_CHAT", target_user_id=bob.user_id, target_display_name=bob.name)
            assert alice.receive("CHAT_OPENED")["target_user_id"] == bob.user_id
            bob.receive("CHAT_OPENED")
        # The peer answered the close, but may not have come to the end of the connection yet.
        deadline = time.monotonic() + PATIENCE
        status = ""
        while status != "stored":
            assert time.monotonic() < deadline, "bob is still there"
            alice.send("MSG", to=bob.user_id, content="gone?", message_id="1")
            status = alice.receive("MSG_ACK")["status"]
        with connect(peer.url) as connection:
            again = User(connection)
            again.user_id = bob.user_id
            again.hello()
            alice.send("MSG", to=bob.user_id, content="back!", message_id="2")
            check_message(peer, again.receive("MSG"), alice, again, "back!", "2")
            alice.acknowledged("2")


def test_an_acknowledgement_of_a_client_is_ignored(peer: Peer) -> None:
    with pair(peer) as (alice, bob):
        bob.send("MSG_ACK", message_id="1", status="delivered")
        bob.send("PING")
        assert bob.receive("PONG")["timestamp"]
        alice.send("PING")
        assert alice.receive("PONG")["timestamp"]


@pytest.mark.parametrize("name", ["floor", "uws"])
def test_a_slow_reader_loses_nothing(name: str) -> None:
    """These two write by themselves what the kernel does not take at once; the others have event loops that do."""
    with running(name) as peer, pair(peer) as (alice, bob):
        numbers = [str(number) for number in range(2000)]
        content = (
            "z" * 4000
        )  # 8 MB in all: more than the kernel keeps for a connection, less than the peers do
        for number in numbers:
            alice.send("MSG", to=bob.user_id, content=content, message_id=number)
            alice.acknowledged(number)
        for number in numbers:
            assert bob.receive("MSG")["message_id"] == number


# -- WebSocket --


@pytest.mark.parametrize("payload", [b"", b"are you there?", b"p" * 125])
def test_a_websocket_ping_is_answered(peer: Peer, payload: bytes) -> None:
    with user(peer) as alice:
        assert alice.connection.ping(payload).wait(PATIENCE)


def test_a_close_is_answered(peer: Peer) -> None:
    with user(peer) as alice:
        alice.connection.close(1000, "bye")
        assert alice.connection.protocol.close_rcvd is not None
        with pytest.raises(ConnectionClosedOK):
            alice.connection.recv(PATIENCE)


def test_another_path_is_refused(peer: Peer) -> None:
    with pytest.raises(InvalidHandshake), connect(peer.url.removesuffix("/ws") + "/elsewhere"):
        pass


def masked(payload: bytes) -> bytes:
    """A client's text frame, with a mask that is easy to read in a dump."""
    mask = b"\x01\x02\x03\x04"
    head = bytes([0x81, 0x80 | len(payload)] if len(payload) < 126 else [0x81, 0xFE])
    size = b"" if len(payload) < 126 else len(payload).to_bytes(2, "big")
    return head + size + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


# -- Starting and stopping --


def test_nothing_is_left(peer: Peer) -> None:
    """Also when somebody is connected; here on a port that was asked for."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ExitStack() as clients:
        with start(peer.name, port) as other:
            assert urlsplit(other.url).port == port
            clients.enter_context(connect(other.url))
        for pid in other.pids:
            assert not Path(f"/proc/{pid}").exists()


def test_one_that_does_not_listen_to_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    ignores = "trap '' TERM; echo ready ws://127.0.0.1:1/ws pid=$$; while :; do read line || sleep 0.1; done"
    monkeypatch.setattr(peers, "PEERS", {"deaf": Recipe("deaf", lambda: ["sh", "-c", ignores])})
    monkeypatch.setattr(peers, "_STOP_TIMEOUT", 0.1)
    with start("deaf") as deaf:
        pass
    with pytest.raises(ProcessLookupError):
        os.kill(deaf.pids[0], signal.SIGCONT)


def test_one_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ["sh", "-c", "echo the reason >&2; exit 3"]
    monkeypatch.setattr(peers, "PEERS", {"broken": Recipe("broken", lambda: broken)})
    with pytest.raises(PeerFailed, match="broken did not start: the reason"), start("broken"):
        pass


@pytest.mark.parametrize("name", ["ws", "uws"])
def test_without_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="there is no Node"), start(name):
        pass


def test_what_cannot_be_made_says_why() -> None:
    failing = ["sh", "-c", "echo begun; echo tool error: no such thing >&2; echo details; exit 1"]
    with pytest.raises(Unavailable, match=r"^the tool failed: tool error: no such thing$"):
        peers._run(failing, "the tool", PATIENCE)
    with pytest.raises(Unavailable, match=r"^the tool took longer than 0\.1 s$"):
        peers._run(["sleep", "60"], "the tool", 0.1)


def test_the_lock_file_names_no_registry() -> None:
    """The packages come from whatever registry npm is set to; what they contain is held by their checksums."""
    lock = (Path(peers.__file__).parent / "package-lock.json").read_text()
    packages = [package for path, package in json.loads(lock)["packages"].items() if path]
    assert packages
    assert all(package["integrity"] for package in packages)
    assert "://" not in lock
