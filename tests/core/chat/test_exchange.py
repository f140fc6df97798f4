"""core.chat.exchange: what waits for another shard's answer, and what the client is told when none comes (D26)."""

from __future__ import annotations

import pytest

from core.wire.protocol import CONFIRM_TIMEOUT
from tests.core.pair import Pair


@pytest.fixture
def apart() -> Pair:
    """Ann and Bob on different shards."""
    return Pair(True)


def test_d26_not_confirmed_within_five_seconds_is_message_failed(apart: Pair) -> None:
    """With the message_id, so that the client may send it again; the server's id, if the client gave none."""
    ann, bob = apart.chatting()
    apart.world.cut_off.add(1)
    ann.msg(apart.bob, "Hi.", "mine")
    ann.msg(apart.bob, "Hi again.")
    apart.world.pass_time(CONFIRM_TIMEOUT - 0.2)
    assert not ann.take("ERROR")
    apart.world.pass_time(0.4)
    errors = ann.take("ERROR")
    assert [error["code"] for error in errors] == ["MESSAGE_FAILED"] * 2
    assert errors[0]["details"] == {"type": "MSG", "field": "to", "message_id": "mine"}
    assert len(errors[1]["details"]["message_id"]) == 36
    assert not bob.take("MSG")


def test_d26_sending_it_again_with_the_same_id_is_safe(apart: Pair) -> None:
    """It may have arrived after all: not confirmed is not the same as not delivered."""
    ann, bob = apart.chatting()
    apart.world.cut_off.add(0)
    ann.msg(apart.bob, "Hi.", "mine")
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    apart.world.cut_off.clear()
    ann.msg(apart.bob, "Hi.", "mine")
    assert ann.statuses() == [("mine", "delivered")]
    assert bob.contents() == ["Hi."]


def test_d26_an_envelope_that_comes_too_late_is_dropped_before_storing(apart: Pair) -> None:
    """The sender was told that it failed; if it were stored now, it could come after what was sent since."""
    ann, bob = apart.chatting()
    apart.world.stalled.add(1)
    ann.msg(apart.bob, "too late", "late")
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    writes = len(apart.world.stores[1].committed)
    apart.world.stalled.clear()
    apart.world.settle()
    assert not bob.take("MSG")
    assert len(apart.world.stores[1].committed) == writes
    assert apart.world.shards[1].counters["expired_total"] == 1
    assert not ann.take("MSG_ACK")


def test_d26_an_open_chat_that_comes_too_late_is_dropped_too(apart: Pair) -> None:
    ann, bob = apart.online(apart.ann, apart.bob)
    apart.world.stalled.add(1)
    ann.open_chat(apart.bob)
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"] == {"type": "OPEN_CHAT", "field": "target_user_id"}
    apart.world.stalled.clear()
    apart.world.settle()
    assert not apart.world.shards[1].users[apart.bob].chats
    assert not bob.take("CHAT_OPENED")


def test_d26_an_envelope_in_time_is_not_dropped(apart: Pair) -> None:
    """Late, but not too late."""
    ann, bob = apart.chatting()
    apart.world.stalled.add(1)
    ann.msg(apart.bob, "just in time", "1")
    apart.world.pass_time(CONFIRM_TIMEOUT - 0.2)
    apart.world.stalled.clear()
    apart.world.settle()
    assert bob.contents() == ["just in time"]
    assert ann.statuses() == [("1", "delivered")]


def test_d26_an_answer_that_comes_too_late_is_no_second_answer(apart: Pair) -> None:
    """Exactly one MSG_ACK or ERROR for each message."""
    ann, bob = apart.chatting()
    apart.world.stalled.add(0)
    ann.msg(apart.bob, "Hi.", "1")
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    apart.world.stalled.clear()
    apart.world.settle()
    assert bob.contents() == ["Hi."]
    assert ann.errors() == ["MESSAGE_FAILED"]
    assert not ann.take("MSG_ACK")


def test_d26_a_bus_that_can_not_take_it_fails_the_message_at_once(apart: Pair) -> None:
    """No need to wait for 5 s; everything behind it is decided as well."""
    ann, bob = apart.chatting()
    apart.world.refusing.add(1)
    ann.msg(apart.bob, "Hi.", "1")
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"]["message_id"] == "1"
    ann.open_chat(apart.bob)
    assert ann.errors() == ["MESSAGE_FAILED"]
    ann.typing()
    apart.world.refusing.clear()
    ann.msg(apart.bob, "Hi.", "1")
    assert ann.statuses() == [("1", "delivered")]
    assert bob.contents() == ["Hi."]
    assert not bob.take("TYPING")


def test_d26_a_store_that_refuses_is_message_failed(pair: Pair) -> None:
    ann, bob = pair.chatting()
    pair.world.stores[pair.world.placement.worker_of(pair.bob)].failure = "disk full"
    ann.msg(pair.bob, "Hi.", "1")
    error = ann.error()
    assert error["code"] == "MESSAGE_FAILED"
    assert error["details"]["message_id"] == "1"
    assert not bob.take("MSG")


