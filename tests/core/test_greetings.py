"""core.greetings and core.shard: users who come and go between memory and the store, and what happens while one is looked up."""

from __future__ import annotations

import pytest

from core import mailbox
from core.protocol import CONFIRM_TIMEOUT, UNCOMMITTED_MAX, UNLOAD_AFTER
from tests.core.test_replay import Trickle
from tests.core.world import Device, Pair

ONE, TWO = "first-id", "second-id"


def unloaded(pair: Pair) -> Device:
    """Ann's device; she and Bob have a chat, and only the store knows Bob."""
    _, bob = pair.chatting()
    bob.leave()
    pair.world.pass_time(UNLOAD_AFTER + 1, step=10)
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    (ann,) = pair.online(pair.ann)
    return ann


# -- Looking users up --


def test_all_that_is_about_one_user_is_done_in_order(pair: Pair) -> None:
    """Messages, OPEN_CHAT and HELLO for a user who is being looked up; the store looks once."""
    ann = unloaded(pair)
    (cat,) = pair.online(pair.cat)
    store = pair.world.store_of(pair.bob)
    del store.reads[:]
    store.slow_reads = True
    ann.msg(pair.bob, "one", ONE)
    cat.open_chat(pair.bob, settle=False)
    cat.msg(pair.bob, "two", TWO, settle=False)
    ann.open_chat(pair.bob)
    bob = pair.world.device(pair.bob)
    bob.hello("Bob Too", settle=False)
    bob.msg(pair.ann, "from Bob")
    ann.msg(pair.bob, "three", "3")
    pair.world.pass_time(1)
    assert not bob.inbox
    assert not ann.take("MSG_ACK")
    store.slow_reads = False
    pair.world.settle()
    assert store.reads == ["load"]
    contents = bob.contents()
    assert [content for content in contents if content != "two"] == ["one", "three"]
    assert contents.count("two") == 1
    assert [message_id for message_id, _ in ann.statuses()] == [ONE, "3"]
    assert [message_id for message_id, _ in cat.statuses()] == [TWO]
    assert ann.contents() == ["from Bob"]
    assert not ann.errors() + cat.errors() + bob.errors()
    assert not pair.world.shard_of(pair.bob)._loading


def test_two_devices_of_a_new_user_come_while_the_store_looks(pair: Pair) -> None:
    """There is one user in the end, and both devices are greeted."""
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    devices = [pair.world.device(pair.bob).hello("Bob Ray", settle=False) for _ in range(2)]
    pair.world.settle()
    assert not any(device.inbox for device in devices)
    store.slow_reads = False
    pair.world.settle()
    assert [device.kinds() for device in devices] == [["HELLO_ACK", "PRESENCE"]] * 2
    assert pair.world.shard_of(pair.bob).users[pair.bob].sessions == [device.session for device in devices]
    assert all(one is pair.world.shard_of(pair.bob).users[pair.bob] for one in store.committed)


def test_d9_a_user_who_comes_for_the_first_time_is_found_by_what_waited_behind(pair: Pair) -> None:
    """OPEN_CHAT came when the store was asked, and the user exists by the time when it has answered."""
    (ann,) = pair.online(pair.ann)
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    bob = pair.world.device(pair.bob).hello("Bob Ray", settle=False)
    ann.open_chat(pair.bob)
    store.slow_reads = False
    pair.world.settle()
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Lee"


def test_d9_a_user_who_is_not_found_is_asked_for_again(pair: Pair) -> None:
    """Nobody is taken for unknown for longer than it is true."""
    (ann,) = pair.online(pair.ann)
    ann.open_chat(pair.bob)
    assert ann.errors() == ["USER_NOT_FOUND"]
    pair.online(pair.bob)
    ann.open_chat(pair.bob)
    assert ann.kinds().count("CHAT_OPENED") == 1


def test_d26_a_user_who_can_not_be_read(pair: Pair) -> None:
    """MESSAGE_FAILED for who wrote or opened a chat, never USER_NOT_FOUND; 1013 for who comes; and all of it works afterwards."""
    ann = unloaded(pair)
    store = pair.world.store_of(pair.bob)
    store.read_failure = "unreadable"
    store.slow_reads = True
    ann.msg(pair.bob, "Hi.", ONE)
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    (cat,) = pair.online(pair.cat) if pair.world.store_of(pair.cat) is not store else (None,)
    if cat is not None:
        cat.open_chat(pair.bob)
    store.slow_reads = False
    pair.world.settle()
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"]["message_id"] == ONE
    assert bob.closed is not None
    assert bob.closed[0] == 1013
    assert bob.closed[1]
    assert not bob.inbox
    if cat is not None:
        assert cat.errors() == ["MESSAGE_FAILED"]
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    store.read_failure = None
    ann.msg(pair.bob, "Hi.", ONE)
    assert ann.statuses() == [(ONE, "stored")]
    assert pair.come(pair.bob).contents() == ["Hi."]


