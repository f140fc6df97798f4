"""What counts against 60 messages in any 60 s (D10, D23): accepted messages, and nothing else."""

from __future__ import annotations

import pytest

from tests.core.pair import Pair

LIMIT = 60


def test_d23_sixty_messages_in_any_sixty_seconds(pair: Pair) -> None:
    """The 61st is refused until the first has left the window, to the moment that `retry_after` says."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob)
    pair.world.pass_time(10)
    for _ in range(LIMIT - 1):
        ann.msg(pair.bob)
    assert len(ann.take("MSG_ACK")) == LIMIT
    ann.msg(pair.bob, message_id="over")
    error = ann.error()
    assert error["code"] == "RATE_LIMITED"
    assert error["details"] == {
        "type": "MSG",
        "message_id": "over",
        "limit": 60,
        "window": 60.0,
        "retry_after": pytest.approx(50, abs=0.01),
    }
    pair.world.pass_time(error["details"]["retry_after"] - 0.5)
    ann.msg(pair.bob, message_id="over")
    assert ann.errors() == ["RATE_LIMITED"]
    pair.world.pass_time(0.6)
    ann.msg(pair.bob, message_id="over")
    assert ann.statuses() == [("over", "delivered")]
    ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"], "only one had left the window"
    assert len(bob.take("MSG")) == LIMIT + 1


def test_d23_the_limit_is_the_users_not_the_devices(pair: Pair) -> None:
    """All devices together; and reconnecting does not reset it."""
    ann, _ = pair.chatting()
    (ann_too,) = pair.online(pair.ann)
    for _ in range(LIMIT // 2):
        ann.msg(pair.bob)
        ann_too.msg(pair.bob)
    ann.leave()
    ann_too.msg(pair.bob)
    assert ann_too.errors() == ["RATE_LIMITED"]
    ann_too.leave()
    pair.world.pass_time(10)
    (ann,) = pair.online(pair.ann)
    ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"]


def test_d23_one_users_limit_is_nobody_elses(pair: Pair) -> None:
    ann, bob = pair.chatting()
    for _ in range(LIMIT + 1):
        ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"]
    bob.msg(pair.ann)
    assert not bob.errors()


def test_d23_zero_turns_the_limit_off(far: bool) -> None:
    pair = Pair(far, messages_per_minute=0)
    ann, bob = pair.chatting()
    for _ in range(3 * LIMIT):
        ann.msg(pair.bob, settle=False)
    pair.world.settle()
    assert len(bob.take("MSG")) == len(ann.take("MSG_ACK")) == 3 * LIMIT


def test_d23_the_limit_holds_however_fast_the_client_is(pair: Pair) -> None:
    """120 messages in one go: the first 60 are delivered, in order, and each of the others is refused."""
    ann, bob = pair.chatting()
    for number in range(2 * LIMIT):
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
    pair.world.settle()
    assert bob.contents() == [f"{number}" for number in range(LIMIT)]
    assert [message_id for message_id, _ in ann.statuses()] == [f"{number}" for number in range(LIMIT)]
    errors = ann.take("ERROR")
    assert [error["details"]["message_id"] for error in errors] == [
        f"{number}" for number in range(LIMIT, 2 * LIMIT)
    ]
    assert {error["code"] for error in errors} == {"RATE_LIMITED"}


def test_d23_the_limit_holds_over_several_devices_and_recipients_at_once(pair: Pair) -> None:
    """Nothing slips through between what is under way to one shard and what is under way to the other."""
    ann, bob = pair.chatting()
    ann_too, cat = pair.online(pair.ann, pair.cat)
    ann.open_chat(pair.cat)
    cat.take()
    for _ in range(LIMIT):
        ann.msg(pair.bob, settle=False)
        ann_too.msg(pair.cat, settle=False)
    pair.world.settle()
    assert len(bob.take("MSG")) + len(cat.take("MSG")) == LIMIT
    assert len(ann.take("MSG_ACK")) + len(ann_too.take("MSG_ACK")) == LIMIT
    assert len(ann.errors()) + len(ann_too.errors()) == LIMIT


@pytest.mark.parametrize("pipelined", [False, True])
def test_d10_repeats_do_not_count(pair: Pair, pipelined: bool) -> None:
    """A hundred times the same message is one message, also when the client waits for nothing."""
    ann, bob = pair.chatting()
    for _ in range(100):
        ann.msg(pair.bob, "again", "same", settle=not pipelined)
    for number in range(LIMIT - 1):
        ann.msg(pair.bob, f"{number}", settle=not pipelined)
    pair.world.settle()
    assert not ann.errors()
    assert len(ann.take("MSG_ACK")) == 100 + LIMIT - 1
    assert bob.contents() == ["again", *[f"{number}" for number in range(LIMIT - 1)]]
    ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"], "that was the 61st"


@pytest.mark.parametrize("pipelined", [False, True])
def test_d10_rejected_messages_do_not_count(pair: Pair, pipelined: bool) -> None:
    """Refused here (VALIDATION), there (CHAT_NOT_OPENED, USER_NOT_FOUND) or as a conflict."""
    ann, bob = pair.chatting()
    pair.online(pair.cat)
    ann.msg(pair.bob, "first", "taken")
    ann.take()
    for _ in range(5):
        ann.msg(pair.bob, "", settle=not pipelined)
        ann.msg(pair.bob, "another", "taken", settle=not pipelined)
    for _ in range(40):
        ann.msg(pair.cat, settle=not pipelined)
        ann.msg("00000000-0000-4000-8000-000000000000", settle=not pipelined)
    for number in range(LIMIT - 1):
        ann.msg(pair.bob, f"{number}", settle=not pipelined)
    pair.world.settle()
    errors = ann.errors()
    assert len(errors) == 90
    assert "RATE_LIMITED" not in errors
    assert bob.contents() == ["first", *[f"{number}" for number in range(LIMIT - 1)]]
    ann.msg(pair.bob)
    assert ann.errors() == ["RATE_LIMITED"], "that was the 61st"


def test_d10_messages_that_the_store_refused_do_not_count(pair: Pair) -> None:
    ann, _ = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.failure = "disk full"
    for _ in range(LIMIT):
        ann.msg(pair.bob)
    assert ann.errors() == ["MESSAGE_FAILED"] * LIMIT
    store.failure = None
    for _ in range(LIMIT):
        ann.msg(pair.bob)
    assert not ann.errors()


def test_d10_over_the_limit_a_repeat_is_still_answered(pair: Pair) -> None:
    """With its status, or with VALIDATION when the content differs; a new message is refused, and none of this counts."""
    ann, bob = pair.chatting()
    for number in range(LIMIT):
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
    pair.world.settle()
    ann.take()
    bob.take()
    ann.msg(pair.bob, "0", "0")
    assert ann.statuses() == [("0", "delivered")]
    ann.msg(pair.bob, "other", "0")
    assert ann.errors() == ["VALIDATION"]
    ann.msg(pair.bob, "new", "new")
    assert ann.errors() == ["RATE_LIMITED"]
    ann.msg(pair.bob, "new", "new")
    assert ann.errors() == ["RATE_LIMITED"], "a refused message is not remembered"
    assert not bob.take("MSG")
    pair.world.pass_time(60.5)
    ann.msg(pair.bob, "new", "new")
    assert ann.statuses() == [("new", "delivered")]


def test_d10_over_the_limit_the_repeat_of_an_uncommitted_message_gets_its_outcome(pair: Pair) -> None:
    """The limit is full of messages that are still being stored, and all of them come again."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    for number in [*range(LIMIT), *range(LIMIT)]:
        ann.msg(pair.bob, f"{number}", f"{number}", settle=False)
    pair.world.settle()
    assert not ann.inbox
    store.slow = False
    pair.world.settle()
    assert not ann.errors()
    assert len(ann.take("MSG_ACK")) == 2 * LIMIT
    assert len(bob.take("MSG")) == LIMIT


