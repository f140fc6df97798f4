"""core.chat.receipts: what a sender who asked for it is told about a message after it was accepted (D11)."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import IMPLICIT_ACK_DELAY
from tests.core.pair import Pair
from tests.core.world import Device

ONE, TWO = "first-id", "second-id"


def chatting(pair: Pair) -> list[Device]:
    """Ann and Bob, both with receipts; Bob acknowledges with MSG_ACK."""
    ann, bob = pair.chatting("receipts")
    bob.say("MSG_ACK", message_id="none-of-that-id")
    return [ann, bob]


def forget_it(pair: Pair, how: str) -> None:
    """Let Bob's shard have nothing of the conversation in memory."""
    bobs = pair.world.placement.worker_of(pair.bob)
    if how == "restart":
        pair.world.restart(bobs)
    elif how == "unload":
        for device in pair.world.devices:
            if device.open and device.user_id == pair.bob:
                device.leave()
        pair.world.pass_time(300, step=30)
        assert pair.bob not in pair.world.shards[bobs].users
    elif how == "evict":
        user = pair.world.shards[bobs].users[pair.bob]
        for seq in range(1, user.mailbox.head + 1):
            user.mailbox._cached.pop(seq, None)
        user.mailbox._index.clear()


# -- The states, in order --


def test_d11_accepted_then_delivered_then_read(pair: Pair) -> None:
    """Each names the message and the recipient, and says what is true by then."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "accepted", "to": pair.bob}]
    assert bob.one("MSG")["message_id"] == ONE
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "delivered", "to": pair.bob}]
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "read", "to": pair.bob}]
    assert not bob.take()
    assert not ann.inbox


def test_d11_read_says_that_it_was_delivered_too(pair: Pair) -> None:
    """READ without MSG_ACK acknowledges (D31): the states come in order, and the message does not come again."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("READ", message_id=ONE, **{"from": pair.ann.upper()})
    assert ann.statuses() == [(ONE, "accepted"), (ONE, "delivered"), (ONE, "read")]
    bob.leave()
    assert pair.come(pair.bob).contents() == []


def test_d11_read_does_not_make_its_user_one_who_acknowledges_explicitly(pair: Pair) -> None:
    """Only MSG_ACK does (D12): pongs go on to confirm all else."""
    ann, bob = pair.chatting("receipts")
    ann.msg(pair.bob, "one", ONE)
    ann.msg(pair.bob, "two", TWO)
    bob.say("READ", message_id=TWO, **{"from": pair.ann})
    bob.answer_pings()
    pair.world.pass_time(IMPLICIT_ACK_DELAY + 0.2)
    expected = [(ONE, "accepted"), (TWO, "accepted")]
    expected += [(ONE, "delivered"), (TWO, "delivered"), (ONE, "read"), (TWO, "read")]
    assert ann.statuses() == expected
    ann.msg(pair.bob, "three", "3")
    for _ in range(2):
        bob.answer_pings()
        pair.world.pass_time(IMPLICIT_ACK_DELAY + 0.2)
    assert ann.statuses() == [("3", "accepted"), ("3", "delivered")], (
        "no pong tells anew what was read before"
    )


def test_d11_d12_a_pong_delivers_when_it_counts(pair: Pair) -> None:
    """For users who have never sent MSG_ACK: 5 s after the pong, once for each message, in order."""
    ann, bob = pair.chatting("receipts")
    ann.msg(pair.bob, "one", ONE)
    pair.world.pass_time(1.1)
    ann.msg(pair.bob, "two", TWO)
    assert ann.statuses() == [(ONE, "accepted"), (TWO, "accepted")]
    bob.answer_pings()
    pair.world.pass_time(2)
    bob.answer_pings()
    pair.world.pass_time(IMPLICIT_ACK_DELAY - 2 - 0.2)
    assert ann.statuses() == []
    pair.world.pass_time(0.4)
    assert ann.statuses() == [(ONE, "delivered")]
    pair.world.pass_time(10)
    assert ann.statuses() == [(TWO, "delivered")]


