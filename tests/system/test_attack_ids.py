"""Tricks with message ids: an id counts between one sender and one recipient, and nobody hides or acknowledges by it what others write.

D10 and D12. Everywhere Bob acknowledges explicitly, so what he has not acknowledged comes again.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import PATIENCE, RawClient, text, upgrade_request

WHERE: Final = pytest.mark.parametrize("where", ["same shard", "other shard"])

#: Ids that could mean something to somebody: a path, a query, a pattern, a number, a place in a mailbox, a key of the server's own.
STRANGE: Final = (
    *(
        "../../../etc/passwd",
        "%00",
        "%0d%0aX:",
        ");DROP/**/TABLE/**/messages;--",
        "(SELECT(1))",
        "*",
        "%",
        "_",
    ),
    *(
        "0",
        "-1",
        "00",
        "1",
        "1.0",
        "1e3",
        "null",
        "true",
        "NaN",
        "undefined",
        "__proto__",
        "{}",
        "[]",
        "${x}",
    ),
    *("1194511fa0d25be8.1", "0.0", "9.9", "seq:1", "\\", "\\u0041", "A", "a", "A.", "x" * 63, "x" * 64),
)
#: What is no id: empty, a character too many, control and other characters that cannot be seen, what HTML gives a meaning, not ASCII.
NO_IDS: Final = (
    *(
        "",
        "x" * 65,
        "x" * 15_000,
        " ",
        "a b",
        "\x00",
        "a\x00b",
        "a\n",
        "\r\n",
        "\t",
        "\x1b[2J",
        "\x7f",
        "\x80",
    ),
    *("<", ">", "&", '"', "'", "\u00e9", "e\u0301", "\uff41", "\u202e", "\u200b", "\U0001f600"),
)


class People:
    """Users who come and go. Bob has acknowledged something once, so he acknowledges explicitly from then on."""

    def __init__(self, server: Server, where: str, stack: ExitStack) -> None:
        self._server = server
        self._stack = stack
        self.bob_id = user_on_worker(0, server.workers)
        self._worker = 0 if where == "same shard" else 1

    def come(self, user_id: str | None = None) -> RawClient:
        """A device of this user, or of a new one on the chosen shard."""
        user_id = user_id or user_on_worker(self._worker, self._server.workers)
        client = self._stack.enter_context(RawClient.upgraded(self._server.port, user_id))
        client.hello(capabilities=["receipts"])
        return client

    def bob(self) -> RawClient:
        """A device of Bob's."""
        bob = self.come(self.bob_id)
        bob.say("MSG_ACK", message_id="nothing")
        return bob

    def sender(self) -> RawClient:
        """Somebody new, who has a chat with Bob."""
        client = self.come()
        client.say("OPEN_CHAT", target_user_id=self.bob_id, target_display_name="Bob")
        client.receive("CHAT_OPENED")
        return client

    def leave(self, *clients: RawClient) -> None:
        """Close these connections, and wait until the server has."""
        for client in clients:
            client.send(b"\x88\x82\0\0\0\0\x03\xe8")
            client.closed()


@pytest.fixture
def people(server: Server, where: str) -> Iterator[People]:
    with ExitStack() as stack:
        yield People(server, where, stack)


def send(client: RawClient, to: str, content: str, message_id: str) -> None:
    client.say("MSG", to=to, content=content, message_id=message_id)
    client.receive("MSG_ACK", message_id=message_id, to=to, status="accepted")


