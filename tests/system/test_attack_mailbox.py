"""Somebody else's mailbox, with FASTCHAT_AUTH=jwt: only the bearer of a user's token reads, acknowledges and writes as that user.

And what holds with `none` all the same. Alice's messages to Bob, and Bob's to Alice, are what Mallory is after.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from tests.core.token_forge import SECRET, forge
from tests.system.harness import Server, user_on_worker
from tests.system.raw_client import CONTINUATION, TEXT, RawClient, client_frame, message
from tests.system.servers import shared_server

CAPABILITIES: Final = ["carbons", "history", "receipts", "resume"]
WHERE: Final = pytest.mark.parametrize("where", ["same shard", "other shard"])


@pytest.fixture(scope="module")
def guarded(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants tokens."""
    settings: dict[str, Any] = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway": 0, "history_per_minute": 0}
    with shared_server(pytestconfig, tmp_path_factory, workers=2, **settings) as server:
        yield server


def token(user: str, seconds: float = 600.0) -> str:
    return forge({"sub": user, "exp": time.time() + seconds}, SECRET)


def come(server: Server, user: str, name: str, **hello: Any) -> RawClient:
    """A device of this user, who has a right to be it."""
    client = RawClient.upgraded(server.port, user, name)
    client.hello(token=token(user), capabilities=CAPABILITIES, **hello)
    return client


def open_chat(client: RawClient, peer: str) -> None:
    client.say("OPEN_CHAT", target_user_id=peer, target_display_name="Somebody")
    client.receive("CHAT_OPENED", target_user_id=peer)


def history(client: RawClient, peer: str) -> list[tuple[str, str, str]]:
    """Sender, id and content of all messages, oldest first."""
    client.say("HISTORY", **{"with": peer})
    page = client.receive("HISTORY")
    assert page["next"] is None
    return [(each["from"], each["message_id"], each["content"]) for each in page["messages"]][::-1]


class Victims(NamedTuple):
    """Alice, who is away, and Bob, who is there; what they have written to each other, and what Mallory has found of it somehow."""

    alice: str
    bob: str
    #: Where Alice's mailbox began, and where it is now.
    cursors: list[str]
    written: list[tuple[str, str, str]]


def victims(server: Server, bob: RawClient) -> Victims:
    """Alice acknowledges `old`; `new-1` and `new-2` wait for her. `to-bob` has come to Bob, who has not acknowledged it."""
    alice_id = user_on_worker(0, server.workers)
    with come(server, alice_id, "Alice") as alice:
        alice.say("HELLO", user_id=alice_id, display_name="Alice", capabilities=CAPABILITIES)
        cursors = [alice.receive("HELLO_ACK")["cursor"]]
        open_chat(alice, bob.user_id)
        bob.say("MSG", to=alice_id, content="secret: old", message_id="old")
        cursors.append(alice.receive("MSG", message_id="old")["cursor"])
        alice.say("MSG_ACK", message_id="old", **{"from": bob.user_id})
        bob.receive("MSG_ACK", message_id="old", status="delivered")
        alice.say("MSG", to=bob.user_id, content="secret: to Bob", message_id="to-bob")
        alice.receive("MSG_ACK", message_id="to-bob", status="accepted")
        bob.receive("MSG", message_id="to-bob")
    for identifier in ("new-1", "new-2"):
        bob.say("MSG", to=alice_id, content=f"secret: {identifier}", message_id=identifier)
        bob.receive("MSG_ACK", message_id=identifier, status="accepted")
    bob.everything()
    written = [(bob.user_id, "old", "secret: old"), (alice_id, "to-bob", "secret: to Bob")]
    written += [(bob.user_id, each, f"secret: {each}") for each in ("new-1", "new-2")]
    return Victims(alice_id, bob.user_id, cursors, written)


