"""core.chat.messages: the way of one message (D9, D10, D11, D18, D20); what counts against the limit is in test_message_limit."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from core.chat.user import Message
from tests.core.pair import Pair
from tests.core.world import TIMESTAMP

ONE, TWO = "first-id", "second-id"


def test_a_message_arrives_as_the_document_says(pair: Pair) -> None:
    """`from` is stamped by the server, the time is the server's, and all else is what the sender gave."""
    ann, bob = pair.chatting()
    ann.say("MSG", to=pair.bob, content="Hi Bob!", message_id=ONE, **{"from": pair.cat, "timestamp": "1970"})
    assert bob.one("MSG") == {
        "from": pair.ann,
        "to": pair.bob,
        "content": "Hi Bob!",
        "message_id": ONE,
        "timestamp": TIMESTAMP.decode(),
    }
    assert ann.one("MSG_ACK") == {"message_id": ONE, "status": "delivered"}
    assert not ann.inbox
    assert not bob.inbox


def test_d19_the_time_of_a_message_is_when_the_server_took_it(pair: Pair) -> None:
    """Not when it was delivered; all that see it see the same time, and PONG has the server's time too."""
    ann, bob = pair.chatting()
    bob.leave()
    pair.world.clock.now = b"2024-02-29T23:59:59.999Z"
    ann.msg(pair.bob)
    ann.say("PING")
    assert ann.one("PONG") == {"timestamp": "2024-02-29T23:59:59.999Z"}
    pair.world.clock.now = b"2024-03-01T00:00:07.000Z"
    for _ in range(2):
        assert pair.world.device(pair.bob).hello().one("MSG")["timestamp"] == "2024-02-29T23:59:59.999Z"


def test_a_message_may_name_its_recipient_in_any_case(pair: Pair) -> None:
    """D1: any case in, lower case out."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob.upper(), "Hi.")
    assert bob.one("MSG")["to"] == pair.bob


def test_a_message_reaches_all_devices_of_the_recipient(pair: Pair) -> None:
    """D4; and none of the sender's."""
    ann, bob = pair.chatting()
    bob_too, ann_too = pair.online(pair.bob, pair.ann)
    ann.msg(pair.bob, "Hi.")
    assert bob.contents() == bob_too.contents() == ["Hi."]
    assert not ann_too.inbox


# -- D9 --


def test_d9_a_recipient_who_was_never_here(pair: Pair) -> None:
    (ann,) = pair.online(pair.ann)
    ann.msg(pair.bob, message_id=ONE)
    error = ann.error()
    assert error["code"] == "USER_NOT_FOUND"
    assert error["details"] == {"type": "MSG", "field": "to", "message_id": ONE}
    assert not ann.inbox, "an ERROR is the only answer"