def messages(client: RawClient, count: int) -> list[tuple[str, str]]:
    """Id and content of exactly so many messages."""
    came = [client.receive("MSG") for _ in range(count)]
    assert "MSG" not in [kind for kind, _ in client.everything()], "there are more"
    return [(data["message_id"], data["content"]) for data in came]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_the_same_id_from_two_senders(people: People) -> None:
    """Both arrive, whoever was first, also when they wait; and each is acknowledged for itself."""
    bob = people.bob()
    alice, mallory = people.sender(), people.sender()
    for first, second, identifier in ((alice, mallory, "m-1"), (mallory, alice, "m-2")):
        for client in (first, second):
            send(client, people.bob_id, f"of {client.user_id}", identifier)
        assert messages(bob, 2) == [(identifier, f"of {client.user_id}") for client in (first, second)]
        bob.say("MSG_ACK", message_id=identifier, **{"from": second.user_id})
        second.receive("MSG_ACK", message_id=identifier, status="delivered")
    people.leave(bob)
    for client in (mallory, alice):
        send(client, people.bob_id, f"of {client.user_id}", "m-3")
    for client in (alice, mallory):  # what it says about a repeat is about the own one
        acknowledged = "m-2" if client is alice else "m-1"
        client.say("MSG", to=people.bob_id, content=f"of {client.user_id}", message_id=acknowledged)
        client.receive("MSG_ACK", message_id=acknowledged, status="delivered")
    assert messages(people.bob(), 4) == [
        ("m-1", f"of {alice.user_id}"),
        ("m-2", f"of {mallory.user_id}"),
        ("m-3", f"of {mallory.user_id}"),
        ("m-3", f"of {alice.user_id}"),
    ]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_an_acknowledgement_without_sender_means_the_oldest(people: People) -> None:
    """So who takes an id that waits already makes nothing vanish that has not been written to that device."""
    bob = people.bob()
    alice, mallory = people.sender(), people.sender()
    send(alice, people.bob_id, "first", "m")
    send(mallory, people.bob_id, "second", "m")
    assert messages(bob, 2) == [("m", "first"), ("m", "second")]
    bob.say("MSG_ACK", message_id="m")
    alice.receive("MSG_ACK", message_id="m", status="delivered")
    assert [kind for kind, _ in mallory.everything() if kind == "MSG_ACK"] == []
    people.leave(bob)
    assert messages(people.bob(), 1) == [("m", "second")]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_the_same_id_to_two_recipients(people: People) -> None:
    """Two messages: neither is a repeat of the other, and what the one says of it does not count for the other."""
    bob, mallory = people.bob(), people.sender()
    carol = people.come()
    mallory.say("OPEN_CHAT", target_user_id=carol.user_id, target_display_name="Carol")
    mallory.receive("CHAT_OPENED", target_user_id=carol.user_id)
    send(mallory, people.bob_id, "to Bob", "m")
    send(mallory, carol.user_id, "to Carol", "m")
    assert messages(bob, 1) == [("m", "to Bob")]
    assert messages(carol, 1) == [("m", "to Carol")]
    carol.say("MSG_ACK", message_id="m", **{"from": mallory.user_id})
    mallory.receive("MSG_ACK", message_id="m", to=carol.user_id, status="delivered")
    carol.say("READ", message_id="m", **{"from": mallory.user_id})
    mallory.receive("MSG_ACK", message_id="m", to=carol.user_id, status="read")
    send(mallory, people.bob_id, "to Bob", "m")  # it is still only accepted
    people.leave(bob)
    assert messages(people.bob(), 1) == [("m", "to Bob")]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_the_same_id_with_another_content_in_one_segment(people: People) -> None:
    """The first is stored, shown and acknowledged; the others are refused, while the first is still on its way."""
    bob = people.bob()
    for round_ in range(5):
        mallory = people.sender()  # who does that on one connection is closed after a minute's worth of it
        identifier = f"m-{round_}"
        contents = [f"version {number}" for number in range(20)]
        sent = [text("MSG", to=people.bob_id, content=each, message_id=identifier) for each in contents]
        mallory.send(b"".join(sent))
        answers: list[dict[str, Any]] = []
        while len(answers) < len(contents):
            came = mallory.frame().message()
            if came[0] in ("MSG_ACK", "ERROR"):
                answers.append(came[1])
        assert [answer["status"] for answer in answers if "status" in answer] == ["accepted"]
        for refused in (answer for answer in answers if "code" in answer):
            assert refused["details"]["message_id"] == identifier
            assert refused["code"] == "VALIDATION", refused
        send(mallory, people.bob_id, "version 0", identifier)
        assert messages(bob, 1) == [(identifier, "version 0")]
    people.leave(bob)
    assert messages(people.bob(), 5) == [(f"m-{round_}", "version 0") for round_ in range(5)]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_strange_ids_are_ids_like_others(people: People) -> None:
    """Kept as they are, told apart, repeated, acknowledged, and gone when they are."""
    bob, mallory = people.bob(), people.sender()
    for identifier in STRANGE:
        send(mallory, people.bob_id, f"content of {identifier}", identifier)
        send(mallory, people.bob_id, f"content of {identifier}", identifier)
    expected = [(identifier, f"content of {identifier}") for identifier in STRANGE]
    assert messages(bob, len(STRANGE)) == expected
    for identifier in STRANGE[::2]:
        bob.say("MSG_ACK", message_id=identifier)
        mallory.receive("MSG_ACK", message_id=identifier, status="delivered")
    people.leave(bob)
    assert messages(people.bob(), len(STRANGE) // 2) == expected[1::2]


@pytest.mark.attack("message_id tricks")
@WHERE
def test_what_is_no_id(people: People) -> None:
    """In each message that has one; nothing is stored, and the answer does not repeat it at length."""
    bob = people.bob()
    for identifier in NO_IDS:
        mallory = people.sender()
        mallory.say("MSG", to=people.bob_id, content="x", message_id=identifier)
        mallory.say("MSG_ACK", message_id=identifier)
        mallory.say("READ", message_id=identifier, **{"from": people.bob_id})
        for _ in range(3):
            error = mallory.error("VALIDATION")
            assert error["details"]["field"] == "message_id"
            assert len(str(error)) < 1000
        people.leave(mallory)
    assert messages(bob, 0) == []


@pytest.mark.attack("message_id tricks")
@WHERE
def test_acknowledging_what_has_not_come(people: People) -> None:
    """In advance, while it waits for somebody else, in the name of others: it comes, and comes again."""
    bob, alice, mallory = people.bob(), people.sender(), people.sender()
    wrong = [{}, *({"from": each} for each in (alice.user_id, mallory.user_id, people.bob_id))]
    for sender in wrong:
        bob.say("MSG_ACK", message_id="later", **sender)
        mallory.say("MSG_ACK", message_id="later", **sender)
        if sender:
            bob.say("READ", message_id="later", **sender)
            mallory.say("READ", message_id="later", **sender)
    assert bob.everything() is not None
    assert mallory.everything() is not None
    send(alice, people.bob_id, "here it is", "later")
    assert messages(bob, 1) == [("later", "here it is")]
    for sender in wrong:
        mallory.say("MSG_ACK", message_id="later", **sender)
        alice.say("MSG_ACK", message_id="later", **sender)
        if sender.get("from") != alice.user_id and sender:
            bob.say("MSG_ACK", message_id="later", **sender)
            bob.say("READ", message_id="later", **sender)
    for client in (bob, mallory):
        client.everything()
    assert [kind for kind, _ in alice.everything() if kind == "MSG_ACK"] == []
    people.leave(bob)
    bob = people.bob()
    assert messages(bob, 1) == [("later", "here it is")]
    bob.say("MSG_ACK", message_id="later")
    alice.receive("MSG_ACK", message_id="later", status="delivered")


def large(to: str, content: str, message_id: str) -> bytes:
    """A MSG in one frame, in UTF-8, with a mask of zeros, since thousands of others would take their time here."""
    data = {"to": to, "content": content, "message_id": message_id}
    payload = json.dumps({"type": "MSG", "data": data}, ensure_ascii=False).encode()
    return struct.pack("!BBHI", 0x81, 0xFE, len(payload), 0) + payload


@pytest.mark.attack("message_id tricks")
@WHERE
def test_acknowledging_what_has_not_been_written_to_this_device(server: Server, people: People) -> None:
    """A device that does not read is given a part of what waits; what it guesses of the rest counts for nothing (D12)."""
    count, content = 1500, "\U0001f600" * 1000
    people.leave(people.bob())
    alice = people.sender()
    alice.send(b"".join(large(people.bob_id, content, f"{number}") for number in range(count)))
    for number in range(count):
        alice.receive("MSG_ACK", message_id=f"{number}", status="accepted")
    last = f"{count - 1}"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", server.port))
        deaf = RawClient(sock, people.bob_id)
        deaf.send(upgrade_request())
        assert deaf.response()[0] == 101
        deaf.hello()
        deaf.receive("MSG", message_id="0")
        deaf.say("MSG_ACK", message_id=last)
        deaf.say("MSG_ACK", message_id=last, **{"from": alice.user_id})
        deaf.say("MSG_ACK", message_id="0", **{"from": alice.user_id})
        alice.receive("MSG_ACK", message_id="0", status="delivered")
        assert [kind for kind, _ in alice.everything() if kind == "MSG_ACK"] == []
    bob = people.come(people.bob_id)
    assert bob.receive("MSG")["message_id"] == "1"
    assert bob.receive("MSG", message_id=last)["content"] == content
