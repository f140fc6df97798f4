"""core.chat.delivery: how a device that was away, or that reads slowly, catches up (D12, D13's pacing, D18)."""

from __future__ import annotations

import pytest

from core.chat import mailbox
from core.wire.protocol import REPLAY_WINDOW_BYTES
from tests.core.pair import Pair
from tests.core.world import Device


class Trickle(Device):
    """A device to which only `takes` frames can be written before it looks full, until it is drained."""

    takes = 3

    def send(self, frame: bytes) -> None:
        super().send(frame)
        if frame.find(b'"type":"MSG"') >= 0:
            self.waiting += REPLAY_WINDOW_BYTES // self.takes + 1


def missed(pair: Pair, count: int) -> Device:
    """Ann, after `count` messages that Bob was not there for."""
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(count):
        ann.msg(pair.bob, f"{number}")
    ann.take()
    return ann


def test_d13_replay_stops_when_64_kib_wait_and_goes_on_when_there_is_room(far: bool) -> None:
    """A backlog of any size can't overflow the connection's outbox."""
    pair = Pair(far)
    missed(pair, 10)
    bob = Trickle(pair.world, pair.bob)
    bob.hello()
    received = []
    for _ in range(5):
        batch = bob.contents()
        assert len(batch) <= bob.takes
        received += batch
        bob.drain()
    assert received == [f"{number}" for number in range(10)]
    assert not bob.session.behind


def test_d18_live_messages_do_not_overtake_the_replay(far: bool) -> None:
    """They queue in the mailbox behind what was missed, whoever sends them."""
    pair = Pair(far)
    ann = missed(pair, 10)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    bob = Trickle(pair.world, pair.bob)
    bob.hello()
    ann.msg(pair.bob, "10", "a")
    cat.msg(pair.bob, "11", "c")
    assert ann.statuses() == [("a", "stored")]
    assert bob.session.behind
    received = bob.contents()
    while bob.session.behind:
        bob.drain()
        received += bob.contents()
    assert received == [f"{number}" for number in range(12)]
    bob.drain()
    ann.msg(pair.bob, "12", "b")
    assert ann.statuses() == [("b", "delivered")]
    assert bob.contents() == ["12"]


@pytest.mark.parametrize("cache", [0, 128])
def test_what_another_device_acknowledges_meanwhile_is_skipped(
    far: bool, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    """The slow device is not sent what the user has, and what was read for it is forgotten."""
    monkeypatch.setattr(mailbox, "CACHE_MAX", cache)
    pair = Pair(far)
    missed(pair, 8)
    slow = Trickle(pair.world, pair.bob)
    slow.hello()
    fast = pair.world.device(pair.bob).hello()
    for message in fast.take("MSG"):
        fast.say("MSG_ACK", message_id=message["message_id"])
    assert slow.contents() == ["0", "1", "2"]
    slow.drain()
    assert slow.contents() == []
    assert not slow.session.behind
    assert not slow.session.page


def test_a_device_behind_an_acknowledged_backlog_gets_what_is_new(far: bool) -> None:
    """All that it was behind with has been acknowledged elsewhere; the next message reaches it as soon as there is room."""
    pair = Pair(far)
    ann = missed(pair, 8)
    slow = Trickle(pair.world, pair.bob)
    slow.hello()
    slow.take()
    fast = pair.world.device(pair.bob).hello()
    for message in fast.take("MSG"):
        fast.say("MSG_ACK", message_id=message["message_id"])
    ann.msg(pair.bob, "new")
    assert fast.contents() == ["new"]
    slow.drain()
    assert slow.contents() == ["new"]


def test_what_comes_after_a_device_reaches_it_though_another_one_has_it(far: bool) -> None:
    """Only what it missed before it came is skipped when it is acknowledged elsewhere, however far behind it is by then."""
    pair = Pair(far)
    ann = missed(pair, 8)
    slow = Trickle(pair.world, pair.bob)
    slow.hello()
    fast = pair.world.device(pair.bob).hello()
    ann.msg(pair.bob, "new")
    for message in fast.take("MSG"):
        fast.say("MSG_ACK", message_id=message["message_id"])
    assert slow.contents() == ["0", "1", "2"]
    slow.drain()
    assert slow.contents() == ["new"]


def test_room_on_a_connection_that_is_not_greeted_or_gone_is_no_news(far: bool) -> None:
    """The connection may report room at any time."""
    pair = Pair(far)
    missed(pair, 2)
    bob = pair.world.device(pair.bob)
    bob.session.writable(pair.world.now)
    assert not bob.session.behind
    bob.hello()
    bob.leave()
    bob.session.writable(pair.world.now)
    assert not bob.session.behind


def test_a_device_that_leaves_in_the_middle_gets_the_rest_next_time(far: bool) -> None:
    """Nothing counts as written to the user that was not written."""
    pair = Pair(far)
    ann = missed(pair, 10)
    bob = Trickle(pair.world, pair.bob)
    bob.hello()
    assert bob.contents() == ["0", "1", "2"]
    bob.leave()
    ann.msg(pair.bob, "10")
    assert pair.world.device(pair.bob).hello().contents() == [f"{number}" for number in range(11)]