def test_d26_a_slow_store_on_the_same_shard_has_no_more_time(pair: Pair) -> None:
    """5 s, wherever the recipient lives; then it is not stored any more."""
    ann, bob = pair.chatting()
    store = pair.world.stores[pair.world.placement.worker_of(pair.bob)]
    store.slow = True
    ann.msg(pair.bob, "Hi.", "1")
    apart_errors = []
    pair.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    apart_errors += ann.errors()
    store.slow = False
    pair.world.settle()
    assert apart_errors == ["MESSAGE_FAILED"]
    assert bob.contents() == []
    assert not ann.take("MSG_ACK")


def test_d26_the_next_process_of_a_killed_worker_gets_what_was_under_way(apart: Pair) -> None:
    """In order, and before what is sent later, though nobody knows what the dead process has done."""
    ann, _ = apart.chatting()
    ann.msg(apart.bob, "lost on the way", "1", settle=False)
    apart.world.turn(0)
    apart.world.kill(1)
    ann.msg(apart.bob, "sent while it is away", "2")
    assert not ann.take("MSG_ACK")
    apart.world.boot(1)
    assert ann.statuses() == [("1", "stored"), ("2", "stored")]
    bob = apart.come(apart.bob)
    assert bob.contents() == ["lost on the way", "sent while it is away"]
    assert apart.world.shards[0].counters["sent_again_total"] == 1


@pytest.mark.parametrize("receipts", [False, True])
def test_d10_what_a_killed_worker_had_stored_counts_as_sent_once(apart: Pair, receipts: bool) -> None:
    """Its answer was lost. What the next process answers looks like that to a repeat, but the client has repeated nothing."""
    ann, _ = apart.chatting(*(["receipts"] if receipts else []))
    other = apart.come(apart.ann, "carbons")
    other.take()
    apart.world.cut_off.add(0)
    ann.msg(apart.bob, "stored", "1")
    apart.world.cut_off.clear()
    apart.world.restart(1)
    assert ann.statuses() == [("1", "accepted" if receipts else "stored")]
    assert other.contents() == ["stored"]
    (user,) = (apart.world.shards[0].users[apart.ann],)
    assert user.messages.recent(apart.world.now) == 1
    bob = apart.come(apart.bob)
    assert bob.contents() == ["stored"]


def test_d26_what_nobody_takes_fails_after_five_seconds_all_the_same(apart: Pair) -> None:
    ann, _ = apart.chatting()
    ann.msg(apart.bob, "lost", "1", settle=False)
    apart.world.turn(0)
    apart.world.kill(1)
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    apart.world.boot(1)
    assert not ann.take("MSG_ACK")
    bob = apart.come(apart.bob)
    assert bob.contents() == []
    ann.msg(apart.bob, "lost", "1")
    assert ann.statuses() == [("1", "delivered")]


def test_d26_an_answer_to_an_earlier_process_is_not_taken_for_one_to_this(apart: Pair) -> None:
    """The sender's worker is killed while Bob's is still storing, which then fails; what the new process has sent does not."""
    ann, bob = apart.chatting()
    apart.world.stores[1].slow = True
    ann.msg(apart.bob, "from the old one", "old")
    apart.world.restart(0)
    (ann,) = apart.online(apart.ann)
    for number in range(5):
        ann.msg(apart.bob, f"{number}", f"{number}")
    apart.world.stores[1].slow = False
    apart.world.stores[1].fail_next = 1
    apart.world.settle()
    assert bob.contents() == ["0", "1", "2", "3", "4"]
    assert not ann.errors()
    assert len(ann.statuses()) == 5
    assert apart.world.shards[0].counters["late_results_total"] == 1


def test_d26_what_failed_leaves_the_client_free_to_go_on(apart: Pair) -> None:
    """A connection that waited for OPEN_CHAT handles what it had queued, and the next message works."""
    ann, bob = apart.chatting()
    apart.world.cut_off.add(1)
    ann.open_chat(apart.bob, settle=False)
    ann.msg(apart.bob, "queued", "1", settle=False)
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    apart.world.cut_off.clear()
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert ann.errors() == ["MESSAGE_FAILED"]
    ann.msg(apart.bob, "queued", "1")
    assert bob.contents() == ["queued"]


def test_d26_a_client_that_left_is_told_nothing(apart: Pair) -> None:
    """And nothing breaks when the time is over."""
    ann, bob = apart.chatting()
    apart.world.cut_off.add(1)
    ann.msg(apart.bob, "Hi.", "1")
    ann.leave()
    apart.world.pass_time(CONFIRM_TIMEOUT + 0.2)
    assert not ann.inbox or ann.kinds() == ["PRESENCE"]
    apart.world.cut_off.clear()
    (ann,) = apart.online(apart.ann)
    ann.msg(apart.bob, "Hi.", "1")
    assert bob.contents() == ["Hi."]