def assert_untouched(server: Server, bob: RawClient, them: Victims) -> None:
    """What waited for Alice still waits, in order; Bob was told nothing; both read the same as before; and nobody else wrote to them."""
    told = [(kind, data) for kind, data in bob.everything() if kind != "PRESENCE"]
    assert told == [], "something reached Bob"
    for identifier in ("new-1", "new-2"):
        bob.say("MSG", to=them.alice, content=f"secret: {identifier}", message_id=identifier)
        # `accepted` is what it was: neither delivered nor read.
        bob.receive("MSG_ACK", message_id=identifier, status="accepted")
    with come(server, them.alice, "Alice") as alice:
        for identifier in ("new-1", "new-2"):
            assert alice.receive("MSG")["message_id"] == identifier
        assert history(alice, them.bob) == history(bob, them.alice) == them.written
        came = [kind for kind, _ in alice.everything()]
        # A chat that no device of hers has confirmed is told again (D7).
        assert set(came) <= {"PRESENCE", "CHAT_OPENED"}, "something else reached Alice"
        alice.say("MSG", to=them.bob, content="secret: to Bob", message_id="to-bob")
        alice.receive("MSG_ACK", message_id="to-bob", status="accepted")
    with come(server, them.bob, "Bob") as again:
        again.receive("MSG", message_id="to-bob")


def assert_learned_nothing(mallory: RawClient, *names: str) -> None:
    """Nothing of what Alice and Bob have written came, and nobody took Mallory for one of them."""
    for kind, data in mallory.everything():
        assert kind != "MSG", data
        assert "secret" not in str(data), (kind, data)
        assert kind != "HELLO_ACK" or data["user_id"] == mallory.user_id


@pytest.fixture
def scene(guarded: Server, where: str) -> Iterator[tuple[RawClient, Victims, str]]:
    """Bob, what he and Alice have, and the id of Mallory, who lives where Alice does or elsewhere."""
    with come(guarded, user_on_worker(1, 2), "Bob") as bob:
        yield bob, victims(guarded, bob), user_on_worker(0 if where == "same shard" else 1, 2)


@pytest.mark.attack("another's mailbox")
@WHERE
def test_resuming_behind_anothers_cursor(guarded: Server, scene: tuple[RawClient, Victims, str]) -> None:
    """A cursor is a place in one's own mailbox, whoever it was made for."""
    bob, them, mallory_id = scene
    for cursor in (*them.cursors, "0.0", ""):
        with RawClient.upgraded(guarded.port, mallory_id, "Mallory") as mallory:
            resume = {"cursor": cursor, "user_id": them.alice}
            ack = mallory.hello(token=token(mallory_id), capabilities=CAPABILITIES, resume=resume)
            assert (ack["user_id"], ack["resumed"]) == (mallory_id, "reset")
            assert_learned_nothing(mallory)
    assert_untouched(guarded, bob, them)


@pytest.mark.attack("another's mailbox")
@WHERE
@pytest.mark.parametrize("acquainted", [False, True], ids=["a stranger", "with a chat with each"])
def test_reading_and_acknowledging_what_is_anothers(
    guarded: Server, scene: tuple[RawClient, Victims, str], acquainted: bool
) -> None:
    """HISTORY, MSG_ACK, READ and TYPING mean one's own chats and mailbox, whatever else stands beside them."""
    bob, them, mallory_id = scene
    with come(guarded, mallory_id, "Mallory") as mallory:
        if acquainted:
            open_chat(mallory, them.alice)
            open_chat(mallory, them.bob)
            bob.receive("CHAT_OPENED", target_user_id=mallory_id)
        for name, peer in (("alice", them.alice), ("bob", them.bob)):
            for more in ({}, {"user_id": them.alice}, {"from": them.bob}, {"before": "9.9"}, {"of": name}):
                mallory.say("HISTORY", **{"with": peer, **more})
                if acquainted:
                    assert mallory.receive("HISTORY")["messages"] == []
                else:
                    assert mallory.error("CHAT_NOT_OPENED")["details"]["field"] == "with"
        for identifier in ("old", "new-1", "new-2", "to-bob"):
            for sender in (them.alice, them.bob, them.alice.upper(), mallory_id):
                for kind in ("MSG_ACK", "READ"):
                    mallory.say(kind, message_id=identifier, to=them.alice, **{"from": sender})
                    mallory.say(kind, message_id=identifier, user_id=them.alice, **{"from": sender})
            mallory.say("MSG_ACK", message_id=identifier)
        mallory.say("TYPING", is_typing=True, to=mallory_id, user_id=them.alice)
        mallory.error("CHAT_NOT_OPENED")
        assert_learned_nothing(mallory)
        if acquainted:
            # Alice will be told of the chat, which is all.
            with come(guarded, them.alice, "Alice") as alice:
                alice.receive("CHAT_OPENED", target_user_id=mallory_id)
    assert_untouched(guarded, bob, them)


