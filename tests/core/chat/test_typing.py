"""core.chat.typing: who is shown as typing to whom, and until when (D17)."""

from __future__ import annotations

import pytest

from core.wire.protocol import TYPING_EXPIRY
from tests.core.pair import Pair
from tests.core.world import Device


def with_cat(pair: Pair) -> list[Device]:
    """Ann, Bob and Cat: Ann has opened a chat with Bob, then one with Cat; everything so far is read."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    ann.open_chat(pair.cat)
    ann.take()
    cat.take()
    return [ann, bob, cat]


def test_typing_arrives_as_the_document_says(pair: Pair) -> None:
    """At all devices of the other side, and at none of the typist's."""
    ann, bob = pair.chatting()
    bob_too, ann_too = pair.online(pair.bob, pair.ann)
    ann.typing(True)
    ann.typing(False)
    expected = [{"user_id": pair.ann, "is_typing": True}, {"user_id": pair.ann, "is_typing": False}]
    assert bob.take("TYPING") == bob_too.take("TYPING") == expected
    assert not ann.inbox
    assert not ann_too.inbox


# -- Which chat --


def test_d17_to_the_chat_opened_last(pair: Pair) -> None:
    ann, bob, cat = with_cat(pair)
    ann.typing()
    assert cat.typists() == [(pair.ann, True)]
    ann.open_chat(pair.bob)
    ann.typing()
    assert bob.typists() == [(pair.ann, True)]
    assert not cat.typists()


def test_d17_to_the_chat_written_in_last(pair: Pair) -> None:
    """Writing chooses as opening does."""
    ann, bob, cat = with_cat(pair)
    ann.msg(pair.bob)
    ann.typing()
    assert bob.typists() == [(pair.ann, True)]
    assert not cat.typists()


def test_d17_the_last_message_written_decides_not_the_last_one_confirmed() -> None:
    """Ann writes to Bob on the other shard and then to Cat on her own, whose shard answers sooner."""
    pair = Pair(True)
    ann, bob = pair.chatting()
    dan = pair.world.device(pair.world.user_on(0)).hello("Dan Fox")
    ann.open_chat(dan.user_id)
    dan.take()
    ann.msg(pair.bob, settle=False)
    ann.msg(dan.user_id, settle=False)
    pair.world.settle()
    bob.take()
    ann.typing()
    assert dan.typists() == [(pair.ann, True)]
    assert not bob.typists()


@pytest.mark.parametrize("then", ["opens", "writes"])
def test_d17_what_was_asked_last_decides_not_what_was_opened_last(then: str) -> None:
    """Ann opens a chat with Cat, whose shard takes its time, and then one with Dan, or writes to Bob: that is where she types."""
    pair = Pair(False)
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    dan = pair.world.device(pair.world.user_on(0)).hello("Dan Fox")
    pair.world.stalled.add(1)
    ann.open_chat(pair.cat)
    if then == "opens":
        ann.open_chat(dan.user_id)
    else:
        ann.msg(pair.bob)
        bob.take()
    ann.typing()
    pair.world.stalled.clear()
    pair.world.settle()
    assert cat.one("CHAT_OPENED")
    assert not cat.typists()
    assert (dan if then == "opens" else bob).typists() == [(pair.ann, True)]


def test_d17_a_message_that_was_refused_chooses_nothing(pair: Pair) -> None:
    """There is no chat to type in."""
    ann, bob = pair.chatting()
    pair.online(pair.cat)
    ann.msg(pair.cat)
    ann.take()
    ann.typing()
    assert bob.typists() == [(pair.ann, True)]


def test_d17_else_to_the_chat_heard_of_last_on_this_connection(pair: Pair) -> None:
    """Whoever has opened or written nothing answers the last CHAT_OPENED or MSG."""
    ann, bob = pair.chatting()
    bob.typing()
    assert ann.typists() == [(pair.bob, True)], "CHAT_OPENED came"
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    bob.typing()
    assert cat.typists() == [(pair.bob, True)], "another CHAT_OPENED came"
    ann.msg(pair.bob)
    bob.typing()
    assert ann.typists() == [(pair.bob, True)], "a MSG came"
    assert not cat.typists()
    dan = pair.world.device(pair.world.user_on(0)).hello("Dan Fox")
    dan.open_chat(pair.bob)
    bob.typing()
    assert dan.typists() == [(pair.bob, True)], "CHAT_OPENED came after the MSG"
    assert not ann.typists()


