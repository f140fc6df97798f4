"""core.chat.hello and core.chat.shard: users who come and go between memory and the store, and what happens while one is looked up."""

from __future__ import annotations

import pytest

from core.wire.protocol import CONFIRM_TIMEOUT, UNLOAD_AFTER
from tests.core.pair import Pair
from tests.core.world import Device

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
    assert not pair.world.shard_of(pair.bob).users._loading


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
    shard.users.strangers([pair.bob], pair.world.now)
    assert pair.bob in shard.users
    store.slow = False
    pair.world.settle()
    assert store.forgotten == []


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
