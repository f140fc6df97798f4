"""core.chat.hook_calls: who is told of, when, and how often (D33)."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any, Final

import pytest

from core.chat.chat import HookCall, chat_id
from core.chat.hook_calls import AWAY_AFTER, CALLS_MAX, GIVE_UP_AFTER
from core.chat.ports import HookOutcome
from core.wire.protocol import UNLOAD_AFTER
from core.wire.timestamps import format_timestamp, parse_timestamp
from tests.core.pair import Pair
from tests.core.recording_store import COVERED, PAGE
from tests.core.world import START, TIMESTAMP, Device, World

_URL: Final = "http://hook.example/"
#: More than the time that must pass without a connection.
_AWAY: Final = AWAY_AFTER + 0.2
#: Longer than between two looks for what is due.
_SOON: Final = 1.5


@pytest.fixture
def pair(far: bool) -> Pair:
    """Two users of a server with a hook."""
    return Pair(far, hook_url=_URL)


def pass_time(world: World, seconds: float, step: float = 0.1) -> None:
    """Let time pass, and the time of day with it."""
    for _ in range(max(1, round(seconds / step))):
        passed = round((world.now + step - START) * 1000)
        world.clock.now = format_timestamp(parse_timestamp(TIMESTAMP) + passed)
        world.pass_time(step, step)


def away(pair: Pair, *capabilities: str) -> Device:
    """Ann's device, and Bob has left long ago."""
    ann, bob = pair.chatting(*capabilities)
    pass_time(pair.world, _AWAY)
    bob.leave()
    pass_time(pair.world, _AWAY)
    return ann


def test_d33_one_call_says_who_and_where_and_nothing_of_the_text(pair: Pair) -> None:
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    assert pair.world.hook.answer() == [
        {
            "type": "message.waiting",
            "to": pair.bob,
            "from": pair.ann,
            "display_name": "Ann Lee",
            "chat_id": chat_id(pair.ann, pair.bob),
            "message_id": "1",
            "count": 1,
        }
    ]


def test_d33_with_the_setting_the_call_has_the_text() -> None:
    pair = Pair(True, hook_url=_URL, hook_content=1)
    ann = away(pair)
    ann.msg(pair.bob, 'a "quoted" <b>text</b> \n\U0001f600', "1")
    (told,) = pair.world.hook.answer()
    bob = pair.come(pair.bob)
    assert told["content"] == bob.one("MSG")["content"]


def test_d33_nobody_is_told_of_before_5_s_without_a_connection(pair: Pair) -> None:
    """Whether the message came before or after the connection went."""
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "before", "1")
    bob.leave()
    pass_time(pair.world, AWAY_AFTER - 1)
    ann.msg(pair.bob, "after", "2")
    assert not pair.world.hook.open
    pass_time(pair.world, 1.3)
    (told,) = pair.world.hook.answer()
    assert (told["message_id"], told["count"]) == ("1", 2)


def test_d33_a_message_long_after_nothing_was_left_behind_waits_for_5_s_too(pair: Pair) -> None:
    """Nothing waited when the connection went, so nobody has noted the user then."""
    ann, bob = pair.chatting()
    pass_time(pair.world, 2 * _AWAY)
    bob.leave()
    pass_time(pair.world, 2.0)
    ann.msg(pair.bob, "hello", "1")
    pass_time(pair.world, AWAY_AFTER - 2.3)
    assert not pair.world.hook.open
    pass_time(pair.world, 0.6)
    assert len(pair.world.hook.answer()) == 1


def test_d33_who_is_back_in_time_is_not_told_of(pair: Pair) -> None:
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "hello", "1")
    bob.leave()
    pass_time(pair.world, AWAY_AFTER - 1)
    bob = pair.come(pair.bob)
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()
    bob.leave()
    pass_time(pair.world, AWAY_AFTER - 1)
    assert not pair.world.hook.answer()


