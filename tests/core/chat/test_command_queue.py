"""core.chat.command_queue: what must wait for what, and in which order it goes on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.command_queue import EVERYTHING, CommandQueue
from tests.core.pair import Pair

_PEERS = ["ann", "bob", "cat"]


def test_an_empty_line_holds_nobody_up() -> None:
    line = CommandQueue()
    assert not line.held
    assert not line.holds_everything()
    assert not line.holds_peer("ann")
    assert not line.holds_peer(None)
    assert len(line) == 0
    assert line.release("ann") == []


def test_a_held_peer_holds_up_what_is_about_it_and_what_may_be() -> None:
    """In whatever case it is written; without a peer a command may be about any of them, and what is no id is nobody's."""
    line = CommandQueue()
    line.hold("ann")
    assert line.held
    assert line.holds_peer("ann")
    assert line.holds_peer("ANN")
    assert line.holds_peer(None)
    assert not line.holds_peer("bob")
    assert not line.holds_peer(7)
    assert not line.holds_everything()


def test_everything_holds_everything_up() -> None:
    line = CommandQueue()
    line.hold(EVERYTHING)
    assert line.holds_everything()
    assert all(line.holds_peer(peer) for peer in ("ann", None, 7, ""))
    line.release(EVERYTHING)
    assert not line.held


def test_releasing_one_key_does_not_release_another() -> None:
    line = CommandQueue()
    line.hold("ann")
    line.hold(EVERYTHING)
    line.release(EVERYTHING)
    assert not line.holds_everything()
    assert line.holds_peer("ann")


@given(st.lists(st.sampled_from(_PEERS)))
def test_what_waits_comes_out_once_and_in_order(peers: list[str]) -> None:
    """All of it, whatever it waits for: the caller puts back what must wait on."""
    line = CommandQueue()
    for number, peer in enumerate(peers):
        line.put("MSG", {"to": peer, "number": number})
    assert len(line) == len(peers)
    assert [data["number"] for _, data in line.release("ann")] == list(range(len(peers)))
    assert len(line) == 0


def test_what_is_forgotten_does_not_come_out() -> None:
    line = CommandQueue()
    line.put("MSG", {})
    line.clear()
    assert line.release(EVERYTHING) == []


# -- In a session --


@pytest.mark.parametrize("spelling", [str.lower, str.upper])
def test_a_chat_that_can_not_be_opened_does_not_keep_messages_from_others(spelling: type[str]) -> None:
    """Cat's shard does not answer; Ann's chat with Bob goes on, and what is meant for Cat waits, however it is spelled."""
    pair = Pair(False)
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    pair.world.stalled.add(1)
    ann.open_chat(spelling(pair.cat))
    ann.msg(spelling(pair.cat), "for Cat", "c")
    ann.msg(pair.bob, "for Bob", "b")
    ann.typing(to=pair.bob)
    assert ann.statuses() == [("b", "delivered")]
    assert bob.contents() == ["for Bob"]
    assert bob.typists() == [(pair.ann, True)]
    pair.world.stalled.clear()
    pair.world.settle()
    assert ann.statuses() == [("c", "delivered")]
    assert cat.kinds() == ["CHAT_OPENED", "MSG"]


def test_typing_without_a_peer_waits_for_the_chat_that_is_being_opened(far: bool) -> None:
    """It is meant for that one (D17)."""
    pair = Pair(far)
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    ann.open_chat(pair.cat, settle=False)
    ann.typing(settle=False)
    pair.world.settle()
    assert cat.typists() == [(pair.ann, True)]
    assert not bob.typists()


def test_d18_what_waits_for_one_chat_keeps_its_order(far: bool) -> None:
    """D18: messages to Bob that were sent while the chat was opened come before those sent after."""
    pair = Pair(far)
    ann, bob = pair.online(pair.ann, pair.bob)
    ann.open_chat(pair.bob, settle=False)
    for number in range(5):
        ann.msg(pair.bob, f"{number}", settle=False)
        pair.world.turn(0)
        for way in list(pair.world.in_transit):
            pair.world.carry(*way)
    pair.world.settle()
    assert bob.contents() == ["0", "1", "2", "3", "4"]
    assert not ann.errors()
