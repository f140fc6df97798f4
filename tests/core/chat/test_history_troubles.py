"""HISTORY when something fails: a dead shard, a slow store, a full bus, and clients that leave (D14, D26)."""

from __future__ import annotations

import pytest

from core.wire.protocol import CONFIRM_TIMEOUT
from tests.core.chat.test_history import page, talk
from tests.core.pair import Pair


def idle(pair: Pair) -> bool:
    """Whether nothing waits on any shard."""
    return not any(shard.histories._asked or len(shard.exchange) for shard in pair.world.shards)


def test_d26_the_other_shard_is_dead() -> None:
    """MESSAGE_FAILED after 5 s, and nothing is left over; what comes too late is dropped."""
    pair = Pair(far=True)
    ann, _ = talk(pair, "ab")
    pair.world.kill(1)
    ann.say("HISTORY", **{"with": pair.bob})
    pair.world.pass_time(CONFIRM_TIMEOUT - 0.2)
    assert not ann.take("ERROR")
    pair.world.pass_time(0.4)
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"] == {"type": "HISTORY", "field": "with"}
    assert "try again" in error["message"]
    assert idle(pair)
    pair.world.boot(1)
    assert page(ann, pair.bob)[0] == ["1", "0"]


@pytest.mark.parametrize("slow", ["own", "other"])
def test_d26_a_store_that_answers_too_late(pair: Pair, slow: str) -> None:
    """The client was told that it failed; the late page goes nowhere."""
    ann, _ = talk(pair, "ab")
    store = pair.world.store_of(pair.ann if slow == "own" else pair.bob)
    store.slow_reads = True
    ann.say("HISTORY", **{"with": pair.bob})
    pair.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    store.slow_reads = False
    pair.world.settle()
    assert "HISTORY" not in ann.kinds()
    assert idle(pair)


@pytest.mark.parametrize("failing", ["own", "other", "both"])
def test_d26_a_store_that_can_not_read(pair: Pair, failing: str) -> None:
    """Told at once, once."""
    ann, _ = talk(pair, "ab")
    for user in {"own": [pair.ann], "other": [pair.bob], "both": [pair.ann, pair.bob]}[failing]:
        pair.world.store_of(user).read_failure = "unreadable"
    ann.say("HISTORY", **{"with": pair.bob})
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert idle(pair)
    pair.world.pass_time(CONFIRM_TIMEOUT + 1)
    assert "ERROR" not in ann.kinds()
    for store in pair.world.stores:
        store.read_failure = None
    assert page(ann, pair.bob)[0] == ["1", "0"]


def test_d26_the_way_is_full() -> None:
    pair = Pair(far=True)
    ann, _ = talk(pair, "ab")
    pair.world.refusing.add(1)
    ann.say("HISTORY", **{"with": pair.bob})
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert idle(pair)


def test_d26_a_request_that_expired_on_its_way_is_not_read_for() -> None:
    """Nobody waits for it any more."""
    pair = Pair(far=True)
    ann, _ = talk(pair, "ab")
    pair.world.stalled.add(1)
    ann.say("HISTORY", **{"with": pair.bob})
    pair.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    pair.world.stalled.clear()
    reads = len(pair.world.stores[1].reads)
    pair.world.settle()
    assert len(pair.world.stores[1].reads) == reads


def test_who_leaves_before_the_answer_leaves_nothing_behind(pair: Pair) -> None:
    """Whether the pages come or not; and what waited in line of somebody who left is not asked."""
    ann, _ = talk(pair, "ab")
    store = pair.world.store_of(pair.ann)
    store.slow_reads = True
    ann.say("HISTORY", **{"with": pair.bob})
    ann.leave()
    store.slow_reads = False
    pair.world.settle()
    assert idle(pair)
    assert not ann.take("HISTORY")
    ann = pair.come(pair.ann, "history")
    reads = len(store.reads)
    ann.open_chat(pair.bob, settle=False)
    ann.say("HISTORY", False, **{"with": pair.bob})
    ann.leave()
    assert "history" not in store.reads[reads:]
    assert idle(pair)


def test_an_answer_goes_to_who_asked_only(pair: Pair) -> None:
    """Not to other devices; two questions at once get an answer each, in order."""
    ann, _ = talk(pair, "ab")
    too = pair.come(pair.ann, "history")
    too.take()
    ann.say("HISTORY", False, **{"with": pair.bob, "limit": 1})
    ann.say("HISTORY", False, **{"with": pair.bob, "limit": 2})
    pair.world.settle()
    assert [len(answer["messages"]) for answer in ann.take("HISTORY")] == [1, 2]
    assert not too.inbox
