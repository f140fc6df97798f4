"""core.chat.operator: what an operator is told about a user, and what a kick does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.chat.operator import KICK, KICK_REASON, WHO, answer
from core.measures import series
from core.placement import slot_of
from core.process.control import ANSWER, PACKET_MAX_BYTES, encode_control
from core.wire.codec import to_json
from core.wire.protocol import CAPABILITIES, DEVICES_MAX, MESSAGE_MAX_BYTES, NAME_MAX, UNLOAD_AFTER, CloseCode
from tests.core.pair import Pair
from tests.core.world import World


def ask(world: World, what: str, user: str) -> dict[str, Any]:
    """The answer, as JSON carries it."""
    told: list[dict[str, Any]] = []
    answer(world.shard_of(user).users, world.shard_of(user).deletions, what, user, told.append, world.now)
    world.settle()
    (found,) = told
    assert isinstance(found, dict)
    return dict(json.loads(to_json(found)))


def test_a_user_who_has_never_been_here(pair: Pair) -> None:
    world = pair.world
    index = world.placement.worker_of(pair.ann)
    expected = {"user": pair.ann, "worker": index, "slot": slot_of(pair.ann), "known": False}
    assert ask(world, WHO, pair.ann) == expected


def test_a_user_with_two_devices(pair: Pair) -> None:
    ann, bob = pair.chatting()
    second = pair.come(pair.bob, "resume", "receipts")
    pair.world.pass_time(3)
    second.say("PING")
    ann.msg(pair.bob)
    bob.waiting = 17
    pair.world.pass_time(2)
    facts = ask(pair.world, WHO, pair.bob)
    assert (facts["known"], facts["online"], facts["display_name"]) == (True, True, "Bob Ray")
    assert (facts["user"], facts["worker"]) == (pair.bob, int(pair.far))
    assert facts["chats"] == 1
    assert facts["mailbox"] == {"head": 1, "waiting": 1, "uncommitted": 0}
    assert facts["last_close"] is None
    assert facts["devices"] == [
        {
            "connection": "1-1",
            "address": "192.0.2.7",
            "connected": 5.0,
            "heard": 5.0,
            "capabilities": [],
            "unsent": 17,
            "behind": 0,
        },
        {
            "connection": "1-1",
            "address": "192.0.2.7",
            "connected": 5.0,
            "heard": 2.0,
            "capabilities": ["receipts", "resume"],
            "unsent": 0,
            "behind": 0,
        },
    ]


def test_a_device_that_does_not_read_is_behind(pair: Pair) -> None:
    ann, bob = pair.chatting()
    bob.leave()
    for _ in range(5):
        ann.msg(pair.bob)
    slow = pair.world.device(pair.bob)
    slow.waiting = MESSAGE_MAX_BYTES * 8
    slow.hello()
    (device,) = ask(pair.world, WHO, pair.bob)["devices"]
    assert device["behind"] == 5
    assert device["unsent"] == MESSAGE_MAX_BYTES * 8


def test_messages_on_their_way_into_the_store_count(pair: Pair) -> None:
    ann, _ = pair.chatting()
    store = pair.world.store_of(pair.bob)
    store.slow = True
    ann.msg(pair.bob)
    assert ask(pair.world, WHO, pair.bob)["mailbox"] == {"head": 0, "waiting": 1, "uncommitted": 1}
    store.slow = False
    pair.world.settle()
    assert ask(pair.world, WHO, pair.bob)["mailbox"]["uncommitted"] == 0


def test_a_user_who_is_not_in_memory_is_looked_up(pair: Pair) -> None:
    ann, bob = pair.chatting()
    bob.leave()
    for _ in range(3):
        ann.msg(pair.bob)
    world = pair.world
    world.pass_time(2 * UNLOAD_AFTER, step=30)
    assert pair.bob not in world.shard_of(pair.bob).users
    facts = ask(world, WHO, pair.bob)
    assert (facts["known"], facts["online"], facts["devices"]) == (True, False, [])
    assert (facts["chats"], facts["mailbox"]["waiting"]) == (1, 3)
    # And is left to the store again.
    world.pass_time(2 * UNLOAD_AFTER, step=30)
    assert pair.bob not in world.shard_of(pair.bob).users


def test_a_store_that_cannot_read_is_a_sentence(pair: Pair) -> None:
    pair.world.store_of(pair.ann).read_failure = "the disk is broken"
    assert ask(pair.world, WHO, pair.ann) == {
        "problem": "the store can't say who this is: the disk is broken"
    }


def test_the_last_close_is_remembered_as_long_as_the_user(pair: Pair) -> None:
    world = pair.world
    (device,) = pair.online(pair.ann)
    device.session.close(CloseCode.TRY_AGAIN_LATER, "too slow", world.now)
    world.pass_time(7)
    close = {"by": "server", "code": 1013, "reason": "too slow", "ago": 7.0}
    assert ask(world, WHO, pair.ann)["last_close"] == close
    pair.online(pair.ann)
    assert ask(world, WHO, pair.ann)["last_close"] == close, "also when a device is there again"


def test_of_a_connection_that_is_closed_already_the_first_close_counts(pair: Pair) -> None:
    world = pair.world
    (device,) = pair.online(pair.ann)
    device.session.note_close("client", 4444, "bye", world.now)
    device.leave()
    device.session.close(CloseCode.SHUTTING_DOWN, "stops", world.now)
    assert ask(world, WHO, pair.ann)["last_close"]["code"] == 4444


def test_kick_closes_all_devices_of_that_user_and_nobody_elses(pair: Pair) -> None:
    ann, bob = pair.chatting()
    second = pair.come(pair.bob)
    world = pair.world
    assert ask(world, KICK, pair.bob) == {"closed": 2}
    assert bob.closed == second.closed == (1008, KICK_REASON)
    assert ann.open
    stats = world.shard_of(pair.bob).stats()
    assert stats[series("closes_total", by="server", code="1008", reason=KICK_REASON)] == 2
    facts = ask(world, WHO, pair.bob)
    assert (facts["online"], facts["devices"]) == (False, [])
    assert facts["last_close"] == {"by": "server", "code": 1008, "reason": KICK_REASON, "ago": 0.0}
    ann.msg(pair.bob, message_id="later")
    again = pair.come(pair.bob)
    assert [message["message_id"] for message in again.take("MSG")] == ["later"]


@pytest.mark.parametrize("known", [True, False])
def test_there_may_be_nobody_to_kick(pair: Pair, known: bool) -> None:
    if known:
        pair.online(pair.ann)[0].leave()
    assert ask(pair.world, KICK, pair.ann) == {"closed": 0}


def test_what_this_version_does_not_know_is_a_sentence(pair: Pair) -> None:
    assert "another version" in ask(pair.world, "promote", pair.ann)["problem"]


def test_the_largest_answer_fits_in_a_packet() -> None:
    pair = Pair(far=False)
    for _ in range(DEVICES_MAX):
        device = pair.world.device(pair.ann).hello(
            "\N{PILE OF POO}" * NAME_MAX, capabilities=list(CAPABILITIES)
        )
        device.address = "x" * 255
    pair.world.shard_of(pair.ann).users[pair.ann].sessions[0].note_close("client", 4999, "\x01" * 123, 0.0)
    facts = ask(pair.world, WHO, pair.ann)
    assert len(facts["devices"]) == DEVICES_MAX
    assert len(encode_control(ANSWER, id=2**53, answer=facts)) < PACKET_MAX_BYTES / 4