def test_d33_there_is_no_second_call_until_the_user_has_been_back(pair: Pair) -> None:
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    assert len(pair.world.hook.answer()) == 1
    for _ in range(3):
        ann.msg(pair.bob, "again")
        pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()
    pair.come(pair.bob).leave()
    pass_time(pair.world, _AWAY)
    (told,) = pair.world.hook.answer()
    assert (told["message_id"], told["count"]) == ("1", 4)


def test_d33_what_was_acknowledged_is_not_told_of(pair: Pair) -> None:
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "hello", "1")
    bob.answer_pings()
    bob.leave()
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()


def test_d33_each_chat_has_a_call_of_its_own(pair: Pair) -> None:
    ann = away(pair)
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.msg(pair.bob, "from Ann", "1")
    cat.msg(pair.bob, "from Cat", "2")
    told = pair.world.hook.answer()
    assert {(each["from"], each["message_id"], each["count"]) for each in told} == {
        (pair.ann, "1", 1),
        (pair.cat, "2", 1),
    }


def test_d33_a_muted_chat_causes_no_call_nor_does_a_blocked_user(pair: Pair) -> None:
    ann, bob = pair.chatting("chats", "block")
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    bob.say("MUTE", user_id=pair.ann)
    bob.say("BLOCK", user_id=pair.cat)
    bob.leave()
    pass_time(pair.world, _AWAY)
    ann.msg(pair.bob, "hello", "1")
    cat.msg(pair.bob, "hello", "2")
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()
    bob = pair.come(pair.bob, "chats", "block")
    bob.say("UNMUTE", user_id=pair.ann)
    bob.leave()
    pass_time(pair.world, _AWAY)
    (told,) = pair.world.hook.answer()
    assert told["message_id"] == "1"


def test_d33_more_messages_than_a_page_are_counted(pair: Pair) -> None:
    """Some of them, beyond the first, have been acknowledged."""
    ann, bob = pair.chatting()
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    for number in range(2 * PAGE + COVERED):
        ann.msg(pair.bob, "hello", f"a{number}")
        cat.msg(pair.bob, "hello", f"c{number}")
    for number in (0, 3, 8):
        bob.say("MSG_ACK", message_id=f"a{number}")
    bob.leave()
    pair.world.restart(pair.world.placement.worker_of(pair.bob))
    pass_time(pair.world, _AWAY + _SOON)
    told = {each["from"]: each for each in pair.world.hook.answer()}
    assert set(told) == {pair.ann, pair.cat}
    for peer, first, count in (
        (pair.ann, "a1", 2 * PAGE + COVERED - 3),
        (pair.cat, "c0", 2 * PAGE + COVERED),
    ):
        assert (told[peer]["message_id"], told[peer]["count"]) == (first, count)


def test_d33_what_fails_is_repeated_with_the_same_id_ever_more_rarely_and_given_up_after_a_day(
    pair: Pair,
) -> None:
    world, ann = pair.world, away(pair)
    ann.msg(pair.bob, "hello", "1")
    began, attempts, ids = world.now, [], set()
    while world.now < began + GIVE_UP_AFTER / 1000 + 2 * 3600:
        for call in world.hook.open:
            attempts.append(world.now - began)
            ids.add(call.call_id)
        world.hook.answer(HookOutcome.FAILED)
        step = 1.0 if world.now < began + 60 else 60.0
        pass_time(world, step, step)
    assert len(ids) == 1
    assert 30 < len(attempts) < 80
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert all(wait <= 3600 + 60 for wait in waits)
    assert all(wait > 2 for wait in waits)
    assert min(waits[-5:]) > 1700
    shard = world.shard_of(pair.bob)
    assert shard.stats()["hook_given_up_total"] == 1
    assert shard.stats()['hook_calls_total{outcome="failed"}'] == len(attempts)
    # As if it had been told.
    ann.msg(pair.bob, "hello", "2")
    pass_time(world, _AWAY)
    assert not world.hook.open
    pair.come(pair.bob).leave()
    pass_time(world, _AWAY)
    assert {call.call_id for call in world.hook.open}.isdisjoint(ids)
    assert len(world.hook.answer()) == 1


