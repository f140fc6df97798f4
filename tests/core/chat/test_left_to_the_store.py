"""core.chat.messages and core.chat.receipts: repeats (D10) and acknowledgements (D12) of what only the store knows any more."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import UNCOMMITTED_MAX, UNLOAD_AFTER
from tests.core.chat.test_replay import Trickle
from tests.core.pair import Pair

ONE, TWO = "first-id", "second-id"


# -- D10 beyond what is in memory --


@pytest.mark.parametrize("how", ["evict", "restart", "unload"])
def test_d10_a_repeat_of_what_is_no_longer_in_memory(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It is answered as the repeat that it is, not delivered, not counted against the limit; the positions stay."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 2)
    ann, bob = pair.chatting()
    bob.say("MSG_ACK", message_id="nothing")
    for number in range(6):
        ann.msg(pair.bob, f"{number}", f"{number}")
    for number in (0, 2):
        bob.say("MSG_ACK", message_id=f"{number}")
    if how != "evict":
        bob.leave()
        if how == "restart":
            pair.world.restart(pair.world.placement.worker_of(pair.bob))
        else:
            pair.world.pass_time(UNLOAD_AFTER + 1, step=10)
        (ann,) = pair.online(pair.ann)
    ann.take()
    for number in range(6):
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
    pair.world.settle()
    written = how == "evict"
    expected = [
        (f"{number}", "delivered" if written or number in (0, 2) else "stored")
        for number in range(6)
        for _ in range(2)
    ]
    assert sorted(ann.statuses()) == sorted(expected)
    ann.msg(pair.bob, "another text", "0")
    assert ann.error()["details"]["field"] == "message_id"
    ann.msg(pair.bob, "new", "new")
    bob = pair.come(pair.bob, "resume")
    assert [(message["content"], message["seq"]) for message in bob.take("MSG")] == [
        ("1", 2),
        ("3", 4),
        ("4", 5),
        ("5", 6),
        ("new", 7),
    ]


def test_d10_a_repeat_of_what_comes_back_into_memory_meanwhile(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is deciding about the repeat when a device that is behind is sent the original, and that is evicted again."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 2)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(6):
        ann.msg(pair.bob, f"{number}", f"{number}")
    ann.take()
    store = pair.world.store_of(pair.bob)
    bob = pair.world.device(pair.bob)
    bob.hello("Bob Ray", settle=False)
    pair.world.turn(pair.world.placement.worker_of(pair.bob))
    store.slow = True
    for number in (0, 1, 5):
        ann.msg(pair.bob, f"{number}", f"{number}")
    assert bob.contents() == [f"{number}" for number in range(6)]
    store.slow = False
    pair.world.settle()
    assert sorted(message_id for message_id, _ in ann.statuses()) == ["0", "1", "5"]
    ann.msg(pair.bob, "6", "6")
    assert bob.contents() == ["6"]
    assert pair.world.shard_of(pair.bob).users[pair.bob].mailbox.reserved == 0


def test_d10_what_retention_has_removed_is_no_repeat(pair: Pair) -> None:
    """The same id names a new message then."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    shard = pair.world.shard_of(pair.bob)
    shard.users.purged(pair.world.store_of(pair.bob).purge(pair.bob, 1), pair.world.now)
    ann.msg(pair.bob, "Hi.", ONE)
    assert bob.contents() == ["Hi.", "Hi."]


@pytest.mark.parametrize("how", ["memory", "evict", "restart"])
def test_d10_d20_a_full_mailbox_answers_repeats(far: bool, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """And refuses all else, without storing anything; room comes with acknowledgements or retention."""
    if how == "evict":
        monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    pair = Pair(far, mailbox_max=30)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"{number}")
    if how == "restart":
        pair.world.restart(pair.world.placement.worker_of(pair.bob))
        (ann,) = pair.online(pair.ann)
    ann.take()
    for number in (3, 0, 4, 2):
        ann.msg(pair.bob, f"{number}", f"{number}")
    assert ann.statuses() == [("0", "stored"), ("2", "stored")]
    errors = ann.take("ERROR")
    assert [(error["code"], error["details"]["message_id"]) for error in errors] == [
        ("MESSAGE_FAILED", "3"),
        ("MESSAGE_FAILED", "4"),
    ]
    assert all("the mailbox is full" in error["message"] for error in errors)
    ann.msg(pair.bob, "another text", "1")
    assert ann.errors() == ["VALIDATION"]
    shard = pair.world.shard_of(pair.bob)
    shard.users.purged(pair.world.store_of(pair.bob).purge(pair.bob, 1), pair.world.now)
    for number in (3, 4):
        ann.msg(pair.bob, f"{number}", f"{number}")
    assert ann.statuses() == [("3", "stored")]
    assert pair.come(pair.bob).contents() == ["1", "2", "3"]


def test_d20_a_full_mailbox_whose_store_can_not_look(far: bool) -> None:
    """Whether it is a repeat is not known: MESSAGE_FAILED, which says that it may be sent again."""
    pair = Pair(far, mailbox_max=1)
    ann, bob = pair.chatting()
    bob.leave()
    ann.msg(pair.bob, "0", "0")
    pair.world.store_of(pair.bob).read_failure = "unreadable"
    ann.msg(pair.bob, "1", "1")
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert "same message_id" in error["message"]