def test_who_leaves_while_looked_up_is_done_for(pair: Pair) -> None:
    """What was sent before is done, nobody is online, and the user is left to the store again."""
    ann = unloaded(pair)
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    bob = pair.world.device(pair.bob)
    bob.hello("Bob Ray", settle=False)
    bob.msg(pair.ann, "Bye.", settle=False)
    bob.leave()
    store.slow_reads = False
    pair.world.settle()
    assert ann.contents() == ["Bye."]
    assert bob.inbox == []
    pair.world.pass_time(UNLOAD_AFTER + 10, step=10)
    assert pair.bob not in pair.world.shard_of(pair.bob).users


def test_a_rename_reaches_a_chat_of_somebody_who_is_not_in_memory(pair: Pair) -> None:
    """The other side's record is the store's meanwhile (D7)."""
    ann = unloaded(pair)
    ann.hello("Ann Smith")
    bob = pair.come(pair.bob)
    bob.open_chat(pair.ann)
    assert bob.take("CHAT_OPENED")[-1]["target_display_name"] == "Ann Smith"
    assert pair.world.store_of(pair.bob).records[pair.bob].chats[pair.ann][0] == "Ann Smith"


def test_a_rename_reaches_somebody_who_is_being_looked_up(pair: Pair) -> None:
    ann = unloaded(pair)
    store = pair.world.store_of(pair.bob)
    ann.msg(pair.bob, "Hi.", settle=False)
    store.slow_reads = True
    pair.world.settle()
    ann.hello("Ann Smith")
    store.slow_reads = False
    pair.world.settle()
    assert store.records[pair.bob].chats[pair.ann][0] == "Ann Smith"


# -- Names --


def known_name(device: Device, user: str) -> list[str]:
    """The names under which a client that opens the chat anew, and asks who is online, finds a user."""
    device.take()
    device.open_chat(user)
    device.world.pass_time(1.1)
    device.hello("Bob Ray")
    device.world.pass_time(1.1)
    online = {entry["user_id"]: entry["display_name"] for entry in device.take("PRESENCE")[-1]["users"]}
    return [device.take("CHAT_OPENED")[-1]["target_display_name"], online[user]]


def test_d20_a_name_that_can_not_be_stored_does_not_take_effect(pair: Pair) -> None:
    """The connection is closed with 1013; the others, and whoever comes next, know the old name; saying it again works."""
    ann, bob = pair.chatting()
    too = pair.come(pair.ann)
    pair.world.store_of(pair.ann).fail_next = 1
    too.hello("Ann Smith")
    assert too.closed is not None
    assert too.closed[0] == 1013
    assert ann.open
    assert known_name(bob, pair.ann) == ["Ann Lee"] * 2
    pair.world.device(pair.ann).hello("Ann Smith")
    assert known_name(bob, pair.ann) == ["Ann Smith"] * 2
    pair.world.restart(0)
    (bob,) = pair.online(pair.bob) if not bob.open else (bob,)
    bob.take()
    bob.open_chat(pair.ann)
    assert bob.one("CHAT_OPENED")["target_display_name"] == "Ann Smith"


@pytest.mark.parametrize(
    ("spare", "fail", "name"),
    [(0, 2, "Ann Lee"), (0, 1, "Ann Two"), (1, 1, "Ann One"), (2, 0, "Ann Two")],
)
def test_d20_two_names_at_once(pair: Pair, spare: int, fail: int, name: str) -> None:
    """The last one that was stored holds, whichever it is, and everybody sees that one."""
    ann, bob = pair.chatting()
    store = pair.world.store_of(pair.ann)
    store.slow, store.spare_next, store.fail_next = True, spare, fail
    devices = [pair.world.device(pair.ann).hello(name) for name in ("Ann One", "Ann Two")]
    store.slow = False
    pair.world.settle()
    assert ann.open
    assert sum(not device.open for device in devices) == fail
    assert pair.world.store_of(pair.bob).records[pair.bob].chats[pair.ann][0] == name
    assert known_name(bob, pair.ann) == [name] * 2


def test_d20_who_could_not_be_stored_does_not_stay_in_memory(pair: Pair) -> None:
    """Nobody would ever leave them to the store: they have no connection that could end."""
    store = pair.world.store_of(pair.bob)
    store.fail_next = 1
    bob = pair.world.device(pair.bob).hello("Bob Ray")
    assert bob.closed is not None
    pair.world.pass_time(UNLOAD_AFTER + 10, step=10)
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    assert pair.come(pair.bob).kinds() == ["HELLO_ACK", "PRESENCE"]