@pytest.mark.attack("another's mailbox", "impersonation")
@WHERE
def test_saying_hello_as_another(guarded: Server, scene: tuple[RawClient, Victims, str]) -> None:
    """With no token, one's own, one of the other that is over; first, and again on a connection that one has a right to."""
    bob, them, mallory_id = scene
    expired = token(them.alice, -1.0)
    for proof in ({}, {"token": token(mallory_id)}, {"token": expired}, {"token": None}, {"token": ""}):
        for first in (True, False):
            with RawClient.upgraded(guarded.port, mallory_id, "Mallory") as mallory:
                if not first:
                    mallory.hello(token=token(mallory_id), capabilities=CAPABILITIES)
                claim = {"user_id": them.alice, "display_name": "Alice", "capabilities": CAPABILITIES}
                resume = {"cursor": them.cursors[0]}
                for _ in range(2):
                    mallory.say("HELLO", **claim, **proof, resume=resume)
                    assert mallory.error("UNAUTHORIZED")["details"]["type"] == "HELLO"
                mallory.say("HISTORY", **{"with": them.bob})
                mallory.error("UNAUTHORIZED" if first else "CHAT_NOT_OPENED")
                assert_learned_nothing(mallory)
    # What came with the upgrade is what counts there, for that user only.
    bearer = {"Authorization": f"Bearer {token(mallory_id)}"}
    with RawClient.upgraded(guarded.port, them.alice, "Alice", **bearer) as mallory:
        mallory.send(mallory.hello_bytes())
        assert mallory.error("UNAUTHORIZED")["details"]["reason"] == "subject"
    assert_untouched(guarded, bob, them)


@pytest.mark.attack("another's mailbox", "impersonation")
@WHERE
def test_the_token_of_another_opens_no_connection_of_ones_own(
    guarded: Server, scene: tuple[RawClient, Victims, str]
) -> None:
    """A valid token of Alice's proves nobody else; and on Mallory's connection not even Alice."""
    bob, them, mallory_id = scene
    with RawClient.upgraded(guarded.port, mallory_id, "Mallory") as mallory:
        mallory.send(mallory.hello_bytes(token=token(them.alice)))
        assert mallory.error("UNAUTHORIZED")["details"]["reason"] == "subject"
        mallory.hello(token=token(mallory_id))
        mallory.say("HELLO", user_id=them.alice, display_name="Alice", token=token(them.alice))
        assert mallory.error("UNAUTHORIZED")["details"]["field"] == "user_id"
        assert_learned_nothing(mallory)
    assert_untouched(guarded, bob, them)


@pytest.mark.attack("another's mailbox", "impersonation", "duplicate keys")
@WHERE
def test_hellos_in_one_segment(guarded: Server, scene: tuple[RawClient, Victims, str]) -> None:
    """The front sees one of them, the worker the others: two HELLOs, one in fragments, one with two user ids."""
    bob, them, mallory_id = scene
    mine = {"user_id": mallory_id, "display_name": "Mallory", "token": token(mallory_id)}
    hers = mine | {"user_id": them.alice, "capabilities": CAPABILITIES, "resume": {"cursor": them.cursors[0]}}
    own, other = message("HELLO", **mine), message("HELLO", **hers)
    asking = client_frame(TEXT, message("HISTORY", **{"with": them.bob}))

    def both(first: str, last: str) -> bytes:
        """A HELLO with two user ids; and Mallory's token."""
        ids = f'"user_id":"{first}","display_name":"Mallory","user_id":"{last}"'
        return f'{{"type":"HELLO","data":{{{ids},"token":"{mine["token"]}"}}}}'.encode()

    def pieces(payload: bytes) -> bytes:
        return client_frame(TEXT, payload[:30], fin=False) + client_frame(CONTINUATION, payload[30:])

    for frames, refusals in (
        (client_frame(TEXT, own) + client_frame(TEXT, other), 1),
        (client_frame(TEXT, other) + client_frame(TEXT, own), 1),
        (client_frame(TEXT, other) + client_frame(TEXT, own) + client_frame(TEXT, other), 2),
        (pieces(own) + pieces(other), 1),
        (pieces(other) + pieces(own), 1),
        (client_frame(TEXT, both(them.alice, mallory_id)) + client_frame(TEXT, other), 1),
        (pieces(both(them.alice, mallory_id)) + client_frame(TEXT, other), 1),
        (client_frame(TEXT, both(mallory_id, them.alice)) + client_frame(TEXT, own), 1),
        (pieces(both(mallory_id, them.alice)) + pieces(own), 1),
    ):
        with RawClient.upgraded(guarded.port, mallory_id, "Mallory") as mallory:
            mallory.send(frames + asking)
            kinds: list[str] = []
            while len(kinds) < refusals + 2:  # and HELLO_ACK, and the refused HISTORY
                came = mallory.frame()
                kind, data = came.message() if came.opcode == TEXT else ("", {})
                assert kind in ("HELLO_ACK", "PRESENCE", "ERROR"), (kind, data)
                assert "secret" not in str(data)
                if kind == "HELLO_ACK":
                    assert data["user_id"] == mallory_id
                if kind != "PRESENCE":
                    kinds.append(data.get("code", kind))
            assert sorted(kinds) == sorted(["HELLO_ACK", *["UNAUTHORIZED"] * refusals, "VALIDATION"])
            assert_learned_nothing(mallory)
    assert_untouched(guarded, bob, them)


