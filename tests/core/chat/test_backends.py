"""``role: "service"`` (D34, D20): a backend writes to anybody without OPEN_CHAT, at limits of its own, and no share stops it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.auth.proof import Proof
from tests.core.noting import Noting
from tests.core.proven import LATER, ProvenPair, token

ONE, TWO, THREE = "first-id", "second-id", "third-id"


@pytest.fixture(params=[False, True], ids=["near", "far"])
def pair(request: pytest.FixtureRequest) -> ProvenPair:
    return ProvenPair(request.param)


def chats_of(pair: ProvenPair, user: str) -> list[str]:
    """Those with whom a user has a chat, as the store and memory have it."""
    user_in_memory = pair.world.shard_of(user).users.known.get(user)
    stored = list(pair.world.store_of(user).records[user].chats)
    assert user_in_memory is None or list(user_in_memory.chats) == stored
    return stored


def limited(device: Noting) -> int:
    """The limit that the only ERROR says was exceeded."""
    error = device.error()
    assert error["code"] == "RATE_LIMITED"
    assert 0.0 < error["details"]["retry_after"] <= 60.0
    return int(error["details"]["limit"])


# -- Without OPEN_CHAT --


def test_d34_the_first_message_opens_the_chat_on_both_sides(pair: ProvenPair) -> None:
    """D7: CHAT_OPENED comes before the message, and before its MSG_ACK, to all devices of both."""
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob, "Bob Ray")
    ann_too, bob_too = pair.prove(pair.ann, said="Ann Lee"), pair.prove(pair.bob, "Bob Ray")
    for device in (ann, bob):
        device.take()
    ann.msg(pair.bob, "Your parcel is here.", ONE)
    for device in (bob, bob_too):
        assert device.kinds() == ["CHAT_OPENED", "MSG"]
        opened = device.one("CHAT_OPENED")
        assert (opened["target_user_id"], opened["target_display_name"]) == (pair.ann, "Ann Lee")
        assert device.contents() == ["Your parcel is here."]
    assert ann.kinds() == ["CHAT_OPENED", "MSG_ACK"]
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"
    assert ann.statuses() == [(ONE, "delivered")]
    assert ann_too.kinds() == ["CHAT_OPENED"]
    bob.msg(pair.ann, "Thank you!")
    assert ann.contents() == ann_too.contents() == ["Thank you!"]
    ann_too.take()
    ann_too.msg(pair.bob, "It is open for good.", TWO)
    assert ann_too.statuses() == [(TWO, "delivered")]


def test_d34_who_is_offline_gets_the_chat_and_the_message_at_hello(pair: ProvenPair) -> None:
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    bob.leave()
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"m-{number}")
    assert ann.statuses() == [(f"m-{number}", "stored") for number in range(3)]
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    bob = pair.connect(pair.bob, Proof(LATER))
    bob.hello("Bob Ray")
    kinds = [kind for kind in bob.kinds() if kind != "PRESENCE"]
    assert kinds == ["HELLO_ACK", "CHAT_OPENED", "MSG", "MSG", "MSG"]
    assert bob.contents() == ["0", "1", "2"]


def test_d34_many_first_messages_at_once_open_one_chat(pair: ProvenPair) -> None:
    """In order (D18); and the same one twice is one message (D10)."""
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    for number in (0, 1, 1, 2):
        ann.msg(pair.bob, f"{number}", f"m-{number}", settle=False)
    pair.world.settle()
    assert bob.kinds() == ["CHAT_OPENED", "MSG", "MSG", "MSG"]
    assert bob.contents() == ["0", "1", "2"]
    assert ann.kinds().count("CHAT_OPENED") == 1
    assert sorted(ann.statuses()) == [(f"m-{number}", "delivered") for number in (0, 1, 1, 2)]


def test_d34_with_receipts_the_states_are_the_same_as_ever(pair: ProvenPair) -> None:
    ann, bob = pair.backend(pair.ann, "receipts"), pair.prove(pair.bob)
    ann.msg(pair.bob, "Hi <b>Bob</b>", ONE)
    assert ann.kinds() == ["CHAT_OPENED", "MSG_ACK"]
    assert ann.one("MSG_ACK") == {
        "message_id": ONE,
        "status": "accepted",
        "to": pair.bob,
        "content": "Hi Bob",
    }
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.one("MSG_ACK")["status"] == "delivered"


def test_d34_a_backend_writes_only_to_who_exists_and_not_to_itself(pair: ProvenPair) -> None:
    ann = pair.backend(pair.ann)
    ann.msg(pair.bob, message_id=ONE)
    error = ann.error()
    assert (error["code"], error["details"]["message_id"]) == ("USER_NOT_FOUND", ONE)
    ann.msg(pair.ann, message_id=TWO)
    error = ann.error()
    assert (error["code"], error["details"]["message_id"]) == ("CHAT_NOT_OPENED", TWO)
    assert chats_of(pair, pair.ann) == []
    assert ann.kinds() == []


def test_d34_without_the_role_a_chat_has_to_be_open(pair: ProvenPair) -> None:
    """Also on another connection of the same user: the role is the connection's."""
    pair.backend(pair.ann)
    ann, _ = pair.prove(pair.ann, "Ann Lee"), pair.prove(pair.bob)
    ann.msg(pair.bob)
    assert ann.errors() == ["CHAT_NOT_OPENED"]
    assert chats_of(pair, pair.bob) == []


