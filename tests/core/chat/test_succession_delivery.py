"""core.chat.succession: messages, chats to be told about, receipts and typing go on in a successor."""

from __future__ import annotations

from core.wire.protocol import TYPING_EXPIRY
from tests.core.noting import Noting
from tests.core.stage import SESSION, SHARD, SLOW, USER, Stage, needs

# -- Delivery --


@needs(SESSION, "cursor")
def test_what_was_written_is_not_written_again(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.msg(stage.bob_id, "one")
    stage.succeed()
    ann.msg(stage.bob_id, "two")


@needs(SESSION, "missed_through")
def test_what_was_missed_comes_as_far_as_nobody_has_it(stage: Stage) -> None:
    ann, bob = stage.chatting()
    for number in range(20):
        ann.msg(stage.bob_id, f"{number}", f"{number}")
    bob.say("MSG_ACK", message_id="15")
    slow = stage.connect(stage.bob_id)
    slow.waiting = SLOW
    slow.hello("Bob Ray")
    stage.succeed()
    slow.drain()


@needs(SESSION, "furthest")
def test_an_old_message_that_is_written_again_is_not_behind_a_new_chat(stage: Stage) -> None:
    ann, bob = stage.chatting("resume")
    for number in range(3):
        ann.msg(stage.bob_id, f"{number}", f"{number}")
    cursors = [message["cursor"] for message in bob.take("MSG")]
    bob.waiting = SLOW
    bob.hello("Bob Ray", capabilities=["resume"], resume={"cursor": cursors[0]})
    stage.succeed()
    bob.waiting = 0
    stage.come(stage.cat_id).open_chat(stage.bob_id)
    bob.drain()
    bob.say("MSG_ACK", message_id="1", **{"from": stage.ann_id})
    bob.leave()
    stage.come(stage.bob_id)


@needs(SESSION, "ask_at")
def test_who_was_written_to_is_pinged(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.msg(stage.bob_id)
    stage.succeed()
    stage.world.pass_time(3.0)


@needs(SESSION, "confirm_asked")
def test_the_pong_to_a_ping_of_the_predecessor_counts(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    stage.succeed()
    bob.answer_those_that_came()
    stage.world.pass_time(6.0)


@needs(SESSION, "confirm_asked_at")
def test_there_is_one_ping_a_second(stage: Stage) -> None:
    ann, bob = stage.chatting()
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    ann.msg(stage.bob_id)
    stage.world.pass_time(2.0)


@needs(SESSION, "confirmed")
def test_what_a_pong_has_confirmed_counts_in_time(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    stage.world.pass_time(6.0)


@needs(SESSION, "confirm_seq")
def test_what_a_pong_has_confirmed_counts_when_the_connection_ends(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.succeed()
    bob.leave()


@needs(USER, "receipts_due")
def test_a_pong_tells_the_sender(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts")
    ann.msg(stage.bob_id)
    stage.succeed()
    stage.world.pass_time(0.3)
    bob.answer_those_that_came()
    stage.world.pass_time(6.0)


@needs(USER, "receipts_due")
def test_a_pong_tells_the_sender_of_what_came_to_an_earlier_connection(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts", "resume")
    ann.msg(stage.bob_id, "one")
    cursor = bob.cursor
    bob.leave()
    stage.world.clock.now = b"2024-01-01T12:00:10.000Z"  # what was heard is no longer needed
    stage.world.pass_time(8.0, 0.5)
    stage.succeed()
    bob = stage.come(stage.bob_id, "receipts", "resume", resume={"cursor": cursor})
    ann.msg(stage.bob_id, "two")
    stage.rest()


@needs(USER, "heard_at")
def test_an_answer_is_later_than_what_it_answers(stage: Stage) -> None:
    ann, bob = stage.chatting()
    ann.msg(stage.bob_id)
    stage.succeed()
    bob.msg(stage.ann_id)


@needs(SESSION, "announcements")
def test_a_chat_that_waits_for_room_is_announced(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.waiting = SLOW
    stage.come(stage.cat_id).open_chat(stage.bob_id)
    stage.succeed()
    bob.drain()


@needs(SESSION, "announcements")
def test_a_pong_confirms_a_chat_that_was_announced_before(stage: Stage) -> None:
    """Both if the ping was on its way, and if it was due."""
    for seconds in (0.1, 1.2):
        _, bob = stage.come(stage.ann_id), stage.come(stage.bob_id)
        stage.come(stage.cat_id if seconds > 1.0 else stage.ann_id).open_chat(stage.bob_id)
        stage.world.pass_time(seconds)
        stage.succeed()
        stage.rest()
        bob.leave()
        stage.come(stage.bob_id)


@needs(SESSION, "capabilities")
def test_capabilities_stay_in_force(stage: Stage) -> None:
    ann, bob = stage.chatting("receipts", "resume", "carbons", "history")
    stage.come(stage.bob_id, "carbons")
    stage.succeed()
    bob.msg(stage.ann_id)
    ann.msg(stage.bob_id)
    bob.say("HISTORY", **{"with": stage.ann_id})


# -- Typing --


@needs(SHARD, "typing")
def test_an_indicator_ends_in_time(stage: Stage) -> None:
    ann, _ = stage.chatting()
    ann.typing()
    stage.world.pass_time(3.0)
    stage.succeed()
    stage.world.pass_time(TYPING_EXPIRY, 0.5)


@needs(SESSION, "typing_to")
def test_who_leaves_is_typing_no_more(stage: Stage) -> None:
    _, bob = stage.chatting()
    bob.typing()
    stage.succeed()
    bob.leave()


@needs(SESSION, "typing_held")
def test_held_typing_is_told_when_there_is_room(stage: Stage) -> None:
    ann, bob = stage.chatting()
    bob.waiting = SLOW
    ann.typing()
    stage.succeed()
    bob.waiting = 0
    stage.world.pass_time(0.2)


def _with_cat(stage: Stage) -> tuple[Noting, Noting, Noting]:
    ann, bob = stage.chatting()
    cat = stage.come(stage.cat_id)
    cat.open_chat(stage.bob_id)
    stage.rest()
    return ann, bob, cat


@needs(SESSION, "chosen_peer")
def test_typing_goes_to_the_chat_that_was_chosen(stage: Stage) -> None:
    _, bob, cat = _with_cat(stage)
    bob.msg(stage.ann_id)
    cat.msg(stage.bob_id)
    stage.succeed()
    bob.typing()
    # Whatever numbers the requests of the successor have, the next choice counts.
    bob.msg(stage.cat_id)
    bob.typing()
    stage.succeed()
    bob.msg(stage.ann_id)
    bob.typing()


@needs(SESSION, "received_peer")
def test_typing_goes_to_the_chat_that_was_heard_last(stage: Stage) -> None:
    ann, bob, _ = _with_cat(stage)
    ann.msg(stage.bob_id)
    stage.succeed()
    bob.typing()