def test_d9_a_recipient_without_an_open_chat(pair: Pair) -> None:
    """Nothing arrives, nothing is stored, and nobody's chats change."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.msg(pair.bob, message_id=ONE)
    error = ann.error()
    assert error["code"] == "CHAT_NOT_OPENED"
    assert error["details"] == {"type": "MSG", "field": "to", "message_id": ONE}
    assert not bob.inbox
    bob.leave()
    assert pair.world.device(pair.bob).hello().kinds() == ["HELLO_ACK", "PRESENCE"]


def test_d9_a_chat_with_somebody_else_is_no_chat_with_this_one(pair: Pair) -> None:
    ann, _ = pair.chatting()
    pair.online(pair.cat)
    ann.msg(pair.cat)
    assert ann.errors() == ["CHAT_NOT_OPENED"]


def test_d9_a_known_recipient_who_is_away_gets_it_at_the_next_hello(pair: Pair) -> None:
    """Stored, in order, and delivered once the recipient is back."""
    ann, bob = pair.chatting()
    bob.leave()
    ann.msg(pair.bob, "one", ONE)
    ann.msg(pair.bob, "two", TWO)
    assert ann.statuses() == [(ONE, "stored"), (TWO, "stored")]
    assert pair.world.device(pair.bob).hello().contents() == ["one", "two"]


# -- D10 --


def test_d10_a_message_without_an_id_gets_a_uuid4(pair: Pair) -> None:
    """A new one each time, the same in MSG_ACK and in what the recipient gets."""
    ann, bob = pair.chatting()
    for _ in range(3):
        ann.msg(pair.bob, "Same words.")
    ids = [ack["message_id"] for ack in ann.take("MSG_ACK")]
    assert ids == [message["message_id"] for message in bob.take("MSG")]
    assert len(set(ids)) == 3
    assert all(
        uuid.UUID(message_id).version == 4 and str(uuid.UUID(message_id)) == message_id for message_id in ids
    )


def test_d10_a_null_id_is_no_id(pair: Pair) -> None:
    ann, _ = pair.chatting()
    ann.say("MSG", to=pair.bob, content="Hi.", message_id=None)
    assert uuid.UUID(ann.one("MSG_ACK")["message_id"]).version == 4


def test_d10_a_repeat_is_answered_with_the_current_status_and_not_delivered_again(pair: Pair) -> None:
    """A client that is not sure sends again, as often as it likes."""
    ann, bob = pair.chatting()
    bob.leave()
    for _ in range(3):
        ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "stored")] * 3
    bob = pair.world.device(pair.bob).hello()
    assert bob.contents() == ["Hi."]
    for _ in range(3):
        ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")] * 3
    assert not bob.take("MSG")


def test_d10_a_repeat_of_an_acknowledged_message_is_still_a_repeat(pair: Pair) -> None:
    """The recipient has it and said so; it must not come twice even now, or to another device."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("MSG_ACK", message_id=ONE)
    bob.leave()
    ann.take()
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    assert pair.world.device(pair.bob).hello().contents() == []


def test_d10_a_repeat_is_recognised_at_another_time_of_day(pair: Pair) -> None:
    """What is compared is what the client sent, not when."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    pair.world.clock.now = b"2024-01-01T12:00:07.345Z"
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")] * 2
    assert [message["timestamp"] for message in bob.take("MSG")] == [TIMESTAMP.decode()]


def test_d10_a_repeat_from_another_device_or_connection_is_a_repeat(pair: Pair) -> None:
    """Ids are the user's, not the connection's: that is what makes a resend after a reconnect safe."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    ann.leave()
    ann, ann_too = pair.online(pair.ann, pair.ann)
    ann.msg(pair.bob, "Hi.", ONE)
    ann_too.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == ann_too.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["Hi."]


def test_d10_a_repeat_while_the_first_is_not_committed_waits_for_the_same_outcome(pair: Pair) -> None:
    """Delivered once, answered as often as sent, and not before it is durable."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    for _ in range(3):
        ann.msg(pair.bob, "Hi.", ONE)
    assert not ann.inbox
    assert not bob.inbox
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(ONE, "delivered")] * 3
    assert bob.contents() == ["Hi."]


def test_d10_a_repeat_of_one_that_the_store_could_not_take_is_a_new_message(pair: Pair) -> None:
    """All that waited for it are told that it failed; then the same id works."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow, store.failure = True, "disk full"
    ann.msg(pair.bob, "Hi.", ONE)
    ann.msg(pair.bob, "Hi.", ONE)
    store.slow = False
    pair.world.settle()
    assert ann.errors() == ["MESSAGE_FAILED"] * 2
    store.failure = None
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["Hi."]


@pytest.mark.parametrize("committed", [True, False])
def test_d10_the_same_id_with_another_content_is_refused(pair: Pair, committed: bool) -> None:
    """An id names one message; the first one stands."""
    ann, bob = pair.chatting()
    pair.world.stores[pair.world.placement.worker_of(pair.bob)].slow = not committed
    ann.msg(pair.bob, "Yes.", ONE)
    ann.msg(pair.bob, "No.", ONE)
    pair.world.stores[pair.world.placement.worker_of(pair.bob)].slow = False
    pair.world.settle()
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == "message_id"
    assert error["details"]["message_id"] == ONE
    assert bob.contents() == ["Yes."]
    assert ann.statuses() == [(ONE, "delivered")]


