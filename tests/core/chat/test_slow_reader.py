"""A reader that does not keep up: what is held back for it, in which order, and what never is (D29)."""

from __future__ import annotations

import pytest

from core.measures import series
from core.wire.protocol import (
    PRESENCE_GRACE,
    PRESENCE_SHED_BYTES,
    TYPING_EXPIRY,
    TYPING_SHED_BYTES,
    Capability,
)
from tests.core.pair import Pair
from tests.core.world import Device, World


def slow(pair: Pair, waiting: int) -> list[Device]:
    """Ann, and Bob for whom so many bytes wait; they have a chat."""
    ann, bob = pair.chatting()
    pair.world.pass_time(2)
    bob.take()
    bob.waiting = waiting
    return [ann, bob]


def shed(world: World, name: str) -> int:
    return sum(shard.stats()[series("shed_total", kind=name)] for shard in world.shards)


def test_d29_typing_is_held_back_first(pair: Pair) -> None:
    """Up to the limit it is not, beyond it only the latest comes, when there is room."""
    ann, bob = slow(pair, TYPING_SHED_BYTES)
    ann.typing(True)
    assert bob.typists() == [(pair.ann, True)]
    bob.waiting += 1
    for is_typing in (False, True, False, True):
        ann.typing(is_typing)
    pair.world.pass_time(1)
    assert not bob.inbox
    assert shed(pair.world, "typing") == 4
    bob.waiting = 0
    pair.world.pass_time(0.1)
    assert bob.typists() == [(pair.ann, True)]
    pair.world.pass_time(1)
    assert not bob.inbox, "once"


def test_d29_held_typing_is_told_of_each_sender(pair: Pair) -> None:
    ann, bob = slow(pair, TYPING_SHED_BYTES + 1)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.typing(True)
    cat.typing(True)
    ann.typing(False)
    bob.take()
    bob.waiting = 0
    pair.world.pass_time(0.1)
    assert sorted(bob.typists()) == sorted([(pair.ann, False), (pair.cat, True)])


def test_d29_what_is_told_meanwhile_is_newer_than_what_was_held(pair: Pair) -> None:
    ann, bob = slow(pair, TYPING_SHED_BYTES + 1)
    ann.typing(True)
    bob.waiting = 0
    ann.typing(False)
    pair.world.pass_time(1)
    assert bob.typists() == [(pair.ann, False)]


def test_d29_typing_that_expires_while_it_is_held_is_told_as_over(pair: Pair) -> None:
    ann, bob = slow(pair, TYPING_SHED_BYTES + 1)
    ann.typing(True)
    pair.world.pass_time(TYPING_EXPIRY + 1)
    bob.waiting = 0
    pair.world.pass_time(0.1)
    assert bob.typists() == [(pair.ann, False)]


def test_d29_only_the_slow_device_waits(pair: Pair) -> None:
    """And a slow one that leaves is forgotten."""
    ann, bob = slow(pair, TYPING_SHED_BYTES + 1)
    (bob_too,) = pair.online(pair.bob)
    bob_too.take()
    ann.typing(True)
    assert bob_too.typists() == [(pair.ann, True)]
    bob.leave()
    pair.world.pass_time(0.1)
    assert not any(shard.typing._held for shard in pair.world.shards)


def test_d29_presence_is_held_back_next(pair: Pair) -> None:
    """Later than typing; and when there is room it says how things are then."""
    ann, bob = slow(pair, PRESENCE_SHED_BYTES)
    (cat,) = pair.online(pair.cat)
    pair.world.pass_time(1)
    assert {user["user_id"] for user in bob.take("PRESENCE")[-1]["users"]} == {pair.ann, pair.bob, pair.cat}
    bob.waiting += 1
    cat.leave()
    pair.world.pass_time(PRESENCE_GRACE + 1)
    (cat,) = pair.online(pair.cat)
    ann.leave()
    pair.world.pass_time(PRESENCE_GRACE + 3)
    assert not bob.inbox
    bob.waiting = 0
    pair.world.pass_time(1.2)
    (presence,) = bob.take("PRESENCE")
    assert {user["user_id"] for user in presence["users"]} == {pair.bob, pair.cat}
    assert sum(shard.presence.shed for shard in pair.world.shards) >= 3


@pytest.mark.parametrize("far_too_many", [False, True])
def test_d29_held_presence_loses_no_change_of_a_delta(far: bool, far_too_many: bool) -> None:
    """D22's delta grows meanwhile; before it takes more than the whole list would, it becomes that."""
    pair = Pair(far)
    bob = pair.world.device(pair.bob).hello(capabilities=[Capability.PRESENCE_DELTA])
    pair.world.pass_time(2)
    bob.take()
    bob.waiting = PRESENCE_SHED_BYTES + 1
    pair.online(pair.ann)
    if far_too_many:
        for _ in range(10):
            passer_by = pair.world.device(pair.world.user_on(0)).hello()
            pair.world.pass_time(0.2)
            passer_by.leave()
    pair.world.pass_time(PRESENCE_GRACE + 2)
    assert not bob.inbox
    bob.waiting = 0
    pair.world.pass_time(1.2)
    (presence,) = bob.take("PRESENCE")
    assert presence.get("delta", False) is not far_too_many
    assert pair.ann in {user["user_id"] for user in presence["users"] if user["online"]}
    assert bob.session.presence_changes == {}


def test_d29_messages_and_answers_are_never_held_back(pair: Pair) -> None:
    ann, bob = slow(pair, PRESENCE_SHED_BYTES + 1)
    ann.msg(pair.bob, "Hi.", "1")
    bob.msg(pair.ann, "Hello.", "2")
    bob.say("PING")
    assert bob.kinds() == ["MSG", "MSG_ACK", "PONG"]
    assert ann.contents() == ["Hello."]