def test_d11_d12_a_disconnect_after_the_pong_delivers(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts")
    ann.msg(pair.bob, "one", ONE)
    pair.world.pass_time(0.2)
    ann.msg(pair.bob, "two", TWO)
    bob.answer_pings()
    bob.leave()
    assert ann.statuses() == [(ONE, "accepted"), (TWO, "accepted"), (ONE, "delivered")], (
        "only what it confirmed"
    )


def test_d11_each_sender_is_told_about_its_own(pair: Pair) -> None:
    """One pong confirms messages from several, one of whom did not ask."""
    ann, bob = pair.chatting("receipts")
    cat, plain = pair.come(pair.cat, "receipts"), pair.come(pair.ann)
    cat.open_chat(pair.bob)
    cat.msg(pair.bob, "from Cat", ONE)
    ann.msg(pair.bob, "from Ann", ONE)
    plain.msg(pair.bob, "from Ann, who did not ask", TWO)
    for _ in range(2):
        pair.world.pass_time(1.1)
        bob.answer_pings()
    pair.world.pass_time(IMPLICIT_ACK_DELAY + 0.2)
    assert cat.statuses() == [(ONE, "accepted"), (ONE, "delivered")]
    assert ann.statuses() == [(ONE, "accepted"), (ONE, "delivered")]
    assert plain.statuses() == [(TWO, "delivered")]


def test_d11_what_waits_for_the_recipient_is_accepted_and_then_goes_on(pair: Pair) -> None:
    """Through a restart of the recipient's worker, too: who asked for receipts is stored with the message."""
    ann, bob = chatting(pair)
    bob.leave()
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "accepted")]
    if pair.far:
        pair.world.restart(1)
    bob = pair.come(pair.bob, "receipts")
    assert bob.contents() == ["Hi."]
    assert ann.statuses() == []
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == [(ONE, "delivered")]


# -- What was stored, where that is not what was sent --


@pytest.mark.parametrize(
    ("sent", "stored"),
    [('<b>Hi</b> "you" \\ é', 'Hi "you" \\ é'), ("a\0b\x1fc", "abc"), ("<!-- x -->\U0001f468", "\U0001f468")],
)
def test_d11_a_sender_is_told_what_was_stored_in_the_place_of_what_was_sent(
    pair: Pair, sent: str, stored: str
) -> None:
    """With the first answer only: the states that follow are those of what was told then."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, sent, "back\\slash")
    accepted = {"message_id": "back\\slash", "status": "accepted", "to": pair.bob, "content": stored}
    assert ann.take("MSG_ACK") == [accepted]
    assert bob.contents() == [stored]
    bob.say("MSG_ACK", message_id="back\\slash")
    assert ann.take("MSG_ACK") == [{"message_id": "back\\slash", "status": "delivered", "to": pair.bob}]


def test_d11_whoever_repeats_a_message_is_told_again_what_was_stored(pair: Pair) -> None:
    """The first answer may have been lost, so it is told whatever has become of the message since."""
    ann, bob = chatting(pair)
    for status in ("accepted", "accepted", "delivered", "read"):
        if status == "delivered":
            bob.say("MSG_ACK", message_id=ONE)
        elif status == "read":
            bob.say("READ", message_id=ONE, **{"from": pair.ann})
        ann.take()
        ann.msg(pair.bob, "<i>Hi.</i>", ONE)
        assert ann.take("MSG_ACK") == [
            {"message_id": ONE, "status": status, "to": pair.bob, "content": "Hi."}
        ]
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "read", "to": pair.bob}], (
        "who sends what was stored need not be told of it"
    )
    assert bob.contents() == ["Hi."]


def test_d11_a_repeat_that_overtakes_the_commit_is_told_too(pair: Pair) -> None:
    ann, _ = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "<i>Hi.</i>", ONE)
    ann.msg(pair.bob, "<i>Hi.</i>", ONE)
    store.slow = False
    pair.world.settle()
    told = {"message_id": ONE, "status": "accepted", "to": pair.bob, "content": "Hi."}
    assert ann.take("MSG_ACK") == [told, told]


def test_d11_a_client_without_receipts_is_told_nothing_new(pair: Pair) -> None:
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "<b>Hi.</b>", ONE)
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "delivered"}]


# -- Who is told --


def test_d11_a_plain_sender_gets_exactly_one_ack(pair: Pair) -> None:
    """Without `to`; whatever becomes of the message later."""
    ann, bob = pair.chatting()
    reader = pair.come(pair.bob, "receipts")
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("MSG_ACK", message_id=ONE)
    reader.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": "delivered"}]


def test_d11_all_devices_of_the_sender_that_asked_are_told(pair: Pair) -> None:
    """`accepted` answers the connection that sent it; what comes later is for all that have `receipts`, and for no others."""
    ann, bob = chatting(pair)
    too, plain = pair.come(pair.ann, "receipts"), pair.come(pair.ann, "carbons")
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("MSG_ACK", message_id=ONE)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == [(ONE, "accepted"), (ONE, "delivered"), (ONE, "read")]
    assert too.statuses() == [(ONE, "delivered"), (ONE, "read")]
    assert plain.statuses() == []


def test_d11_a_message_from_a_device_without_receipts_has_none(pair: Pair) -> None:
    """Nor when the same message is repeated by a device that has them: then it is told the state, and no more."""
    ann, bob = chatting(pair)
    plain = pair.come(pair.ann)
    plain.msg(pair.bob, "Hi.", ONE)
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == []
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == []
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "read")], "that it was read is kept all the same"
    assert plain.statuses() == [(ONE, "delivered")]


def test_d11_who_gives_receipts_up_is_told_no_more(pair: Pair) -> None:
    """The last HELLO says what is in force."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.hello("Ann Lee", capabilities=[])
    bob.say("MSG_ACK", message_id=ONE)
    ann.msg(pair.bob, "Hi.", TWO)
    assert ann.statuses() == [(ONE, "accepted"), (TWO, "delivered")]


