"""core.chat.chat_lists: what CHATS brings, and what devices are told of changes (D30)."""

from __future__ import annotations

from typing import Any

import pytest

from core.wire.codec import to_json
from core.wire.protocol import CHATS_INTERVAL, CHATS_MAX_BYTES, LAST_CHARACTERS
from core.wire.timestamps import format_timestamp, parse_timestamp
from tests.core.pair import Pair
from tests.core.world import Device

#: More than a tick, so that what may be told is told.
_SOON = 0.2


def later(pair: Pair, seconds: int) -> None:
    """Let the time of day go on."""
    clock = pair.world.clock
    clock.now = format_timestamp(parse_timestamp(clock.now) + seconds * 1000)


def listed(device: Device, **data: Any) -> list[dict[str, Any]]:
    """What CHATS brings."""
    device.take("CHATS")
    device.say("CHATS", **data)
    pages = [page for page in device.take("CHATS") if "delta" not in page]
    assert len(pages) == 1
    chats: list[dict[str, Any]] = pages[0]["chats"]
    return chats


def changes(device: Device) -> list[dict[str, Any]]:
    """The chats of all CHATS that say what has changed."""
    return [chat for page in device.take("CHATS") if page.get("delta") for chat in page["chats"]]


def test_d30_a_chat_shows_the_last_message_of_either_side(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    ann.msg(pair.bob, "first", "1")
    bob.msg(pair.ann, "second", "2")
    ann.msg(pair.bob, "x" * 300, "3")
    for device, peer, unread in ((ann, pair.bob, 1), (bob, pair.ann, 2)):
        (chat,) = listed(device)
        assert chat["user_id"] == peer
        assert chat["last"]["from"] == pair.ann
        assert chat["last"]["content"] == "x" * LAST_CHARACTERS
        assert chat["last"]["message_id"] == "3"
        assert chat["unread"] == unread
        assert (chat["read"], chat["online"], chat["blocked"], chat["muted"]) == (0, True, False, False)


def test_d30_a_device_that_has_never_been_here_sees_it_and_so_does_the_next_process(pair: Pair) -> None:
    """The worker of either side is killed; nothing is in memory."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "first", "1")
    bob.msg(pair.ann, "second", "2")
    bob.msg(pair.ann, "third", "3")
    pair.world.pass_time(2)
    for worker in (0, 1):
        pair.world.restart(worker)
    for user, last, unread in ((pair.ann, "3", 2), (pair.bob, "3", 1)):
        (chat,) = listed(pair.come(user, "chats"))
        assert (chat["last"]["message_id"], chat["unread"]) == (last, unread)


def test_d30_what_was_sent_last_is_right_though_its_note_died_with_the_process(pair: Pair) -> None:
    """The message is stored where the recipient lives; that the sender has sent it is noted later, and the process is killed before."""
    ann, bob, cat = pair.online(pair.ann, pair.bob, pair.cat)
    for peer in (pair.bob, pair.cat):
        ann.open_chat(peer)
    bob.msg(pair.ann, "from Bob", "1")
    later(pair, 5)
    cat.msg(pair.ann, "from Cat", "2")
    later(pair, 5)
    ann.msg(pair.bob, "to Bob", "3")
    pair.world.restart(0)
    chats = listed(pair.come(pair.ann, "chats"))
    assert [chat["last"]["message_id"] for chat in chats] == ["3", "2"]


def test_d30_pages_have_each_chat_once_the_one_written_in_last_first() -> None:
    pair = Pair(True, open_chats_per_minute=0)
    ann = pair.come(pair.ann, "chats")
    peers = [pair.world.user_on(number % 2) for number in range(7)]
    for number, peer in enumerate(peers):
        pair.world.device(peer).hello()
        ann.open_chat(peer)
        later(pair, 1)
        ann.msg(peer, f"{number}", f"{number}")
    shown: list[str] = []
    before = None
    while True:
        ann.take("CHATS")
        ann.say("CHATS", before=before, limit=3)
        page = next(page for page in ann.take("CHATS") if "delta" not in page)
        shown += [chat["user_id"] for chat in page["chats"]]
        before = page["next"]
        if before is None:
            break
    assert shown == peers[::-1]


def test_d30_others_are_told_at_most_once_a_second_for_each_chat(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    second = pair.come(pair.ann, "chats")
    pair.world.pass_time(2)
    for device in (ann, second, bob):
        device.take()
    for number in range(5):
        ann.msg(pair.bob, f"{number}", f"{number}")
        pair.world.pass_time(0.1)
    pair.world.pass_time(2 * CHATS_INTERVAL)
    assert changes(ann) == [], "it was this device's doing"
    told = changes(second)
    assert len(told) == 2
    assert told[-1]["last"]["message_id"] == "4"
    assert [chat["unread"] for chat in changes(bob)][-1] == 5


def test_d30_a_change_shows_the_last_message_and_not_one_that_was_seen_before(pair: Pair) -> None:
    """What came while no device showed the list, and what the retention has removed."""
    ann, bob = pair.chatting("chats")
    ann.msg(pair.bob, "one", "1")
    pair.world.pass_time(2)
    bob.leave()
    plain = pair.come(pair.bob)
    ann.msg(pair.bob, "two", "2")
    first, second = pair.come(pair.bob, "chats"), pair.come(pair.bob, "chats")
    first.say("MUTE", user_id=pair.ann)
    pair.world.pass_time(2)
    assert changes(second)[-1]["last"]["message_id"] == "2"
    purged = pair.world.store_of(pair.bob).purge(pair.bob, 2)
    pair.world.shard_of(pair.bob).users.purged(purged, pair.world.now)
    first.say("UNMUTE", user_id=pair.ann)
    pair.world.pass_time(2)
    assert changes(second)[-1]["last"] is None
    plain.leave()


def test_d30_what_was_sent_as_the_last_thing_counts_for_the_order(pair: Pair) -> None:
    """The device is gone before the store has the message."""
    ann, _, cat = pair.online(pair.ann, pair.bob, pair.cat)
    for peer in (pair.bob, pair.cat):
        ann.open_chat(peer)
    later(pair, 5)
    cat.msg(pair.ann, "from Cat", "1")
    later(pair, 5)
    pair.world.store_of(pair.bob).slow = True
    ann.msg(pair.bob, "to Bob", "2", settle=False)
    ann.leave()
    pair.world.store_of(pair.bob).slow = False
    pair.world.settle()
    record = pair.world.store_of(pair.ann).records[pair.ann]
    assert record.chats[pair.bob].active_at > record.chats[pair.cat].active_at


def test_d30_a_plain_device_is_told_nothing(pair: Pair) -> None:
    ann, bob = pair.chatting()
    bob.msg(pair.ann, "Hi.", "1")
    pair.world.pass_time(3)
    assert "CHATS" not in ann.kinds()
    ann.say("CHATS")
    assert ann.error()["code"] == "VALIDATION"


def test_d30_a_hidden_chat_is_back_with_the_next_message(pair: Pair) -> None:
    ann, bob = pair.chatting("chats")
    bob.msg(pair.ann, "one", "1")
    ann.say("HIDE", user_id=pair.bob)
    assert listed(ann) == []
    pair.world.pass_time(_SOON)
    second = pair.come(pair.ann, "chats")
    assert listed(second) == []
    pair.world.restart(0)
    third = pair.come(pair.ann, "chats")
    assert listed(third) == []
    pair.come(pair.bob).msg(pair.ann, "two", "2")
    pair.world.restart(0)
    (chat,) = listed(pair.come(pair.ann, "chats"))
    assert (chat["last"]["message_id"], chat["unread"]) == ("2", 2)


def test_d30_all_devices_are_told_that_a_chat_is_hidden_or_muted(pair: Pair) -> None:
    ann, _ = pair.chatting("chats")
    second = pair.come(pair.ann, "chats")
    pair.world.pass_time(2)
    for kind, field, value in (("MUTE", "muted", True), ("UNMUTE", "muted", False), ("HIDE", "hidden", True)):
        for device in (ann, second):
            device.take()
        ann.say(kind, user_id=pair.bob)
        pair.world.pass_time(CHATS_INTERVAL + _SOON)
        for device in (ann, second):
            (chat,) = changes(device)
            assert (chat["user_id"], chat[field]) == (pair.bob, value)


@pytest.mark.parametrize("kind", ["HIDE", "MUTE", "UNMUTE"])
def test_d30_without_a_chat_there_is_nothing_to_change(pair: Pair, kind: str) -> None:
    (ann,) = [pair.come(pair.ann, "chats")]
    ann.say(kind, user_id=pair.bob)
    error = ann.error()
    assert (error["code"], error["details"]["field"]) == ("CHAT_NOT_OPENED", "user_id")


def test_d30_a_change_is_told_when_it_is_durable(pair: Pair) -> None:
    """Not with a message that has come meanwhile."""
    ann, bob = pair.chatting("chats")
    pair.world.pass_time(2)
    ann.take()
    bob.msg(pair.ann, "Hi.", "1")
    pair.world.store_of(pair.ann).slow = True
    ann.say("MUTE", user_id=pair.bob)
    pair.world.pass_time(2)
    assert changes(ann) == []
    pair.world.store_of(pair.ann).slow = False
    pair.world.pass_time(2)
    assert [chat["muted"] for chat in changes(ann)] == [True, True]


@pytest.mark.parametrize("kind", ["HIDE", "MUTE"])
def test_d30_what_could_not_be_stored_has_not_happened(pair: Pair, kind: str) -> None:
    ann, bob = pair.chatting("chats")
    bob.msg(pair.ann, "one", "1")
    pair.world.pass_time(2)
    pair.world.store_of(pair.ann).fail_next = 1
    ann.say(kind, user_id=pair.bob)
    assert ann.error()["code"] == "MESSAGE_FAILED"
    (chat,) = listed(ann)
    assert chat["muted"] is False


@pytest.mark.parametrize("kind", ["CHATS", "HIDE", "MUTE", "UNMUTE", "BLOCK", "UNBLOCK", "READ"])
def test_d30_each_command_has_its_limit(far: bool, kind: str) -> None:
    pair = Pair(far, lists_per_minute=2)
    ann, _ = pair.chatting("chats", "block")
    data: dict[str, Any] = {} if kind == "CHATS" else {"user_id": pair.bob}
    if kind == "READ":
        data = {"message_id": "1", "from": pair.bob}
    for _ in range(2):
        ann.say(kind, **data)
        assert "ERROR" not in ann.kinds()
    ann.say(kind, **data)
    error = ann.error()
    assert (error["code"], error["details"]["limit"]) == ("RATE_LIMITED", 2)
    other = "HIDE" if kind != "HIDE" else "MUTE"
    ann.say(other, user_id=pair.bob)
    assert ann.errors() == []


def test_d30_a_shard_that_does_not_answer_is_told_as_not_confirmed() -> None:
    pair = Pair(True)
    ann, _ = pair.chatting("chats")
    pair.world.store_of(pair.bob).read_failure = "unreadable"
    ann.take()
    ann.say("CHATS")
    assert ann.error()["code"] == "MESSAGE_FAILED"


def test_d30_a_page_has_at_most_64_kib() -> None:
    pair = Pair(True, open_chats_per_minute=0, messages_per_minute=0)
    ann = pair.come(pair.ann, "chats")
    peers = [pair.world.user_on(number % 2) for number in range(100)]
    for number, peer in enumerate(peers):
        pair.world.device(peer).hello()
        ann.open_chat(peer)
        ann.msg(peer, "\N{GRINNING FACE}" * 300, f"{number}")
    shown: set[str] = set()
    before = None
    while True:
        ann.take("CHATS")
        ann.say("CHATS", before=before, limit=100)
        page = next(page for page in ann.take("CHATS") if "delta" not in page)
        assert len(to_json(page)) <= CHATS_MAX_BYTES
        assert not shown & {chat["user_id"] for chat in page["chats"]}
        shown |= {chat["user_id"] for chat in page["chats"]}
        before = page["next"]
        if before is None:
            break
    assert shown == set(peers)


@pytest.mark.parametrize("before", ["", "x", 7, "2024/", "/", "2024-01-01T12:00:00.000Z"])
def test_d25_a_cursor_that_is_none_is_refused(pair: Pair, before: Any) -> None:
    ann, _ = pair.chatting("chats")
    ann.say("CHATS", before=before)
    error = ann.error()
    assert (error["code"], error["details"]["field"]) == ("VALIDATION", "before")