def test_d10_the_stored_message_stands_against_one_that_is_still_being_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is no longer in memory; the second takes its id, and a repeat of the first comes before that is decided."""
    monkeypatch.setattr("core.chat.mailbox.CACHE_MAX", 0)
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Yes.", ONE)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "No.", ONE)
    ann.msg(pair.bob, "Yes.", ONE)
    store.slow = False
    pair.world.settle()
    assert ann.errors() == ["VALIDATION"]
    assert ann.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["Yes."]


def test_d10_content_is_compared_after_sanitising(pair: Pair) -> None:
    """What would be delivered is the same, so it is the same message."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    ann.msg(pair.bob, "<b>Hi.</b>", ONE)
    assert ann.statuses() == [(ONE, "delivered")] * 2
    assert bob.contents() == ["Hi."]


def test_d10_one_id_for_two_recipients_names_two_messages(pair: Pair) -> None:
    """Even with different contents: an id is only compared within (sender, recipient)."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    ann.open_chat(pair.cat)
    ann.take()
    cat.take()
    ann.msg(pair.bob, "Dear Bob", ONE)
    ann.msg(pair.cat, "Dear Cat", ONE)
    assert ann.statuses() == [(ONE, "delivered")] * 2
    assert bob.contents() == ["Dear Bob"]
    assert cat.contents() == ["Dear Cat"]


def test_d10_one_id_from_two_senders_names_two_messages(pair: Pair) -> None:
    """Clients that number their messages 1, 2, 3 do not get into each other's way."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    cat.take()
    bob.take()
    ann.msg(pair.bob, "from Ann", "1")
    cat.msg(pair.bob, "from Cat", "1")
    bob.msg(pair.ann, "from Bob", "1")
    assert bob.contents() == ["from Ann", "from Cat"]
    assert ann.contents() == ["from Bob"]
    assert ann.statuses() == cat.statuses() == [("1", "delivered")]


@pytest.mark.parametrize("message_id", ["", "a b", "ä", "<1>", "x" * 65, 7, "tab\t", 'say"', True, {}])
def test_d10_an_id_that_breaks_the_rule_is_refused(pair: Pair, message_id: Any) -> None:
    ann, bob = pair.chatting()
    ann.say("MSG", to=pair.bob, content="Hi.", message_id=message_id)
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == "message_id"
    assert not bob.inbox


# -- D11 --


def test_d11_exactly_one_ack_per_message_and_its_status_is_true(pair: Pair) -> None:
    """`delivered` when it was written to a live connection, `stored` when it waits; and no second ack when it is delivered later."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "one", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    bob.leave()
    ann.msg(pair.bob, "two", TWO)
    assert ann.statuses() == [(TWO, "stored")]
    bob = pair.world.device(pair.bob).hello()
    bob.say("MSG_ACK", message_id=TWO)
    bob.say("MSG_ACK", message_id=ONE)
    pair.world.pass_time(30, step=1)
    assert not ann.take("MSG_ACK")


def test_d11_a_connection_that_has_not_said_hello_is_not_the_recipients(pair: Pair) -> None:
    ann, bob = pair.chatting()
    bob.leave()
    pair.world.device(pair.bob)
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "stored")]


def test_d11_a_device_that_is_too_slow_to_get_it_now_makes_it_stored(pair: Pair) -> None:
    """It waits behind others in the mailbox, so it has not been written; a repeat says so too, until it was."""
    ann, bob = pair.chatting()
    bob.leave()
    ann.msg(pair.bob, "one", ONE)
    slow = pair.world.device(pair.bob)
    slow.waiting = 1 << 20
    slow.hello()
    ann.take()
    ann.msg(pair.bob, "two", TWO)
    ann.msg(pair.bob, "two", TWO)
    assert ann.statuses() == [(TWO, "stored")] * 2
    slow.drain()
    ann.msg(pair.bob, "two", TWO)
    assert ann.statuses() == [(TWO, "delivered")]
    assert slow.contents() == ["one", "two"]


def test_d20_nothing_is_shown_or_acknowledged_before_it_is_durable(pair: Pair) -> None:
    """Whatever the store takes, neither side sees anything before it has it."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    pair.world.pass_time(2)
    assert not ann.take("MSG_ACK")
    assert not bob.take("MSG")
    store.slow = False
    pair.world.settle()
    assert isinstance(store.committed[-1], Message)
    assert ann.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["Hi."]