def test_d11_nobody_is_told_twice(pair: Pair) -> None:
    """By however many devices, however often."""
    ann, bob = chatting(pair)
    too = pair.come(pair.bob, "receipts")
    ann.msg(pair.bob, "Hi.", ONE)
    for device in (bob, too, bob):
        device.say("MSG_ACK", message_id=ONE)
        device.say("MSG_ACK", message_id=ONE, **{"from": pair.ann})
    for device in (too, bob, too):
        device.say("READ", message_id=ONE, **{"from": pair.ann})
        device.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == [(ONE, "accepted"), (ONE, "delivered"), (ONE, "read")]


@pytest.mark.parametrize("how", ["memory", "restart", "unload", "evict"])
def test_d11_nobody_is_told_twice_though_it_is_no_longer_in_memory(pair: Pair, how: str) -> None:
    """Several devices at once say that they have it, and have read it; the store has to look for it each time."""
    ann, _ = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "accepted")]
    forget_it(pair, how)
    if not ann.open:
        ann = pair.come(pair.ann, "receipts")
    devices = [pair.come(pair.bob, "receipts", "resume", resume={"cursor": "?"}) for _ in range(2)]
    if how == "evict":
        forget_it(pair, how)
    for _ in range(2):
        for device in devices:
            device.say("MSG_ACK", False, message_id=ONE)
            device.say("READ", False, message_id=ONE, **{"from": pair.ann})
            device.say("READ", False, message_id=ONE, **{"from": pair.ann})
        pair.world.settle()
    assert ann.statuses() == [(ONE, "delivered"), (ONE, "read")]
    assert [device.session.in_flight for device in devices] == [0, 0]


def test_d11_d13_what_is_replayed_is_not_delivered_again(pair: Pair) -> None:
    """A device that resumes gets what another one has confirmed; its own pong is news of what came after only."""
    ann, bob = pair.chatting("receipts", "resume")
    start = bob.session.user.mailbox.cursor(0) if bob.session.user is not None else ""
    ann.msg(pair.bob, "one", ONE)
    bob.answer_pings()
    bob.leave()
    assert ann.statuses() == [(ONE, "accepted"), (ONE, "delivered")]
    bob = pair.come(pair.bob, "resume", resume={"cursor": start})
    ann.msg(pair.bob, "two", TWO)
    assert bob.contents() == ["one", "two"]
    bob.answer_pings()
    pair.world.pass_time(1.1)
    bob.answer_pings()
    bob.leave()
    assert ann.statuses() == [(TWO, "accepted"), (TWO, "delivered")]


def test_d11_d18_what_one_pong_confirms_is_told_in_order(pair: Pair) -> None:
    """Though the messages were written in another one: a device at the end came before a device at the beginning."""
    ann, bob = pair.chatting("receipts", "resume")
    ann.msg(pair.bob, "one", ONE)
    ann.msg(pair.bob, "two", TWO)
    cursors = [message["cursor"] for message in bob.take("MSG")]
    start = cursors[0][:-1] + "0"
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    if not ann.open:
        ann = pair.come(pair.ann, "receipts")
    ann.take()
    ahead = pair.come(pair.bob, "resume", resume={"cursor": cursors[0]})
    behind = pair.come(pair.bob, "resume", resume={"cursor": start})
    assert (ahead.contents(), behind.contents()) == (["two"], ["one", "two"])
    for _ in range(2):
        behind.answer_pings()
        pair.world.pass_time(1.1)
    behind.leave()
    assert ann.statuses() == [(ONE, "delivered"), (TWO, "delivered")]


# -- A repeat is answered with the state --


