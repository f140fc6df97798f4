"""core.chat.reading: READ is cumulative, and holds for all devices of a user (D31)."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from tests.core import recording_store
from tests.core.chat.test_chat_lists import changes, listed
from tests.core.pair import Pair
from tests.core.world import Device


def read(device: Device, message_id: str, sender: str) -> None:
    device.say("READ", message_id=message_id, **{"from": sender})


@pytest.mark.parametrize("cache", [0, 2, 128])
def test_d31_read_covers_all_earlier_messages_of_the_sender(
    pair: Pair, cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether memory knows them or only the store does; each has its receipts, once and in order."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    count = 3 * recording_store.COVERED + 2
    ann, bob = pair.chatting("receipts", "chats")
    cat = pair.come(pair.cat)
    cat.open_chat(pair.bob)
    for number in range(count):
        ann.msg(pair.bob, f"{number}", f"{number}")
        cat.msg(pair.bob, f"{number}", f"{number}")
    ann.take()
    read(bob, f"{count - 3}", pair.ann)
    statuses = [status for status in ann.statuses() if status[1] == "read"]
    assert statuses == [(f"{number}", "read") for number in range(count - 2)]
    unread = {chat["user_id"]: chat["unread"] for chat in listed(bob)}
    assert unread == {pair.ann: 2, pair.cat: count}
    assert bob.session.in_flight == 0
    bob.leave()
    came = [
        message["message_id"] for message in pair.come(pair.bob).take("MSG") if message["from"] == pair.ann
    ]
    assert came == [f"{count - 2}", f"{count - 1}"], "what was read is acknowledged"


def test_d31_reading_never_goes_backwards(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts", "chats")
    for number in range(4):
        ann.msg(pair.bob, f"{number}", f"{number}")
    for message_id in ("2", "0", "2", "1"):
        read(bob, message_id, pair.ann)
    (chat,) = listed(bob)
    assert (chat["unread"], chat["read"]) == (1, 3)
    assert [status for status in ann.statuses() if status[1] == "read"] == [
        (f"{n}", "read") for n in range(3)
    ]


def test_d31_the_other_devices_are_told(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    second = pair.come(pair.bob, "chats")
    ann.msg(pair.bob, "Hi.", "1")
    pair.world.pass_time(3)
    for device in (bob, second):
        device.take()
    read(bob, "1", pair.ann)
    pair.world.pass_time(0.2)
    (told,) = changes(second)
    assert (told["unread"], told["read"]) == (0, 1)
    assert changes(bob) == []


def test_d31_history_and_resumed_messages_say_what_was_read(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts", "chats", "history", "resume")
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"{number}")
    bob.msg(pair.ann, "answer", "answer")
    read(bob, "1", pair.ann)
    for device, peer in ((ann, pair.bob), (bob, pair.ann)):
        device.take()
        device.say("HISTORY", **{"with": peer})
        shown = {message["message_id"]: message.get("read") for message in device.one("HISTORY")["messages"]}
        assert shown == {"0": True, "1": True, "2": None, "answer": None}
    first = bob.session.greeted.mailbox.cursor(0)
    bob.leave()
    again = pair.come(pair.bob, "resume", resume={"cursor": first})
    assert [(message["message_id"], message.get("read")) for message in again.take("MSG")] == [
        *(("0", True), ("1", True), ("2", None))
    ]


def test_d31_it_survives_the_death_of_the_worker(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts", "chats")
    for number in range(3):
        ann.msg(pair.bob, f"{number}", f"{number}")
    read(bob, "1", pair.ann)
    pair.world.restart(1 if pair.far else 0)
    (chat,) = listed(pair.come(pair.bob, "chats"))
    assert (chat["unread"], chat["read"]) == (1, 2)


def test_d31_what_could_not_be_stored_was_not_read(pair: Pair) -> None:
    ann, bob = pair.chatting("receipts", "chats")
    ann.msg(pair.bob, "Hi.", "1")
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.failure = "the disk is full"
    read(bob, "1", pair.ann)
    store.failure = None
    assert ("1", "read") not in ann.statuses()
    (chat,) = listed(bob)
    assert (chat["unread"], chat["read"]) == (1, 0)
    read(bob, "1", pair.ann)
    assert ("1", "read") in ann.statuses()
    assert listed(bob)[0]["unread"] == 0


def test_d31_unread_messages_that_are_removed_count_no_more(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    for number in range(4):
        ann.msg(pair.bob, f"{number}", f"{number}")
    purged = pair.world.store_of(pair.bob).purge(pair.bob, 3)
    pair.world.shard_of(pair.bob).users.purged(purged, pair.world.now)
    assert listed(bob)[0]["unread"] == 1
    ann.msg(pair.bob, "4", "4")
    assert listed(bob)[0]["unread"] == 2
    pair.world.restart(1 if pair.far else 0)
    assert listed(pair.come(pair.bob, "chats"))[0]["unread"] == 2


def test_d31_an_id_that_is_not_stored_changes_nothing(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    ann.msg(pair.bob, "Hi.", "1")
    read(bob, "no such id", pair.ann)
    read(bob, "nosuchid", pair.ann)
    read(bob, "nosuchid", pair.cat)
    assert listed(bob)[0]["unread"] == 1
    assert bob.session.in_flight == 0


def test_d31_two_devices_read_while_the_store_looks(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that reads further wins, and what comes meanwhile is unread."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", 0)
    ann, bob = pair.chatting("receipts", "chats")
    second = pair.come(pair.bob, "receipts", "chats")
    for number in range(6):
        ann.msg(pair.bob, f"{number}", f"{number}")
    ann.take()
    store = pair.world.store_of(pair.bob)
    store.slow_reads = True
    for device, message_id in ((bob, "4"), (second, "2"), (bob, "3")):
        device.say("READ", False, message_id=message_id, **{"from": pair.ann})
    ann.msg(pair.bob, "6", "6")
    store.slow_reads = False
    pair.world.settle()
    (chat,) = listed(bob)
    assert (chat["unread"], chat["read"]) == (2, 5)
    assert [status for status in ann.statuses() if status[1] == "read"] == [
        (f"{n}", "read") for n in range(5)
    ]
    assert bob.session.in_flight == second.session.in_flight == 0