def test_d20_a_full_mailbox_refuses_and_evicts_nothing(far: bool) -> None:
    """Those under way count too; there is room again once something is acknowledged, and a repeat of what it holds is answered."""
    pair = Pair(far, mailbox_max=30)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(5):
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
    pair.world.settle()
    assert ann.statuses() == [("0", "stored"), ("1", "stored"), ("2", "stored")]
    errors = ann.take("ERROR")
    assert [error["code"] for error in errors] == ["MESSAGE_FAILED"] * 2
    assert [error["details"]["message_id"] for error in errors] == ["3", "4"]
    ann.msg(pair.bob, "0", "0")
    assert ann.statuses() == [("0", "stored")]
    bob = pair.world.device(pair.bob).hello()
    assert bob.contents() == ["0", "1", "2"]
    bob.say("MSG_ACK", message_id="1")
    ann.msg(pair.bob, "3", "3")
    assert ann.statuses() == [("3", "delivered")]


# -- D18 --


def test_d18_what_one_user_sends_another_arrives_in_order(far: bool) -> None:
    """However many are under way at once, with the store committing now and then, and for all devices alike."""
    pair = Pair(far, messages_per_minute=0)
    ann, bob = pair.chatting()
    (bob_too,) = pair.online(pair.bob)
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    sent = [f"message {number}" for number in range(200)]
    for number, content in enumerate(sent):
        store.slow = number % 7 != 0
        ann.msg(pair.bob, content, settle=number % 3 == 0)
    store.slow = False
    pair.world.settle()
    assert bob.contents() == bob_too.contents() == sent
    assert len(ann.take("MSG_ACK")) == len(sent)


def test_d18_all_devices_of_a_user_see_one_order(pair: Pair) -> None:
    """Two people write at once, from two shards; one device is behind, one comes late: all three read the same."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    cat.open_chat(pair.ann)
    bob.take()
    slow = pair.world.device(pair.bob)
    slow.hello()
    slow.take()
    slow.waiting = 1 << 20
    for number in range(20):
        ann.msg(pair.bob, f"a{number}", settle=number % 2 == 0)
        cat.msg(pair.bob, f"c{number}", settle=number % 3 == 0)
    pair.world.settle()
    slow.drain()
    late = pair.world.device(pair.bob).hello()
    order = bob.contents()
    assert len(order) == 40
    assert slow.contents() == late.contents() == order


def test_d18_what_waits_for_the_limit_is_not_overtaken(far: bool) -> None:
    """The limit seems full until it is known that one is a repeat; what is held back so long keeps its place in line."""
    pair = Pair(far, messages_per_minute=3)
    ann, bob = pair.chatting()
    for name in ("0", "0", "1", "2"):
        ann.msg(pair.bob, name, name, settle=False)
    ann.typing(settle=False)
    pair.world.settle()
    assert bob.contents() == ["0", "1", "2"]
    assert [message_id for message_id, _ in ann.statuses()] == ["0", "0", "1", "2"]
    assert bob.typists()[-1:] == [(pair.ann, True)], "and the message does not end what was typed behind it"


def test_d18_acknowledgements_come_in_the_order_of_the_messages(far: bool) -> None:
    """Also the first ones, which wait until the store knows that there is a writer (D20), and those that need not wait any more."""
    pair = Pair(far)
    ann, _ = pair.chatting()
    store = pair.world.store_of(pair.ann)
    ann.take()
    store.slow = True
    for number in range(3):
        ann.msg(pair.bob, message_id=f"{number}")
    store.commit_one(pair.world.now)
    if far:
        ann.msg(pair.bob, message_id="3")
    store.slow = False
    pair.world.settle()
    acknowledged = [ack["message_id"] for ack in ann.take("MSG_ACK")]
    assert acknowledged == [f"{number}" for number in range(4 if far else 3)]
