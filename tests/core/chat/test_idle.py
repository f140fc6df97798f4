"""core.chat.idle: who has no connection is left to the store, and nothing that matters is lost by it (D23)."""

from __future__ import annotations

import pytest

from core.wire.protocol import FORGET_AFTER, UNLOAD_AFTER, UNLOAD_CHATLESS_AFTER
from tests.core.pair import Pair


def in_memory(pair: Pair, user_id: str) -> bool:
    return user_id in pair.world.shard_of(user_id).users


def test_who_has_no_chat_leaves_memory_within_seconds(pair: Pair) -> None:
    """And who has one within minutes."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    for device in (ann, bob, cat):
        device.leave()
    pair.world.pass_time(UNLOAD_CHATLESS_AFTER + 1)
    assert [in_memory(pair, user) for user in (pair.ann, pair.bob, pair.cat)] == [True, True, False]
    pair.world.pass_time(UNLOAD_AFTER, step=10)
    assert [in_memory(pair, user) for user in (pair.ann, pair.bob, pair.cat)] == [False, False, False]


def test_who_gets_a_chat_meanwhile_stays_as_long_as_those_with_chats(pair: Pair) -> None:
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    ann.open_chat(pair.bob)
    pair.world.pass_time(UNLOAD_AFTER - 5, step=1)
    assert in_memory(pair, pair.bob)
    pair.world.pass_time(20, step=1)
    assert not in_memory(pair, pair.bob)


@pytest.mark.parametrize("away", [UNLOAD_CHATLESS_AFTER + 1, UNLOAD_AFTER + 1, FORGET_AFTER - 60])
def test_d8_a_chat_can_be_opened_with_who_was_here_within_the_day(pair: Pair, away: float) -> None:
    """Also after the record has been in no memory for long; the chat is there when that user comes back."""
    ann, bob = pair.online(pair.ann, pair.bob)
    bob.leave()
    pair.world.pass_time(away, step=1 if away < 1000 else 300)
    assert not in_memory(pair, pair.bob)
    ann = pair.come(pair.ann)
    ann.open_chat(pair.bob)
    assert [opened["target_user_id"] for opened in ann.take("CHAT_OPENED")] == [pair.bob]
    bob = pair.come(pair.bob)
    assert [opened["target_user_id"] for opened in bob.take("CHAT_OPENED")] == [pair.ann]


def test_d23_leaving_and_coming_back_gives_no_new_allowance() -> None:
    """Not even by staying away for as long as it takes to leave memory: of any 60 s none has a 31st HELLO."""
    pair = Pair(far=False)
    (bob,) = pair.online(pair.bob)
    for _ in range(4):
        bob.leave()
        pair.world.pass_time(UNLOAD_CHATLESS_AFTER + 1)
        assert not in_memory(pair, pair.bob)
        bob = pair.come(pair.bob)
    for _ in range(25):
        bob.hello()
    bob.take()
    bob.hello()
    assert bob.error()["code"] == "RATE_LIMITED"


def test_d23_the_time_in_which_something_counts_is_not_prolonged() -> None:
    pair = Pair(far=False)
    (bob,) = pair.online(pair.bob)
    for _ in range(29):
        bob.hello()
    bob.leave()
    pair.world.pass_time(61)
    bob = pair.come(pair.bob)
    for _ in range(29):
        bob.hello()
    assert "ERROR" not in [kind for kind, _ in bob.inbox]
