"""core.chat.blocks: being blocked looks like the other being away, and nothing of it ever reaches who has blocked (D32)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from core.wire.protocol import BLOCKS_MAX, PRESENCE_INTERVAL, TYPING_EXPIRY
from tests.core.chat.test_chat_lists import changes, listed
from tests.core.pair import Pair
from tests.core.world import Device

_ALL = ("chats", "block", "receipts", "history", "carbons", "resume")


def blocking(pair: Pair, *capabilities: str) -> list[Device]:
    """Ann and Bob, who have a chat, and Bob has blocked Ann; both have read everything."""
    ann, bob = pair.chatting(*capabilities, "block")
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.pass_time(3)
    for device in (ann, bob):
        device.take()
    return [ann, bob]


def history(device: Device, peer: str, **data: Any) -> list[str]:
    """The texts of a page."""
    device.say("HISTORY", **{"with": peer}, **data)
    return [message["content"] for message in device.one("HISTORY")["messages"]]


def test_d32_a_message_of_who_is_blocked_is_stored_and_never_shown(pair: Pair) -> None:
    """Not to devices that are here, come, resume, or read the history; not after UNBLOCK, and not with the next message."""
    ann, bob = blocking(pair, *_ALL)
    second = pair.come(pair.ann, *_ALL)
    start = bob.session.greeted.mailbox.cursor(0)
    ann.msg(pair.bob, "hidden", "1")
    assert ann.statuses() == [("1", "accepted")]
    assert second.contents() == ["hidden"], "the sender's other devices have it"
    bob.leave()
    for unblock in (False, True):
        if unblock:
            bob.say("UNBLOCK", user_id=pair.ann)
        bob = pair.come(pair.bob, *_ALL, resume={"cursor": start})
        assert bob.contents() == []
        assert history(bob, pair.ann) == []
        assert history(ann, pair.bob) == ["hidden"]
        assert listed(ann)[0]["last"]["content"] == "hidden"
        (chat,) = listed(bob)
        assert (chat["last"], chat["unread"], chat["blocked"]) == (None, 0, not unblock)
    ann.msg(pair.bob, "hidden", "1")
    assert ann.statuses() == [("1", "accepted")], "a repeat of it is still withheld"
    ann.msg(pair.bob, "shown", "2")
    assert bob.contents() == ["shown"]
    assert history(bob, pair.ann) == ["shown"]
    assert history(ann, pair.bob) == ["shown", "hidden"]
    assert bob.session.greeted.mailbox.head == 1, "positions have no gaps"


def test_d32_a_plain_sender_is_told_stored(pair: Pair) -> None:
    ann, _ = blocking(pair)
    ann.msg(pair.bob, "Hi.", "1")
    ann.msg(pair.bob, "Hi.", "1")
    assert ann.statuses() == [("1", "stored"), ("1", "stored")]
    ann.msg(pair.bob, "other", "1")
    assert ann.error()["code"] == "VALIDATION"


def test_d32_the_own_messages_to_who_is_blocked_are_refused(pair: Pair) -> None:
    _, bob = blocking(pair)
    bob.msg(pair.ann, "Hi.", "1")
    error = bob.error()
    assert (error["code"], error["details"]["blocked"]) == ("CHAT_NOT_OPENED", True)
    bob.open_chat(pair.ann)
    error = bob.error()
    assert (error["code"], error["details"]["blocked"]) == ("CHAT_NOT_OPENED", True)
    bob.say("UNBLOCK", user_id=pair.ann)
    bob.msg(pair.ann, "Hi.", "1")
    assert bob.statuses() == [("1", "delivered")]


def test_d32_open_chat_is_answered_as_ever(pair: Pair) -> None:
    """Who has blocked is not told, until after UNBLOCK."""
    ann, bob = pair.online(pair.ann, pair.bob)
    bob = pair.come(pair.bob, "block", "chats")
    bob.say("BLOCK", user_id=pair.ann)
    bob.take()
    ann.open_chat(pair.bob)
    assert ann.one("CHAT_OPENED")["target_user_id"] == pair.bob
    ann.msg(pair.bob, "Hi.", "1")
    assert ann.statuses() == [("1", "stored")]
    assert "CHAT_OPENED" not in pair.come(pair.bob).kinds()
    assert "CHAT_OPENED" not in bob.kinds()
    bob.say("UNBLOCK", user_id=pair.ann)
    assert bob.one("CHAT_OPENED")["target_user_id"] == pair.ann
    assert "MSG" not in bob.kinds()


def test_d32_somebody_without_a_chat_can_be_blocked_and_is_listed(pair: Pair) -> None:
    bob = pair.come(pair.bob, "block", "chats")
    bob.say("BLOCK", user_id=pair.cat)
    (chat,) = listed(bob)
    assert (chat["user_id"], chat["blocked"], chat["last"]) == (pair.cat, True, None)
    pair.world.restart(1 if pair.far else 0)
    bob = pair.come(pair.bob, "block", "chats")
    assert [chat["user_id"] for chat in listed(bob)] == [pair.cat]
    pair.world.pass_time(2)
    bob.take()
    bob.say("UNBLOCK", user_id=pair.cat)
    assert listed(bob) == []
    pair.world.pass_time(0.2)
    (told,) = changes(bob)
    assert (told["user_id"], told["blocked"], told["hidden"]) == (pair.cat, False, True)


def test_d32_neither_sees_the_other_online_typing_or_reading(pair: Pair) -> None:
    ann, bob = pair.chatting("presence_delta", "receipts", "block", "chats")
    ann.msg(pair.bob, "before", "1")
    bob.msg(pair.ann, "before", "2")
    ann.typing()
    pair.world.pass_time(2)
    for device in (ann, bob):
        device.take()
    bob.say("BLOCK", user_id=pair.ann)
    assert bob.typists() == [(pair.ann, False)], "nobody is shown as typing any more"
    pair.world.pass_time(2 * PRESENCE_INTERVAL)
    for device, peer in ((ann, pair.bob), (bob, pair.ann)):
        (gone,) = device.one("PRESENCE")["users"]
        assert (gone["user_id"], gone["online"]) == (peer, False)
        device.say("PRESENCE", user_ids=[peer])
        assert device.one("PRESENCE")["users"][0]["online"] is False
        assert listed(device)[0]["online"] is False
        device.typing(to=peer)
        device.typing(False, to=peer)
        device.say("READ", message_id="2" if device is ann else "1", **{"from": peer})
    pair.world.pass_time(TYPING_EXPIRY + 1)
    for device in (ann, bob):
        assert device.typists() == []
        assert device.statuses() == []
    third = pair.come(pair.bob, "presence_delta")
    assert pair.ann not in {user["user_id"] for user in third.take("PRESENCE")[0]["users"]}
    ann.take()
    ann.say("UNBLOCK", user_id=pair.bob)  # it is not hers to end
    bob.take()
    bob.say("UNBLOCK", user_id=pair.ann)
    pair.world.pass_time(2 * PRESENCE_INTERVAL)
    for device, peer in ((ann, pair.bob), (bob, pair.ann)):
        (back,) = device.one("PRESENCE")["users"]
        assert (back["user_id"], back["online"]) == (peer, True)


def test_d32_coming_and_going_is_not_seen_and_costs_no_presence(pair: Pair) -> None:
    ann, bob = blocking(pair)
    bob.leave()
    pair.world.pass_time(10)
    again = pair.come(pair.bob)
    pair.world.pass_time(3)
    assert "PRESENCE" not in ann.kinds()
    ann.hello("Ann Other")
    pair.world.pass_time(3)
    assert [page["users"] for page in again.take("PRESENCE")[1:]] == []


def test_d32_history_does_not_tell_what_was_read_since(pair: Pair) -> None:
    ann, bob = pair.chatting(*_ALL)
    for number in range(2):
        ann.msg(pair.bob, f"{number}", f"{number}")
    bob.say("READ", message_id="0", **{"from": pair.ann})
    bob.say("BLOCK", user_id=pair.ann)
    bob.say("READ", message_id="1", **{"from": pair.ann})
    ann.say("HISTORY", **{"with": pair.bob})
    assert [message.get("read") for message in ann.one("HISTORY")["messages"]] == [None, True]
    ann.take()
    ann.msg(pair.bob, "1", "1")
    assert ("1", "read") not in ann.statuses()


def test_d32_both_block_each_other(pair: Pair) -> None:
    ann, bob = pair.chatting("block", "chats")
    ann.say("BLOCK", user_id=pair.bob)
    bob.say("BLOCK", user_id=pair.ann)
    bob.say("UNBLOCK", user_id=pair.ann)
    assert listed(ann)[0]["blocked"] is True
    assert listed(bob)[0]["blocked"] is False
    bob.msg(pair.ann, "Hi.", "1")
    assert bob.statuses() == [("1", "stored")]
    assert "MSG" not in ann.kinds()
    ann.msg(pair.bob, "Hi.", "1")
    assert ann.error()["details"]["blocked"] is True


def test_d32_it_survives_both_workers(pair: Pair) -> None:
    ann, bob = blocking(pair)
    ann.msg(pair.bob, "withheld", "1")
    for worker in (0, 1):
        pair.world.restart(worker)
    ann, bob = pair.come(pair.ann), pair.come(pair.bob, "block", "chats")
    pair.world.pass_time(2)
    assert pair.bob not in {user["user_id"] for user in ann.take("PRESENCE")[-1]["users"]}
    ann.msg(pair.bob, "withheld too", "2")
    ann.msg(pair.bob, "withheld", "1")
    assert ann.statuses() == [("2", "stored"), ("1", "stored")]
    assert "MSG" not in bob.kinds()


def test_d32_a_shard_that_was_not_told_hears_of_it_at_the_next_hello() -> None:
    """What is on its way between the shards dies with the process that it goes to."""
    pair = Pair(True)
    ann, bob = pair.chatting("block")
    pair.world.kill(0, lost=True)
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.boot(0)
    ann = pair.come(pair.ann)
    pair.come(pair.bob).leave()
    pair.world.pass_time(10)
    assert pair.bob not in {user["user_id"] for user in ann.take("PRESENCE")[-1]["users"]}
    pair.world.kill(0, lost=True)
    bob.say("UNBLOCK", user_id=pair.ann)
    pair.world.boot(0)
    ann = pair.come(pair.ann)
    pair.world.pass_time(10)
    assert pair.bob in {user["user_id"] for user in ann.take("PRESENCE")[-1]["users"]}


def test_d32_what_could_not_be_stored_is_not_blocked(pair: Pair) -> None:
    ann, bob = pair.chatting("block", "chats")
    pair.world.store_of(pair.bob).fail_next = 1
    bob.say("BLOCK", user_id=pair.ann)
    error = bob.error()
    assert (error["code"], error["details"]["type"]) == ("MESSAGE_FAILED", "BLOCK")
    ann.msg(pair.bob, "Hi.", "1")
    assert bob.contents() == ["Hi."]


def test_d32_all_devices_are_told(pair: Pair) -> None:
    _, bob = pair.chatting("block", "chats")
    second = pair.come(pair.bob, "chats")
    pair.world.pass_time(2)
    for device in (bob, second):
        device.take()
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.pass_time(0.2)
    for device in (bob, second):
        (told,) = changes(device)
        assert (told["user_id"], told["blocked"]) == (pair.ann, True)


def test_d32_nobody_can_block_oneself(pair: Pair) -> None:
    ann = pair.come(pair.ann, "block")
    ann.say("BLOCK", user_id=pair.ann)
    assert ann.error()["code"] == "VALIDATION"


def test_d32_withheld_messages_have_pages(pair: Pair) -> None:
    """Between messages that were shown; each once, in the order of writing, and none that comes meanwhile."""
    ann, bob = pair.chatting("history", "block")
    expected: list[str] = []
    for number in range(12):
        if number % 3 == 0:
            bob.say("UNBLOCK" if number % 2 else "BLOCK", user_id=pair.ann)
        ann.msg(pair.bob, f"{number}", f"{number}")
        expected.append(f"{number}")
    ann.take()
    shown: list[str] = []
    before = None
    while True:
        ann.say("HISTORY", **{"with": pair.bob}, before=before, limit=5)
        page = ann.one("HISTORY")
        shown += [message["content"] for message in page["messages"]]
        before = page["next"]
        ann.msg(pair.bob, f"meanwhile {before}", f"meanwhile{len(shown)}")
        if before is None:
            break
    assert shown == expected[::-1]


def seen(device: Device) -> set[str]:
    """Who is online, as the last full PRESENCE says."""
    pages = [page for page in device.take("PRESENCE") if "delta" not in page]
    return {user["user_id"] for user in pages[-1]["users"]}


@pytest.mark.parametrize("how", ["killed", "full", "never seen"])
def test_d32_a_block_that_was_lost_is_told_again_while_both_are_here(how: str) -> None:
    """The blocker says nothing more, and the other one does not have to come twice."""
    pair = Pair(True)
    if how == "never seen":
        bob = pair.come(pair.bob, "block")
        bob.say("BLOCK", user_id=pair.ann)
        ann = pair.come(pair.ann)
    else:
        ann, bob = pair.chatting("block")
        if how == "killed":
            pair.world.kill(0, lost=True)
        else:
            pair.world.refusing.add(0)
        bob.say("BLOCK", user_id=pair.ann)
        if how == "killed":
            pair.world.boot(0)
            ann = pair.come(pair.ann)
        pair.world.refusing.clear()
    pair.world.pass_time(5)
    assert pair.bob not in seen(pair.come(pair.ann))
    ann.take()
    bob.say("UNBLOCK", user_id=pair.ann)
    pair.world.pass_time(5)
    assert pair.bob in seen(ann)


def test_d32_strangers_learn_nothing_by_a_block(far: bool) -> None:
    """Neither that they were blocked, nor who is online, nor the names of those who are."""
    pair = Pair(far, presence="contacts")
    ann, bob = pair.come(pair.ann, "presence_delta"), pair.come(pair.bob, "presence_delta", "block", "chats")
    pair.world.pass_time(2)
    for device in (ann, bob):
        device.take()
    for kind in ("BLOCK", "UNBLOCK", "BLOCK"):
        bob.say(kind, user_id=pair.ann)
        pair.world.pass_time(2)
        for device in (ann, bob):
            assert device.take("PRESENCE") == []
    assert listed(bob)[0]["display_name"] == pair.ann


def test_d32_a_repeat_does_not_tell_whether_the_blocker_is_here(pair: Pair) -> None:
    ann, bob = pair.chatting("block")
    bob.say("MSG_ACK", message_id="nothing")
    ann.msg(pair.bob, "before", "1")
    bob.say("BLOCK", user_id=pair.ann)
    ann.take()
    ann.msg(pair.bob, "before", "1")
    bob.leave()
    ann.msg(pair.bob, "before", "1")
    assert [status for _, status in ann.statuses()] == ["stored", "stored"]


def test_d32_the_share_of_a_sender_fills_as_if_the_blocker_were_away(far: bool) -> None:
    pair = Pair(far, mailbox_max=50, messages_per_minute=0)
    ann, bob = pair.chatting("block")
    bob.say("BLOCK", user_id=pair.ann)
    for number in range(8):
        ann.msg(pair.bob, f"{number}", f"{number}")
        if number == 3:
            pair.world.restart(1 if far else 0)
            ann = pair.come(pair.ann)
    errors = ann.take("ERROR")
    assert [error["details"]["share"] for error in errors] == ["sender"] * 3
    ann.msg(pair.bob, "2", "2")
    assert ann.statuses()[-1] == ("2", "stored"), "a repeat is answered"


def test_d32_repeats_and_failures_do_not_fill_the_share(far: bool) -> None:
    pair = Pair(far, mailbox_max=50, messages_per_minute=0)
    ann, bob = pair.chatting("block")
    bob.say("BLOCK", user_id=pair.ann)
    for _ in range(9):
        ann.msg(pair.bob, "0", "0")
    store = pair.world.store_of(pair.bob)
    store.failure = "the disk is full"
    for number in range(9):
        ann.msg(pair.bob, f"{number}", f"{number}")
    store.failure = None
    assert ann.errors() == ["MESSAGE_FAILED"] * 9
    assert [status for _, status in ann.statuses()] == ["stored"] * 9
    for number in range(1, 8):
        ann.msg(pair.bob, f"{number}", f"{number}")
    assert ann.statuses() == [(f"{number}", "stored") for number in range(1, 5)]
    assert [error["details"]["share"] for error in ann.take("ERROR")] == ["sender"] * 3


def test_d32_names_do_not_pass_and_are_those_of_today_afterwards(pair: Pair) -> None:
    ann, bob = pair.chatting("block", "chats")
    bob.say("BLOCK", user_id=pair.ann)
    pair.world.pass_time(3)
    for device in (ann, bob):
        device.take()
    ann.hello("Rude words", capabilities=["chats"])
    bob.hello("Bobby", capabilities=["chats", "block"])
    ann.open_chat(pair.bob)
    pair.world.pass_time(3)
    assert changes(ann) == changes(bob) == []
    assert (listed(ann)[0]["display_name"], listed(bob)[0]["display_name"]) == ("Bob Ray", "Ann Lee")
    bob.say("UNBLOCK", user_id=pair.ann)
    assert (listed(ann)[0]["display_name"], listed(bob)[0]["display_name"]) == ("Bobby", "Rude words")


def test_d32_who_blocks_does_not_see_either_what_the_other_reads(pair: Pair) -> None:
    ann, bob = pair.chatting(*_ALL)
    bob.msg(pair.ann, "read before", "1")
    bob.msg(pair.ann, "read since", "2")
    ann.say("READ", message_id="1", **{"from": pair.bob})
    bob.say("BLOCK", user_id=pair.ann)
    ann.say("READ", message_id="2", **{"from": pair.bob})
    bob.say("HISTORY", **{"with": pair.ann})
    assert [message.get("read") for message in bob.one("HISTORY")["messages"]] == [None, True]


def test_d32_a_chat_in_line_to_be_told_of_is_not(pair: Pair) -> None:
    ann, bob = pair.come(pair.ann), pair.come(pair.bob, "block")
    bob.waiting = 128 * 1024
    ann.open_chat(pair.bob)
    bob.say("BLOCK", user_id=pair.ann)
    bob.drain()
    assert "CHAT_OPENED" not in bob.kinds()


def test_d32_who_is_blocked_is_listed_also_when_hidden(pair: Pair) -> None:
    _, bob = pair.chatting("block", "chats")
    bob.say("HIDE", user_id=pair.ann)
    assert listed(bob) == []
    bob.say("BLOCK", user_id=pair.ann)
    assert [chat["blocked"] for chat in listed(bob)] == [True]
    bob.say("UNBLOCK", user_id=pair.ann)
    assert listed(bob) == []


def test_d32_so_many_can_be_blocked(far: bool) -> None:
    pair = Pair(far, lists_per_minute=0)
    bob = pair.come(pair.bob, "block")
    for _ in range(BLOCKS_MAX):
        bob.say("BLOCK", False, user_id=str(uuid4()))
    pair.world.settle()
    bob.say("BLOCK", user_id=pair.ann)
    error = bob.error()
    assert (error["code"], error["details"]["limit"]) == ("VALIDATION", BLOCKS_MAX)