def test_d34_the_role_comes_and_goes_with_the_token(pair: ProvenPair) -> None:
    ann, bob = pair.prove(pair.ann), pair.prove(pair.bob)
    ann.hello(token=token(pair.ann, role="service"))
    ann.take()
    ann.msg(pair.bob, message_id=ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    for role in (None, "Service", ["service"], "admin"):
        ann.hello(token=token(pair.ann, role=role))
        ann.take()
        ann.msg(pair.cat)
        assert ann.errors() == ["USER_NOT_FOUND"]
        pair.prove(pair.cat).leave()
        ann.msg(pair.cat)
        assert ann.errors() == ["CHAT_NOT_OPENED"]
        pair.world.store_of(pair.cat).forget(pair.cat)
        pair.world.settle()
        pair.world.shard_of(pair.cat).users.known.pop(pair.cat)
    assert bob.open


# -- Durable first (D20) --


def test_d20_d34_nothing_is_shown_before_both_sides_have_the_chat() -> None:
    pair = ProvenPair(True)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    theirs, ours = pair.world.store_of(pair.bob), pair.world.store_of(pair.ann)
    theirs.slow = ours.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    assert (ann.kinds(), bob.kinds()) == ([], [])
    theirs.slow = False
    pair.world.settle()
    assert (ann.kinds(), bob.kinds()) == ([], ["CHAT_OPENED", "MSG"])
    ours.slow = False
    pair.world.settle()
    assert ann.kinds() == ["CHAT_OPENED", "MSG_ACK"]
    assert ours.records[pair.ann].chats[pair.bob][2], "the store knows that Ann has written"


def test_d34_a_store_that_fails_opens_no_chat() -> None:
    """At the recipient's side the message is not confirmed, and the next one opens the chat after all."""
    pair = ProvenPair(True)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    pair.world.store_of(pair.bob).failure = "the disk is full"
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert bob.kinds() == []
    pair.world.store_of(pair.bob).failure = None
    ann.msg(pair.bob, "Hi.", ONE)
    assert bob.kinds() == ["CHAT_OPENED", "MSG"]
    assert ann.kinds() == ["CHAT_OPENED", "MSG_ACK"]


def test_d34_a_record_that_was_not_stored_at_the_senders_side_is_repaired() -> None:
    """The message is accepted all the same: it is stored, and who got it may answer."""
    pair = ProvenPair(True)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    pair.world.store_of(pair.ann).failure = "the disk is full"
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.kinds() == ["MSG_ACK"]
    assert bob.contents() == ["Hi."]
    pair.world.store_of(pair.ann).failure = None
    ann.take()
    bob.msg(pair.ann, "Hi!")
    assert ann.kinds() == ["CHAT_OPENED", "MSG"]
    assert chats_of(pair, pair.ann) == [pair.bob]


@pytest.mark.parametrize("stage", range(4))
def test_d34_a_worker_that_dies_on_the_way_loses_nothing(stage: int) -> None:
    """The next process of Bob's worker is asked again (D26), and still knows that the sender is a backend."""
    pair = ProvenPair(True)
    world = pair.world
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    bob.leave()
    ann.msg(pair.bob, "Hi.", ONE, settle=False)
    steps: list[Any] = [lambda: world.turn(0), lambda: world.carry(0, 1), lambda: world.turn(1)]
    for step in steps[:stage]:
        step()
    world.restart(1)
    world.settle()
    assert ann.statuses() == [(ONE, "stored")]
    bob = pair.connect(pair.bob, Proof(LATER))
    bob.hello("Bob Ray")
    assert bob.contents() == ["Hi."]
    assert chats_of(pair, pair.ann) == [pair.bob]
    assert chats_of(pair, pair.bob) == [pair.ann]


# -- Limits of its own (D23) --


def test_d34_messages_of_backends_have_their_own_limit() -> None:
    pair = ProvenPair(True, messages_per_minute=2, service_messages_per_minute=4)
    backend, ann, bob = pair.backend(pair.ann), pair.prove(pair.ann), pair.prove(pair.bob)
    for number in range(4):
        backend.msg(pair.bob, f"{number}")
    backend.take()
    backend.msg(pair.bob)
    assert limited(backend) == 4
    for number in range(2):
        ann.msg(pair.bob, f"person {number}")
    ann.take()
    ann.msg(pair.bob)
    assert limited(ann) == 2
    assert len(bob.contents()) == 6
    pair.backend(pair.ann).msg(pair.bob)
    assert len(bob.contents()) == 0, "another connection, and the same user"
    pair.world.pass_time(60.0, 1.0)
    backend.msg(pair.bob)
    assert len(bob.contents()) == 1


@pytest.mark.parametrize("kind", ["OPEN_CHAT", "TYPING", "HISTORY"])
def test_d34_what_else_a_backend_does_is_counted_by_itself(kind: str) -> None:
    commands: dict[str, dict[str, Any]] = {
        "OPEN_CHAT": {"target_display_name": "Whoever"},
        "TYPING": {"is_typing": True},
        "HISTORY": {},
    }
    said = commands[kind]
    field = {"OPEN_CHAT": "target_user_id", "TYPING": "to", "HISTORY": "with"}[kind]
    pair = ProvenPair(
        True,
        **{f"{limit}_per_minute": 2 for limit in ("open_chats", "typing", "history")},
        **{f"service_{limit}_per_minute": 3 for limit in ("open_chats", "typing", "history")},
    )
    backend = pair.backend(pair.ann, "history")
    ann = pair.prove(pair.ann, capabilities=["history"])
    pair.prove(pair.bob)
    backend.msg(pair.bob)
    for device, limit in ((backend, 3), (ann, 2)):
        for _ in range(limit):
            device.say(kind, **said, **{field: pair.bob})
            assert not device.errors()
        device.take()
        device.say(kind, **said, **{field: pair.bob})
        assert limited(device) == limit


def test_d34_zero_is_no_limit() -> None:
    pair = ProvenPair(True, messages_per_minute=1, service_messages_per_minute=0)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    for number in range(200):
        ann.msg(pair.bob, f"{number}", settle=False)
        if number % 50 == 49:
            pair.world.settle()
    assert ann.errors() == []
    assert len(bob.contents()) == 200


def test_d34_a_message_over_the_limit_opens_no_chat() -> None:
    """Nor does it tell anybody of a chat, then or later; and one that had been accepted is recognised as ever (D10)."""
    pair = ProvenPair(True, service_messages_per_minute=1)
    ann, bob, cat = pair.backend(pair.ann), pair.prove(pair.bob), pair.prove(pair.cat)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    ann.msg(pair.cat, "Hi.", TWO)
    assert limited(ann) == 1
    assert chats_of(pair, pair.cat) == []
    assert cat.kinds() == []
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["Hi."]


def test_d34_a_repeat_of_the_first_message_is_recognised_while_that_is_stored() -> None:
    pair = ProvenPair(True, service_messages_per_minute=1)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    ann.msg(pair.bob, "Hi.", ONE)
    store.slow = False
    pair.world.settle()
    assert ann.errors() == []
    assert ann.statuses() == [(ONE, "delivered")] * 2
    assert bob.contents() == ["Hi."]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.0, 25.0)), max_size=40))