def test_d17_a_strangers_open_chat_never_replaces_the_one_chosen(pair: Pair) -> None:
    """Nor does a stranger's message: what one types is not shown to somebody who just came along."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.ann)
    cat.msg(pair.ann, "What are you writing?")
    ann.typing()
    assert bob.typists() == [(pair.ann, True)]
    assert not cat.typists()


def test_d17_what_is_chosen_is_chosen_per_connection(pair: Pair) -> None:
    """Two devices in two chats."""
    ann, bob, cat = with_cat(pair)
    (ann_too,) = pair.online(pair.ann)
    ann_too.msg(pair.bob)
    ann_too.typing()
    assert bob.typists() == [(pair.ann, True)]
    ann.typing()
    assert cat.typists() == [(pair.ann, True)]


def test_d17_else_to_the_users_latest_chat(pair: Pair) -> None:
    """A new connection on which nothing has happened yet."""
    ann, bob, cat = with_cat(pair)
    ann.leave()
    (ann,) = pair.online(pair.ann)
    ann.typing()
    assert cat.typists() == [(pair.ann, True)]
    assert not bob.typists()


def test_d17_to_overrides(pair: Pair) -> None:
    """For this once; in any case of letters (D1)."""
    ann, bob, cat = with_cat(pair)
    ann.typing(to=pair.bob.upper())
    assert bob.typists() == [(pair.ann, True)]
    ann.typing()
    assert cat.typists() == [(pair.ann, True)]
    assert not bob.typists()


def test_d17_no_chat(pair: Pair) -> None:
    """Neither any at all, nor one with whom `to` names."""
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.typing()
    error = ann.error()
    assert error["code"] == "CHAT_NOT_OPENED"
    assert error["details"] == {"type": "TYPING", "field": "to"}
    ann.typing(to=pair.bob)
    assert ann.errors() == ["CHAT_NOT_OPENED"]
    assert not bob.typists()


@pytest.mark.parametrize(
    "data", [{}, {"is_typing": "yes"}, {"is_typing": 1}, {"is_typing": None}, {"to": 1}, {"to": "x"}]
)
def test_d25_a_typing_that_breaks_a_rule_is_refused(pair: Pair, data: dict[str, object]) -> None:
    ann, bob = pair.chatting()
    ann.say("TYPING", **({"is_typing": True} | data if "to" in data else data))
    error = ann.error()
    assert error["code"] == "VALIDATION"
    assert error["details"]["field"] in ("is_typing", "to")
    assert not bob.typists()


# -- Until when --


def test_d17_it_expires_fifteen_seconds_after_the_last_true(pair: Pair) -> None:
    """Each `true` renews it; then the other side gets one `false`."""
    ann, bob = pair.chatting()
    ann.typing()
    pair.world.pass_time(10)
    ann.typing()
    pair.world.pass_time(TYPING_EXPIRY - 0.3)
    assert bob.typists() == [(pair.ann, True), (pair.ann, True)]
    pair.world.pass_time(0.5)
    assert bob.typists() == [(pair.ann, False)]
    pair.world.pass_time(20)
    assert not bob.typists()


def test_d17_several_expire_each_at_its_time(pair: Pair) -> None:
    """Whoever renewed last expires last."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.typing()
    pair.world.pass_time(2)
    cat.typing()
    pair.world.pass_time(2)
    ann.typing()
    bob.take()
    pair.world.pass_time(TYPING_EXPIRY - 1)
    assert bob.typists() == [(pair.cat, False)]
    pair.world.pass_time(2)
    assert bob.typists() == [(pair.ann, False)]


def test_d17_a_message_ends_it(pair: Pair) -> None:
    """`false` comes with the message, and not once more when it would have expired."""
    ann, bob = pair.chatting()
    ann.typing()
    bob.take()
    ann.msg(pair.bob)
    assert bob.kinds() == ["TYPING", "MSG"]
    assert bob.typists() == [(pair.ann, False)]
    pair.world.pass_time(TYPING_EXPIRY + 1)
    assert not bob.typists()


def test_d17_a_message_to_somebody_else_does_not_end_it(pair: Pair) -> None:
    ann, bob, cat = with_cat(pair)
    ann.typing(to=pair.bob)
    ann.msg(pair.cat)
    assert bob.typists() == [(pair.ann, True)]
    assert not cat.typists()


def test_d17_typing_on_after_a_message_is_shown(pair: Pair) -> None:
    """The message may still be on its way into the store: what is typed behind it is not ended by it."""
    ann, bob = pair.chatting()
    ann.typing()
    ann.msg(pair.bob, settle=False)
    ann.typing(settle=False)
    pair.world.settle()
    assert bob.typists()[-1] == (pair.ann, True)


def test_d17_a_disconnect_ends_it(pair: Pair) -> None:
    """At once, in all chats in which this connection was typing; nobody else hears of it."""
    ann, bob, cat = with_cat(pair)
    ann.typing(to=pair.bob)
    ann.typing(to=pair.cat)
    bob.take()
    cat.take()
    ann.leave()
    assert bob.typists() == cat.typists() == [(pair.ann, False)]