def test_d10_a_device_that_leaves_while_it_waits_for_the_limit_does_no_harm(pair: Pair) -> None:
    """What it had held back is gone with it; the user's other device goes on."""
    ann, bob = pair.chatting()
    (ann_too,) = pair.online(pair.ann)
    for _ in range(LIMIT):
        ann.msg(pair.bob, settle=False)
    ann.msg(pair.bob, "never sent", settle=False)
    ann_too.msg(pair.bob, "waits too", settle=False)
    ann.leave()
    assert len(bob.take("MSG")) == LIMIT
    assert ann_too.errors() == ["RATE_LIMITED"]
    pair.world.pass_time(61, step=1)
    ann_too.msg(pair.bob, "goes on")
    assert bob.contents() == ["goes on"]


def test_d10_what_waits_for_the_limit_is_decided_when_the_other_shard_is_dead() -> None:
    """Nobody answers: after 5 s the messages under way have failed, did not count, and what waited goes on."""
    pair = Pair(True)
    ann, _ = pair.chatting()
    pair.world.cut_off.add(1)
    for number in range(LIMIT + 1):
        ann.msg(pair.bob, message_id=f"{number}", settle=False)
    pair.world.settle()
    assert not ann.inbox
    pair.world.pass_time(5.1)
    assert ann.errors() == ["MESSAGE_FAILED"] * LIMIT
    pair.world.cut_off.clear()
    pair.world.pass_time(5.1)
    assert [error["details"]["message_id"] for error in ann.take("ERROR")] == [f"{LIMIT}"]