def test_d33_gone_ends_a_call_at_once(pair: Pair) -> None:
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    pair.world.hook.answer(HookOutcome.GONE)
    pass_time(pair.world, 60, 1.0)
    assert not pair.world.hook.open


def test_d33_the_clock_may_be_set_back(pair: Pair) -> None:
    """The call is not repeated for ever, nor all the time."""
    world, ann = pair.world, away(pair)
    ann.msg(pair.bob, "hello", "1")
    world.clock.now = b"2023-01-01T12:00:00.000Z"
    world.hook.answer(HookOutcome.FAILED)
    world.pass_time(60, 1.0)
    assert not world.hook.open


def test_d33_an_answer_that_comes_when_the_user_has_been_back_is_about_the_call_before(pair: Pair) -> None:
    world, ann = pair.world, away(pair)
    ann.msg(pair.bob, "hello", "1")
    (before,) = world.hook.open
    world.hook.open.clear()
    pair.come(pair.bob).leave()
    pass_time(world, _AWAY)
    world.shard_of(pair.bob).hook_calls.answered(before, HookOutcome.TOLD, world.now)
    world.settle()
    pass_time(world, _SOON)
    (after,) = world.hook.open
    assert after.call_id != before.call_id


@pytest.mark.parametrize("told", [False, True])
def test_d33_a_call_survives_a_kill_and_what_was_told_is_not_told_again(pair: Pair, told: bool) -> None:
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    if told:
        pair.world.hook.answer()
    ids = {call.call_id for call in pair.world.hook.open}
    pair.world.hook.open.clear()
    for worker in (0, 1):
        pair.world.restart(worker)
    pass_time(pair.world, _AWAY + _SOON)
    assert {call.call_id for call in pair.world.hook.open} == ids
    assert len(pair.world.hook.answer()) == (not told)
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()


def test_d33_who_was_online_when_everything_was_killed_is_told_of(pair: Pair) -> None:
    """There was no row: nothing is written for users who have a connection."""
    ann, _ = pair.chatting()
    ann.msg(pair.bob, "hello", "1")
    store = pair.world.store_of(pair.bob)
    assert not store.records[pair.bob].hook_calls
    for worker in (0, 1):
        pair.world.restart(worker)
    pass_time(pair.world, AWAY_AFTER - 1)
    assert not pair.world.hook.open
    pass_time(pair.world, _SOON)
    (told,) = pair.world.hook.answer()
    assert told["to"] == pair.bob


def test_d33_successors_go_on_with_users_who_have_just_left(pair: Pair) -> None:
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "hello", "1")
    bob.leave()
    pass_time(pair.world, 2.0)
    for worker in (0, 1):
        pair.world.succeed(worker)
    pair.world.resize(3)
    pass_time(pair.world, _AWAY)
    assert len(pair.world.hook.answer()) == 1
    pair.world.resize(1)
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.answer()


def test_d33_a_row_that_cannot_be_saved_is_saved_later(pair: Pair) -> None:
    world, ann = pair.world, away(pair)
    store = world.store_of(pair.bob)
    ann.msg(pair.bob, "hello", "1")
    store.failure = "the disk is full"
    world.hook.answer()
    pass_time(world, _SOON)
    assert store.records[pair.bob].hook_calls[pair.ann].due is not None
    store.failure = None
    pass_time(world, _SOON)
    assert store.records[pair.bob].hook_calls[pair.ann].due is None
    store.failure = "the disk is full"
    pair.come(pair.bob)
    pass_time(world, _SOON)
    assert store.records[pair.bob].hook_calls
    store.failure = None
    pass_time(world, _SOON)
    assert not store.records[pair.bob].hook_calls