def test_d20_a_name_is_not_greeted_by_before_it_is_durable(pair: Pair) -> None:
    """Though another HELLO, with another name, has been meanwhile."""
    (ann,) = pair.online(pair.ann)
    store = pair.world.store_of(pair.ann)
    store.slow = True
    pair.world.device(pair.ann).hello("Ann One", settle=False)
    pair.world.device(pair.ann).hello("Ann Two", settle=False)
    pair.world.settle()
    queue, store._queue = store._queue, []
    store.slow, store._queue = False, queue[:1]
    pair.world.turn(0)
    store.slow, store._queue = True, queue[1:]
    third = pair.world.device(pair.ann).hello("Ann Two")
    assert not third.inbox
    store.slow = False
    pair.world.settle()
    assert third.kinds() == ["HELLO_ACK", "PRESENCE"]
    assert ann.open


# -- Nothing is lost by being left to the store --


@pytest.mark.parametrize("how", ["restart", "unload"])
def test_what_a_user_has_survives(pair: Pair, how: str) -> None:
    """Name, chats, mailbox, what is acknowledged, and that it is done explicitly."""
    ann, bob = pair.chatting()
    for name in "abc":
        ann.msg(pair.bob, name, name)
    bob.say("MSG_ACK", message_id="b")
    bob.leave()
    if how == "restart":
        pair.world.restart(pair.world.placement.worker_of(pair.bob))
    else:
        pair.world.pass_time(UNLOAD_AFTER + 1, step=10)
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    bob = pair.come(pair.bob)
    assert bob.contents() == ["a", "c"]
    assert not bob.pings
    assert "CHAT_OPENED" not in bob.kinds(), "it has been told"
    bob.msg(pair.ann, "Hi.")
    assert not bob.errors()
    (ann,) = pair.online(pair.ann)
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_display_name"] == "Bob Ray"


def test_who_writes_to_somebody_away_keeps_neither_in_memory_for_long(pair: Pair) -> None:
    """A message brings its recipient into memory; two minutes later only the store has both."""
    ann = unloaded(pair)
    ann.msg(pair.bob, "Hi.")
    assert pair.bob in pair.world.shard_of(pair.bob).users
    pair.world.pass_time(UNLOAD_AFTER - 1, step=7)
    assert pair.bob in pair.world.shard_of(pair.bob).users
    pair.world.pass_time(10, step=5)
    assert pair.bob not in pair.world.shard_of(pair.bob).users
    assert pair.ann in pair.world.shard_of(pair.ann).users, "who is connected stays"


def test_d23_who_is_being_stored_is_not_forgotten(pair: Pair) -> None:
    """The store says that a stranger has been away for a day, and the stranger was here just now."""
    (bob,) = pair.online(pair.bob)
    store, shard = pair.world.store_of(pair.bob), pair.world.shard_of(pair.bob)
    store.slow = True
    bob.leave()
    shard.strangers([pair.bob], pair.world.now)
    assert pair.bob in shard.users
    store.slow = False
    pair.world.settle()
    assert store.forgotten == []


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
    shard.purged(pair.world.store_of(pair.bob).purge(pair.bob, 1), pair.world.now)
    ann.msg(pair.bob, "Hi.", ONE)
    assert bob.contents() == ["Hi.", "Hi."]


@pytest.mark.parametrize("how", ["memory", "evict", "restart"])
def test_d10_d20_a_full_mailbox_answers_repeats(far: bool, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """And refuses all else, without storing anything; room comes with acknowledgements or retention."""
    if how == "evict":
        monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    pair = Pair(far, mailbox_max=3)
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
    assert all("too many messages wait" in error["message"] for error in errors)
    ann.msg(pair.bob, "another text", "1")
    assert ann.errors() == ["VALIDATION"]
    shard = pair.world.shard_of(pair.bob)
    shard.purged(pair.world.store_of(pair.bob).purge(pair.bob, 1), pair.world.now)
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


# -- D26 --


def test_d26_what_expires_while_the_store_is_slow_is_not_stored(pair: Pair) -> None:
    """The sender has been told that it failed, and may send it again: then it is delivered once."""
    ann, bob = pair.chatting()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob, "early", ONE)
    pair.world.pass_time(3)
    ann.msg(pair.bob, "late", TWO)
    pair.world.pass_time(CONFIRM_TIMEOUT - 2.5)
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"]["message_id"] == ONE
    store.slow = False
    pair.world.settle()
    assert ann.statuses() == [(TWO, "delivered")]
    assert bob.contents() == ["late"]
    assert [row.message_id for row in store.records[pair.bob].rows] == [TWO]
    assert pair.world.shard_of(pair.bob).users[pair.bob].mailbox.reserved == 0
    ann.msg(pair.bob, "early", ONE)
    assert ann.statuses() == [(ONE, "delivered")]
    assert bob.contents() == ["early"]
    assert ann.session.in_flight == 0


def test_d26_what_expires_while_its_recipient_is_looked_up_is_not_stored(pair: Pair) -> None:
    """The look-up takes its time too."""
    ann = unloaded(pair)
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    ann.msg(pair.bob, "Hi.", ONE)
    pair.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    store.slow_reads = False
    pair.world.settle()
    assert pair.come(pair.bob).contents() == []
    assert not ann.take("MSG_ACK")


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