@pytest.mark.attack("impersonation", "another's mailbox")
@WHERE
def test_writing_and_opening_in_anothers_name(guarded: Server, scene: tuple[RawClient, Victims, str]) -> None:
    """Whatever stands in the message: it is Mallory who opened, wrote and types."""
    bob, them, mallory_id = scene
    forged = {"from": them.alice, "user_id": them.alice, "sender": them.alice, "display_name": "Alice"}
    with come(guarded, mallory_id, "Mallory") as mallory:
        mallory.say("MSG", to=them.bob, content="it is me, Alice", message_id="x", **forged)
        mallory.error("CHAT_NOT_OPENED")
        mallory.say(
            "OPEN_CHAT",
            target_user_id=them.bob,
            target_display_name="Bob",
            participants=[them.alice, them.bob],
            opener=them.alice,
            **forged,
        )
        assert mallory.receive("CHAT_OPENED")["participants"] == sorted([mallory_id, them.bob])
        opened = bob.receive("CHAT_OPENED")
        assert (opened["target_user_id"], opened["target_display_name"]) == (mallory_id, "Mallory")
        mallory.say("MSG", to=them.bob, content="it is me, Alice", message_id="x", **forged)
        assert bob.receive("MSG")["from"] == mallory_id
        mallory.receive("MSG_ACK", message_id="x")
        bob.say("MSG_ACK", message_id="x", **{"from": mallory_id})
        mallory.receive("MSG_ACK", message_id="x", status="delivered")
        mallory.say("TYPING", is_typing=True, **forged)
        assert bob.receive("TYPING")["user_id"] == mallory_id
        mallory.say("TYPING", is_typing=False)
        assert bob.receive("TYPING")["user_id"] == mallory_id
        # Only Mallory's own mailbox can get something in it that Alice is said to have sent.
        mallory.say("MSG", to=mallory_id, content="from Alice", **{"from": them.alice})
        mallory.error("CHAT_NOT_OPENED")
        assert_learned_nothing(mallory)
    assert_untouched(guarded, bob, them)


# -- Without tokens: identity is not proven, as SECURITY.md says, and yet --


@pytest.mark.attack("impersonation")
@WHERE
def test_without_tokens_a_connection_has_one_user(server: Server, where: str) -> None:
    """The one of its first HELLO, also when the second comes in the same segment; and `from` is that one."""
    mallory_id = user_on_worker(0, 2)
    alice_id = user_on_worker(0 if where == "same shard" else 1, 2)
    with RawClient.upgraded(server.port, mallory_id) as mallory, RawClient.upgraded(server.port) as bob:
        bob.hello()
        mallory.send(
            mallory.hello_bytes()
            + client_frame(TEXT, message("HELLO", user_id=alice_id, display_name="Alice"))
            + client_frame(TEXT, message("OPEN_CHAT", target_user_id=bob.user_id, target_display_name="Bob"))
            + client_frame(TEXT, message("MSG", to=bob.user_id, content="Alice here", **{"from": alice_id}))
        )
        assert mallory.receive("HELLO_ACK")["user_id"] == mallory_id
        assert mallory.error("UNAUTHORIZED")["details"]["field"] == "user_id"
        assert bob.receive("CHAT_OPENED")["target_user_id"] == mallory_id
        assert bob.receive("MSG")["from"] == mallory_id
