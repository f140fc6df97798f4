"""core.chat.receipts on bad days: what is told waits until it is durable (D20), and survives what goes wrong."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import IMPLICIT_ACK_DELAY
from tests.core.chat.test_receipts import ONE, TWO, chatting
from tests.core.pair import Pair

# -- Durable first --


def test_d20_a_receipt_waits_until_the_store_has_it(pair: Pair) -> None:
    """What the sender is told stays true after a loss of power."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    bob.say("MSG_ACK", message_id=ONE)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    pair.world.pass_time(10)
    assert ann.statuses() == []
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(ONE, "delivered"), (ONE, "read")]


def test_d20_a_receipt_that_can_not_be_stored_is_not_sent(pair: Pair) -> None:
    """READ can be said again; and the sender can ask."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.failure = "disk full"
    bob.say("MSG_ACK", message_id=ONE)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == []
    assert not bob.errors(), "an acknowledgement that is lost costs a repeat, and no more"
    store.failure = None
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == [(ONE, "read")]


def test_d20_a_pong_that_can_not_be_stored_tells_nobody(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts")
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    pair.world.store_of(pair.bob).failure = "disk full"
    bob.answer_pings()
    pair.world.pass_time(IMPLICIT_ACK_DELAY + 1)
    assert ann.statuses() == []


# -- Troubles --


def test_d11_a_sender_who_is_away_misses_it(pair: Pair) -> None:
    """And nobody else gets it."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.leave()
    bob.take()
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert not bob.inbox
    assert pair.come(pair.ann, "receipts").statuses() == []


def test_d11_a_sender_whose_worker_is_gone_misses_it() -> None:
    """The recipient does not notice."""
    pair = Pair(far=True)
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    bob.take()
    pair.world.kill(0)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    pair.world.boot(0)
    assert "ERROR" not in bob.kinds()
    ann = pair.come(pair.ann, "receipts")
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "read")]


def test_d11_receipts_that_find_no_way_are_missed() -> None:
    """The bus is full; nothing waits for them."""
    pair = Pair(far=True)
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    pair.world.refusing.add(0)
    bob.say("MSG_ACK", message_id=ONE)
    pair.world.refusing.clear()
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == [(ONE, "read")]


def test_d11_who_says_hello_reads_and_leaves_in_one_go_has_read(pair: Pair) -> None:
    """What a client sent before it left is done under the capabilities that its HELLO asked for, though nobody is greeted."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    bob.leave()
    bob = pair.world.device(pair.bob)
    bob.hello("Bob Roy", settle=False, capabilities=["receipts"])
    bob.say("READ", False, message_id=ONE, **{"from": pair.ann})
    bob.leave()
    assert ann.statuses() == [(ONE, "delivered"), (ONE, "read")]


def test_d11_what_was_purged_can_not_be_read(pair: Pair) -> None:
    """Retention is over; READ comes too late and is ignored."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    bobs = pair.world.shard_of(pair.bob)
    bobs.users.purged(pair.world.store_of(pair.bob).purge(pair.bob, 1), pair.world.now)
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == []
    assert bob.session.in_flight == 0


def test_d20_a_repeat_is_told_nothing_of_the_recipient_that_is_not_durable(pair: Pair) -> None:
    """Bob has read it, and the store does not have that yet: a crash could take it back."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    ann.msg(pair.bob, "Hi.", ONE)
    assert not ann.inbox
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(ONE, "delivered"), (ONE, "read"), (ONE, "read")]
    store.failure = "disk full"
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.errors() == ["MESSAGE_FAILED"]


def test_d12_what_is_stored_is_found_while_a_repeat_of_it_is_on_its_way_to_the_store(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat is in memory and has no position; the message has one, and is not in memory."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    ann, bob = chatting(pair)
    ann.msg(pair.bob, "Hi.", ONE)
    ann.msg(pair.bob, "Ho.", TWO)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "Hi.", ONE)
    bob.say("MSG_ACK", message_id=ONE, **{"from": pair.ann})
    ann.msg(pair.bob, "Ho.", TWO)
    bob.say("READ", message_id=TWO, **{"from": pair.ann})
    store.slow = False
    pair.world.settle()
    assert {(ONE, "delivered"), (TWO, "delivered"), (TWO, "read")} <= set(ann.statuses())
    bob.leave()
    assert not pair.come(pair.bob).contents()


@pytest.mark.parametrize("failures", [1, 2])
def test_d11_delivered_does_not_follow_read(pair: Pair, failures: int) -> None:
    """Found by ``test_any_sequence``: the acknowledgement could not be saved, the reading could, and the former is tried again."""
    ann, bob = chatting(pair)
    ann.msg(pair.bob, message_id=ONE)
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.fail_next = 1
    bob.say("READ", message_id=ONE, **{"from": pair.ann})
    assert ann.statuses() == [(ONE, "read")]
    store.fail_next = failures - 1
    pair.world.pass_time(3.0)
    assert ann.statuses() == []
    assert store.records[pair.bob].acknowledged[0] == 1


def test_d11_delivered_is_told_once_it_can_be_saved(pair: Pair) -> None:
    ann, bob = chatting(pair)
    ann.msg(pair.bob, message_id=ONE)
    ann.take()
    pair.world.store_of(pair.bob).fail_next = 2
    bob.say("MSG_ACK", message_id=ONE)
    assert ann.statuses() == []
    pair.world.pass_time(3.0)
    assert ann.statuses() == [(ONE, "delivered")]