def test_d33_what_cannot_be_read_is_read_later(pair: Pair) -> None:
    world, ann = pair.world, away(pair)
    store = world.store_of(pair.bob)
    store.read_failure = "the disk is broken"
    ann.msg(pair.bob, "hello", "1")
    pass_time(world, UNLOAD_AFTER + 2, 1.0)
    assert not world.hook.open
    world.restart(world.placement.worker_of(pair.bob))
    store = world.store_of(pair.bob)
    store.read_failure = "the disk is broken"
    pass_time(world, _AWAY)
    store.read_failure = None
    pass_time(world, _SOON)
    assert len(world.hook.answer()) == 1


def test_d33_what_retention_has_removed_is_not_told_of(pair: Pair) -> None:
    world, ann = pair.world, away(pair)
    ann.msg(pair.bob, "hello", "1")
    world.hook.answer(HookOutcome.FAILED)
    purged = world.store_of(pair.bob).purge(pair.bob, 1)
    world.shard_of(pair.bob).users.purged(purged, world.now)
    pass_time(world, 15)
    assert not world.hook.open
    assert not world.store_of(pair.bob).records[pair.bob].hook_calls


def test_d33_a_crowd_is_told_of_a_few_at_a_time_and_does_not_stay_in_memory() -> None:
    """All were away before the hook was set up."""
    world = World(1, open_chats_per_minute=0, messages_per_minute=0)
    people = [world.user_on(0) for _ in range(3 * PAGE + CALLS_MAX)]
    ann = world.device(world.user_on(0)).hello("Ann Lee")
    for user in people:
        world.device(user).hello("Somebody").leave()
        ann.open_chat(user)
        ann.msg(user)
    world.settings = dataclasses.replace(world.settings, hook_url=_URL)
    world.restart(0)
    told: list[dict[str, Any]] = []
    for _ in range(100):
        pass_time(world, 0.5)
        assert len(world.hook.open) <= CALLS_MAX
        told += world.hook.answer()
    assert sorted(each["to"] for each in told) == sorted(people)
    assert not len(world.shards[0].users)
    assert world.shards[0].stats()["hook_waiting"] == 0


def test_d33_without_a_hook_nothing_is_noted_and_what_was_is_forgotten() -> None:
    pair = Pair(True)
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    pass_time(pair.world, _AWAY)
    record = pair.world.store_of(pair.bob).records[pair.bob]
    assert not record.hook_calls
    reads = pair.world.store_of(pair.bob).reads
    assert not {"untold", "hook_calls_due", "hook_calls_pending"} & set(reads)
    record.hook_calls[pair.ann] = HookCall(1, None)
    pair.world.restart(1)
    pair.come(pair.bob)
    assert not record.hook_calls


def test_d33_a_process_that_comes_to_rest_begins_no_calls(pair: Pair) -> None:
    ann = away(pair)
    pair.world.shard_of(pair.bob).hook_calls.paused = True
    ann.msg(pair.bob, "hello", "1")
    pass_time(pair.world, _AWAY)
    assert not pair.world.hook.open
    pair.world.shard_of(pair.bob).hook_calls.paused = False
    pass_time(pair.world, 0.2)
    assert len(pair.world.hook.answer()) == 1


def test_d33_who_could_not_come_back_since_the_worker_stood_still_gets_that_time(pair: Pair) -> None:
    ann, bob = pair.chatting()
    ann.msg(pair.bob, "hello", "1")
    bob.leave()
    pair.world.stand_still(60)
    pass_time(pair.world, AWAY_AFTER - 1)
    assert not pair.world.hook.open
    pass_time(pair.world, _SOON)
    assert len(pair.world.hook.answer()) == 1


def test_d33_the_metrics_say_what_waits(pair: Pair) -> None:
    ann = away(pair)
    ann.msg(pair.bob, "hello", "1")
    pair.world.hook.answer(HookOutcome.FAILED)
    pass_time(pair.world, 12)
    stats = pair.world.shard_of(pair.bob).stats()
    assert stats["hook_waiting"] == 1
    assert 12 <= stats["hook_oldest_seconds"] < 13