def test_d23_over_the_limit_a_repeat_of_what_only_the_store_knows_is_answered(far: bool) -> None:
    """And what is no repeat is refused with RATE_LIMITED."""
    pair = Pair(far, messages_per_minute=2)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(2):
        ann.msg(pair.bob, f"{number}", f"{number}")
    pair.world.shard_of(pair.bob).users[pair.bob].mailbox._index.clear()
    ann.take()
    for number in (0, 1, 2):
        ann.msg(pair.bob, f"{number}", f"{number}")
    assert ann.statuses() == [("0", "stored"), ("1", "stored")]
    assert ann.errors() == ["RATE_LIMITED"]


# -- D12: acknowledging what is no longer in memory --


@pytest.mark.parametrize("with_from", [True, False])
@pytest.mark.parametrize("cache", [0, 1, 3, 128])
def test_d12_any_order_at_any_time(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, cache: int, with_from: bool
) -> None:
    """The device got them all; which of them are still in memory is the server's business."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    ann, bob = pair.chatting()
    for number in range(1, 13):
        ann.msg(pair.bob, f"{number}", f"{number}")
    extra = {"from": pair.ann} if with_from else {}
    for number in (7, 12, 1, 2, 7, 11, 3):
        bob.say("MSG_ACK", message_id=f"{number}", **extra)
    bob.say("MSG_ACK", message_id="unknown", **extra)
    bob.say("MSG_ACK", message_id="5", **{"from": pair.cat})
    assert bob.session.in_flight == 0
    store = pair.world.store_of(pair.bob)
    assert store.records[pair.bob].acknowledged == (3, frozenset({7, 11, 12}))
    bob.leave()
    bob = pair.come(pair.bob)
    assert bob.contents() == ["4", "5", "6", "8", "9", "10"]
    for number in (10, 9, 8, 6, 5, 4):
        bob.say("MSG_ACK", message_id=f"{number}", **extra)
    assert store.records[pair.bob].acknowledged == (12, frozenset())
    del store.reads[:]
    bob.say("MSG_ACK", message_id="4", **extra)
    bob.say("MSG_ACK", message_id="unknown", **extra)
    assert store.reads == [], "nothing waits, so nothing can be meant"


@pytest.mark.parametrize("cache", [0, 1, 128])
def test_d12_one_id_of_two_senders(pair: Pair, monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    """`from` says whose; without it the oldest that waits, in memory or not."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    for sender in (ann, cat):
        for number in range(3):
            sender.msg(pair.bob, f"{number} from {'Ann' if sender is ann else 'Cat'}", f"{number}")
    bob.say("MSG_ACK", message_id="0", **{"from": pair.cat})
    bob.say("MSG_ACK", message_id="1")
    bob.say("MSG_ACK", message_id="2")
    bob.say("MSG_ACK", message_id="2")
    bob.say("MSG_ACK", message_id="2")
    bob.leave()
    assert pair.come(pair.bob).contents() == ["0 from Ann", "1 from Cat"]


@pytest.mark.parametrize("with_from", [True, False])
@pytest.mark.parametrize("cache", [0, 128])
def test_d12_only_what_this_connection_has_got(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, cache: int, with_from: bool
) -> None:
    """Even if the store finds another one behind it."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(1, 6):
        ann.msg(pair.bob, f"{number}", f"{number}")
    slow = Trickle(pair.world, pair.bob)
    slow.hello("Bob Ray")
    assert slow.contents() == ["1", "2", "3"]
    extra = {"from": pair.ann} if with_from else {}
    for number in (4, 5, 2):
        slow.say("MSG_ACK", message_id=f"{number}", **extra)
    slow.drain()
    assert slow.contents() == ["4", "5"]
    slow.say("MSG_ACK", message_id="5", **extra)
    slow.leave()
    assert pair.come(pair.bob).contents() == ["1", "3", "4"]


@pytest.mark.parametrize("kind", ["MSG_ACK", "READ"])
def test_d29_a_client_with_256_look_ups_on_their_way_is_not_read_from(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """They cost a visit to the store each, so nobody may pile them up."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    bob = pair.come(pair.bob, "receipts")
    bob.session.greeted.rare._lists_per_minute = 0
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    for number in range(UNCOMMITTED_MAX):
        assert bob.reading
        bob.say(kind, False, message_id=f"{number}", **{"from": pair.ann})
    assert not bob.reading
    store.slow_reads = False
    pair.world.settle()
    assert bob.reading
    assert bob.session.in_flight == 0


@pytest.mark.parametrize("kind", ["MSG_ACK", "READ"])
def test_who_leaves_while_the_store_looks_has_acknowledged_all_the_same(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "Hi.", ONE)
    bob = pair.come(pair.bob, "receipts")
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    bob.say(kind, message_id=ONE, **{"from": pair.ann})
    bob.leave()
    store.slow_reads = False
    pair.world.settle()
    assert pair.come(pair.bob).contents() == []