def test_d34_no_60_seconds_hold_more_than_each_limit(sent: list[tuple[bool, float]]) -> None:
    """Of what each kind of connection of one user sends, whatever the other one does; and nothing is refused that was allowed."""
    pair = ProvenPair(True, messages_per_minute=2, service_messages_per_minute=4)
    devices = {True: pair.backend(pair.ann), False: pair.prove(pair.ann)}
    pair.prove(pair.bob)
    devices[True].open_chat(pair.bob)
    counted: dict[bool, list[float]] = {True: [], False: []}
    for is_backend, wait in sent:
        pair.world.now += wait
        device, times = devices[is_backend], counted[is_backend]
        device.take()
        device.msg(pair.bob)
        now = pair.world.now
        recent = [time for time in times if time > now - 60.0]
        if len(recent) < (4 if is_backend else 2):
            assert device.kinds() == ["MSG_ACK"]
            times.append(now)
        else:
            assert device.errors() == ["RATE_LIMITED"]


# -- From one process to the next --


@pytest.mark.parametrize("how", ["successor", "other workers", "kept"])
def test_d34_role_and_counts_go_on(how: str) -> None:
    """At a reload, when users move to other workers, and at an orderly end; in the last case the connection is a new one."""
    pair = ProvenPair(True, messages_per_minute=1, service_messages_per_minute=3)
    world = pair.world
    ann = pair.backend(pair.ann)
    bob, cat = pair.prove(pair.bob), pair.prove(pair.cat)
    ann.msg(pair.bob)
    ann.msg(pair.bob)
    world.pass_time(8.0, 0.5)
    if how == "successor":
        world.succeed(0)
    elif how == "other workers":
        world.resize(3)
    else:
        kept = world.shard_of(pair.ann).kept_limits(world.now)
        world.restart(0)
        world.shard_of(pair.ann).remember_limits(kept, world.now)
        ann = pair.backend(pair.ann)
    ann.take()
    ann.msg(pair.cat, "Without a chat.", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    assert cat.contents() == ["Without a chat."]
    ann.msg(pair.bob)
    assert limited(ann) == 3
    person = pair.prove(pair.ann)
    person.msg(pair.bob, message_id=TWO)
    assert person.statuses() == [(TWO, "delivered")]
    assert bob.open


def test_d34_a_record_of_the_version_before_has_no_role() -> None:
    pair = ProvenPair(True)
    ann = pair.backend(pair.ann)
    pair.prove(pair.bob)
    pair.world.pass_time(8.0, 0.5)

    def older(taken: Any) -> None:
        for record, _ in taken:
            for session in record.get("sessions", []):
                session.pop("service")

    pair.world.succeed(0, older)
    ann.msg(pair.bob)
    assert ann.errors() == ["CHAT_NOT_OPENED"]


# -- Mailboxes (D20) --


def fill(device: Noting, peer: str, count: int) -> list[str]:
    """Send so many messages, one by one: the status of each, or what of the mailbox is full."""
    outcomes = []
    for _ in range(count):
        device.msg(peer)
        statuses = [status for _, status in device.statuses()]
        outcomes += statuses or [device.error()["details"]["share"]]
    return outcomes


def test_d20_d34_no_share_stops_a_backend_and_a_full_mailbox_does() -> None:
    pair = ProvenPair(True, mailbox_max=20)
    ann, bob = pair.backend(pair.ann), pair.prove(pair.bob)
    bob.leave()
    assert fill(ann, pair.bob, 22) == ["stored"] * 20 + ["mailbox"] * 2
    assert pair.world.shard_of(pair.bob).users[pair.bob].mailbox.head == 20


def test_d20_d34_people_have_their_shares_beside_a_backend() -> None:
    """Its messages wait like those of anybody to whom the user has never written, so they leave strangers less room."""
    pair = ProvenPair(True, mailbox_max=20)
    ann, cat, bob = pair.backend(pair.ann), pair.prove(pair.cat), pair.prove(pair.bob)
    cat.open_chat(pair.bob)
    bob.leave()
    cat.take()
    assert fill(cat, pair.bob, 3) == ["stored", "stored", "sender"]
    assert fill(ann, pair.bob, 10) == ["stored"] * 10
    pair.world.pass_time(61.0, 1.0)
    bob = pair.connect(pair.bob, Proof(LATER))
    bob.hello("Bob Ray")
    for message in bob.take("MSG"):
        if message["from"] == pair.cat:
            bob.say("MSG_ACK", message_id=message["message_id"])
    bob.leave()
    assert fill(cat, pair.bob, 1) == ["strangers"]
    assert fill(ann, pair.bob, 11) == ["stored"] * 10 + ["mailbox"]


def test_d20_d34_a_full_mailbox_gets_no_chat() -> None:
    pair = ProvenPair(True, mailbox_max=1)
    ann, cat, bob = pair.backend(pair.ann), pair.prove(pair.cat), pair.prove(pair.bob)
    cat.open_chat(pair.bob)
    bob.leave()
    cat.take()
    assert fill(cat, pair.bob, 1) == ["stored"]
    assert fill(ann, pair.bob, 1) == ["mailbox"]
    assert chats_of(pair, pair.bob) == [pair.cat]
    assert chats_of(pair, pair.ann) == []


def test_d18_d34_a_backend_waits_while_the_store_is_asked_whose_messages_wait() -> None:
    """What comes while shares are counted must not slip past: the counts would be wrong, and the order that of nobody."""
    pair = ProvenPair(True, mailbox_max=20)
    ann, cat, bob = pair.backend(pair.ann), pair.prove(pair.cat), pair.prove(pair.bob)
    cat.open_chat(pair.bob)
    bob.leave()
    cat.take()
    assert fill(ann, pair.bob, 5) == ["stored"] * 5
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    cat.msg(pair.bob, "from Cat", "cat")
    ann.msg(pair.bob, "from Ann", "ann")
    assert (cat.kinds(), ann.statuses()) == ([], [])
    store.slow_reads = False
    pair.world.settle()
    assert cat.statuses() == [("cat", "stored")]
    assert ann.statuses() == [("ann", "stored")]
    bob = pair.connect(pair.bob, Proof(LATER))
    bob.hello("Bob Ray")
    messages = bob.take("MSG")
    assert [message["content"] for message in messages][-2:] == ["from Cat", "from Ann"]
    for message in messages:
        bob.say("MSG_ACK", message_id=message["message_id"])
    shares = pair.world.shard_of(pair.bob).users[pair.bob].mailbox.shares
    assert shares is not None
    assert (shares.of_strangers, shares._counts) == (0, {})