@pytest.mark.parametrize("how", ["memory", "restart", "unload", "evict"])
@pytest.mark.parametrize("state", ["accepted", "delivered", "read"])
def test_d10_d11_a_repeat_is_answered_with_the_present_state(far: bool, state: str, how: str) -> None:
    """That is how a sender learns what it missed, at any time within the retention; one without receipts learns less."""
    pair = Pair(far)
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.leave()
    if state == "delivered":
        bob.say("MSG_ACK", message_id=ONE)
    elif state == "read":
        bob.say("READ", message_id=ONE, **{"from": pair.ann})
    forget_it(pair, how)
    ann, plain = pair.come(pair.ann, "receipts"), pair.come(pair.ann)
    for device in (ann, plain, ann):
        device.msg(pair.bob, "Hi.", ONE)
    assert ann.take("MSG_ACK") == [{"message_id": ONE, "status": state, "to": pair.bob}] * 2
    written = how in ("memory", "evict") or state != "accepted"
    assert plain.take("MSG_ACK") == [{"message_id": ONE, "status": "delivered" if written else "stored"}]
    ann.msg(pair.bob, "Something else.", ONE)
    assert ann.error()["code"] == "VALIDATION"
    if bob.open:
        bob.leave()
    expected = ["Hi."] if state == "accepted" else []
    assert pair.come(pair.bob).contents() == expected
    assert pair.world.store_of(pair.bob).records[pair.bob].rows[-1].seq == 1


def test_d11_a_repeat_that_comes_while_the_first_is_committed_is_accepted_too(pair: Pair) -> None:
    """Each is answered once, and what comes later is told once."""
    ann, bob = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    ann.msg(pair.bob, "Hi.", ONE)
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(ONE, "accepted")] * 2
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == [(ONE, "delivered")]


# -- READ that names nothing --


def test_d11_read_of_what_is_not_there_is_ignored(pair: Pair) -> None:
    """An unknown id, one of another sender's, one of a message that the reader sent: nothing happens to anybody."""
    ann, bob = chatting(pair)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    bob.take()
    ann.msg(pair.bob, "Hi.", ONE)
    ann.statuses()
    bob.take()
    for device, sender, message_id in [
        (bob, pair.ann, "unknown"),
        (bob, pair.cat, ONE),
        (bob, pair.bob, ONE),
        (ann, pair.ann, ONE),
        (ann, pair.bob, ONE),
    ]:
        device.say("READ", message_id=message_id, **{"from": sender})
        assert device.session.in_flight == 0
    assert not ann.inbox
    assert not bob.inbox
    bob.leave()
    assert pair.come(pair.bob).contents() == ["Hi."]


def test_d11_d20_read_of_what_is_not_committed_is_ignored(pair: Pair) -> None:
    """Nobody can have read it; a client that guesses ids learns and changes nothing."""
    ann, bob = chatting(pair)
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    bob.say("MSG_ACK", message_id=ONE)
    bob.say("MSG_ACK", message_id=ONE, **{"from": pair.ann})
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(ONE, "accepted")]
    bob.leave()
    assert pair.come(pair.bob).contents() == ["Hi."]


@pytest.mark.replaces
def test_d11_read_while_the_store_can_not_look_is_lost_and_holds_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    store = pair.world.store_of(pair.bob)
    store.read_failure = "unreadable"
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    bob.say("MSG_ACK", message_id=ONE)
    assert bob.session.in_flight == 0
    assert ann.statuses() == [(ONE, "accepted")]
    store.read_failure = None
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == [(ONE, "delivered"), (ONE, "read")]


def test_read_needs_the_capability(pair: Pair) -> None:
    """And the refusal says which one."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    bob.take()
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    error = bob.error()
    assert error["code"] == "VALIDATION"
    assert "'receipts'" in error["message"]
    assert error["details"]["message_id"] == ONE
    assert "READ" not in error["details"]["expected"]
    bob.leave()
    assert pair.come(pair.bob).contents() == ["Hi."]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"from": "11111111-1111-4111-8111-111111111111"}, "message_id"),
        ({"message_id": "a b", "from": "11111111-1111-4111-8111-111111111111"}, "message_id"),
        ({"message_id": "1"}, "from"),
        ({"message_id": "1", "from": "nobody"}, "from"),
        ({"message_id": "1", "from": 7}, "from"),
    ],
)
def test_d25_a_read_that_breaks_a_rule_is_refused(pair: Pair, data: dict[str, object], field: str) -> None:
    """Unlike in MSG_ACK, `from` is needed."""
    _, bob = chatting(pair)
    bob.say("READ", **data)
    error = bob.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] == field
