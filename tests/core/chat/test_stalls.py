"""core.chat.stalls, and what a worker that stood still gives back: nobody is judged by what could not be seen meanwhile (D27)."""

from __future__ import annotations

import pytest

from core.chat.stalls import Stalls, later
from core.wire.protocol import CONFIRM_TIMEOUT, IMPLICIT_ACK_DELAY, PRESENCE_GRACE, TYPING_EXPIRY
from tests.core.pair import Pair

#: How long a server may be suspended; each is longer than every time that is judged here, or than most.
STALLS = [13.0, 20.0, 45.0, 3600.0]


def test_a_timer_that_is_late_by_a_second_tells_of_a_stall() -> None:
    stalls = Stalls(0.1)
    assert stalls.beat(1000.0) == 0.0
    assert stalls.beat(1000.1) == 0.0
    assert stalls.beat(1000.9) == 0.0
    assert stalls.beat(1014.0) == pytest.approx(13.0)
    assert stalls.beat(1014.1) == 0.0


def test_what_began_behind_the_stall_gets_no_more_than_its_time() -> None:
    assert later(1003.0, 20.0, 1025.0) == 1023.0
    assert later(1024.5, 20.0, 1025.0) == 1025.0


@pytest.mark.parametrize("seconds", STALLS)
def test_d26_an_answer_that_waits_to_be_read_comes_before_the_failure(seconds: float) -> None:
    """The message is stored on the other shard, and its confirmation waits for a worker that stood still."""
    pair = Pair(True)
    world = pair.world
    ann, bob = pair.chatting()
    world.stalled.add(0)
    ann.msg(pair.bob, "Hello.", "m-1")
    assert bob.one("MSG")["message_id"] == "m-1"
    world.stand_still(seconds)
    for shard in world.shards:
        shard.tick(world.now)
    world.stalled.clear()
    world.settle()
    assert [ack["message_id"] for ack in ann.take("MSG_ACK")] == ["m-1"]
    assert not ann.errors()


def test_d26_what_nobody_confirms_fails_after_the_stall_too() -> None:
    pair = Pair(True)
    world = pair.world
    ann, _ = pair.chatting()
    world.stalled.add(0)
    ann.msg(pair.bob, "Hello.", "m-1")
    world.stand_still(30.0)
    world.pass_time(CONFIRM_TIMEOUT - 1.0)
    assert not ann.errors()
    world.pass_time(1.1)
    assert ann.errors() == ["MESSAGE_FAILED"]


@pytest.mark.parametrize("seconds", STALLS)
def test_d17_typing_does_not_expire_in_a_stall(pair: Pair, seconds: float) -> None:
    ann, bob = pair.chatting()
    ann.typing()
    bob.take()
    pair.world.pass_time(TYPING_EXPIRY - 5.0)
    pair.world.stand_still(seconds)
    pair.world.pass_time(4.0)
    assert not bob.typists()
    pair.world.pass_time(1.5)
    assert bob.typists() == [(pair.ann, False)]


@pytest.mark.parametrize("seconds", STALLS)
def test_d21_a_reconnect_behind_a_stall_is_seen_by_nobody(pair: Pair, seconds: float) -> None:
    """Bob's connection broke before the server stood still, and his new one waits to be read when it goes on."""
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2.0)
    ann.take()
    bob.leave()
    pair.world.pass_time(PRESENCE_GRACE - 1.0)
    pair.world.stand_still(seconds)
    for shard in pair.world.shards:
        shard.tick(pair.world.now)
    pair.world.settle()
    pair.come(pair.bob)
    pair.world.pass_time(PRESENCE_GRACE + 2.0)
    assert not ann.take("PRESENCE")


def test_d21_who_does_not_come_back_leaves_after_the_stall(pair: Pair) -> None:
    ann, bob = pair.online(pair.ann, pair.bob)
    pair.world.pass_time(2.0)
    ann.take()
    bob.leave()
    pair.world.stand_still(30.0)
    pair.world.pass_time(PRESENCE_GRACE + 1.5)
    (presence,) = ann.take("PRESENCE")
    assert [entry["user_id"] for entry in presence["users"]] == [pair.ann]


@pytest.mark.parametrize("seconds", STALLS)
def test_d12_a_msg_ack_that_waits_to_be_read_overrules_the_pong(pair: Pair, seconds: float) -> None:
    """Bob's first MSG_ACK ever is for the second of two messages: the first stays unacknowledged, though a pong has covered both."""
    world = pair.world
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "One.", "m-1")
    ann.msg(pair.bob, "Two.", "m-2")
    world.pass_time(1.5)
    bob.session.pong(bob.pings[-1], world.now)
    world.pass_time(IMPLICIT_ACK_DELAY - 1.0)
    world.stand_still(seconds)
    for shard in world.shards:
        shard.tick(world.now)
    bob.say("MSG_ACK", message_id="m-2")
    world.pass_time(IMPLICIT_ACK_DELAY + 1.0)
    bob.leave()
    again = pair.come(pair.bob)
    assert [message["message_id"] for message in again.take("MSG")] == ["m-1"]