@pytest.mark.parametrize("ended", ["never typed", "by itself", "by a message", "by expiry"])
def test_d17_a_disconnect_of_somebody_who_is_not_typing_says_nothing(pair: Pair, ended: str) -> None:
    """There is nothing to end."""
    ann, bob = pair.chatting()
    if ended != "never typed":
        ann.typing(True)
    if ended == "by itself":
        ann.typing(False)
    if ended == "by a message":
        ann.msg(pair.bob)
    if ended == "by expiry":
        pair.world.pass_time(TYPING_EXPIRY + 0.2)
    bob.take()
    ann.leave()
    assert not bob.typists()


def test_d17_another_device_that_leaves_does_not_end_it(pair: Pair) -> None:
    """One that was not typing, or had stopped."""
    ann, bob = pair.chatting()
    ann_too, ann_third = pair.online(pair.ann, pair.ann)
    ann_too.typing(True, to=pair.bob)
    ann_too.typing(False, to=pair.bob)
    ann.typing()
    bob.take()
    ann_too.leave()
    ann_third.leave()
    assert not bob.typists()


def test_d17_two_devices_that_type_are_one_typist(pair: Pair) -> None:
    """Whichever leaves first, the other goes on; `false` comes when the second one leaves."""
    for first in (0, 1):
        ann, bob = pair.chatting()
        (ann_too,) = pair.online(pair.ann)
        devices = [ann, ann_too]
        for device in devices:
            device.typing(to=pair.bob)
        bob.take()
        devices[first].leave()
        assert not bob.typists()
        devices[1 - first].leave()
        assert bob.typists() == [(pair.ann, False)]


@pytest.mark.parametrize("fate", ["repeated", "refused"])
def test_d17_a_disconnect_ends_it_even_after_a_message_that_did_not(pair: Pair, fate: str) -> None:
    """A repeat, or a message that was refused, is no message that came: so typing went on, and ends now."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "Hi.", "1")
    ann.typing()
    bob.take()
    ann.msg(pair.bob, "Hi." if fate == "repeated" else "Another.", "1")
    assert not bob.typists()
    ann.leave()
    assert bob.typists() == [(pair.ann, False)]


@pytest.mark.parametrize("how", ["wrote", "expired"])
def test_d17_a_device_that_typed_long_ago_does_not_go_on(pair: Pair, how: str) -> None:
    """It never said `false`, but it wrote a message, or said nothing for 15 s; so it does not hide that the other one leaves."""
    ann, bob = pair.chatting()
    (ann_too,) = pair.online(pair.ann)
    ann_too.typing(to=pair.bob)
    if how == "wrote":
        ann_too.msg(pair.bob)
    else:
        pair.world.pass_time(TYPING_EXPIRY + 0.2)
    ann.typing()
    bob.take()
    ann.leave()
    assert bob.typists() == [(pair.ann, False)]


def test_d17_it_expires_when_the_typists_worker_was_killed() -> None:
    """What is shown is kept where it is shown."""
    pair = Pair(True)
    ann, bob = pair.chatting()
    ann.typing()
    pair.world.kill(0)
    pair.world.pass_time(TYPING_EXPIRY + 0.2)
    assert bob.typists() == [(pair.ann, True), (pair.ann, False)]


def test_d17_it_is_never_stored(pair: Pair) -> None:
    """Whoever comes later is not told who typed."""
    ann, bob = pair.chatting()
    bob.leave()
    writes = [len(store.committed) for store in pair.world.stores]
    ann.typing()
    assert [len(store.committed) for store in pair.world.stores] == writes
    (bob,) = pair.online(pair.bob)
    pair.world.pass_time(5)
    assert (pair.ann, True) not in bob.typists()


# -- How often --


def test_d23_ten_typing_indicators_a_minute_per_user(pair: Pair) -> None:
    """All devices together, `false` included; and one more once the first has left the window."""
    ann, bob = pair.chatting()
    (ann_too,) = pair.online(pair.ann)
    for number in range(5):
        ann.typing(number % 2 == 0)
        ann_too.typing(to=pair.bob)
    assert len(bob.typists()) == 10
    ann.typing()
    error = ann.error()
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "type": "TYPING",
        "limit": 10,
        "window": 60.0,
        "retry_after": pytest.approx(60),
    }
    ann_too.leave()
    (ann_too,) = pair.online(pair.ann)
    ann_too.typing(to=pair.bob)
    assert ann_too.errors() == ["RATE_LIMITED"]
    pair.world.pass_time(60.2)
    ann.typing()
    assert not ann.errors()


def test_d23_refused_typing_does_not_count(pair: Pair) -> None:
    """Only what was passed on does."""
    ann, _ = pair.chatting()
    for _ in range(10):
        ann.typing(to=pair.cat)
    assert ann.errors() == ["CHAT_NOT_OPENED"] * 10
    ann.typing()
    assert not ann.errors()


def test_d23_zero_turns_the_typing_limit_off(far: bool) -> None:
    pair = Pair(far, typing_per_minute=0)
    ann, bob = pair.chatting()
    for _ in range(50):
        ann.typing()
    assert len(bob.typists()) == 50
