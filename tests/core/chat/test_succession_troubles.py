"""core.chat.succession where something is in the way: a shard that is not quiet, what can't be read, and who leaves meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from core.chat.mailbox import CACHE_MAX
from core.chat.succession import FORMAT, gather, resume, unfinished
from core.wire.protocol import CONTENT_MAX, HELLO_DEADLINE, PRESENCE_GRACE, CloseCode
from tests.core.pair import Pair
from tests.core.world import Device, Taken, World

#: Records of format 1 as they were when it was made.
_EXAMPLE: Final = Path(__file__).with_name("succession_format_1.json")


def _successor(world: World, index: int) -> Taken:
    """Put a new shard in the place of a worker, which has nothing of what is returned yet."""
    world.settle()
    taken = world.export(index)
    world.replace(index)
    return taken


def _resume(world: World, index: int, taken: Taken) -> list[float]:
    """Give a new worker what the one before has exported; when each record was through, as time goes on."""
    shard, through = world.shards[index], list[float]()
    gather(shard, [taken[0][0]])
    for record, devices in taken[1:]:
        for device in devices:
            device.session = shard.connect(device, device.user_id, 0, world.now)
        resume(shard, record, [device.session for device in devices], through.append, world.now)
    return through


# -- Not quiet --


def _message(pair: Pair, ann: Device) -> None:
    ann.msg(pair.bob, settle=False)


def _open_chat(pair: Pair, ann: Device) -> None:
    ann.open_chat(pair.bob, settle=False)


def _hello(pair: Pair, ann: Device) -> None:
    pair.world.device(pair.ann).hello("Another", settle=False)


def _load(pair: Pair, ann: Device) -> None:
    ann.open_chat(pair.world.user_on(0), settle=False)


def _long_text(pair: Pair, ann: Device) -> None:
    ann.msg(pair.bob, "x" * (CONTENT_MAX + 1), settle=False)


def _acknowledgement(pair: Pair, ann: Device) -> None:
    ann.say("MSG_ACK", False, message_id="1")


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (_message, "requests"),
        (_open_chat, "requests"),
        (_open_chat, "connections with commands that wait"),
        (_hello, "users with calls of the store or requests"),
        (_load, "users being loaded"),
        (_long_text, "turn that is due"),
        (_acknowledgement, "users with calls of the store or requests"),
    ],
)
def test_what_is_under_way_is_named(pair: Pair, act: Callable[[Pair, Device], None], what: str) -> None:
    ann, bob = pair.chatting()
    shard = pair.world.shards[0]
    bob.msg(pair.ann, message_id="1")
    assert unfinished(shard) is None
    act(pair, ann)
    found = unfinished(shard)
    assert found is not None
    assert re.search(rf"(^|, )[1-9][0-9]* {what}(,|$)", found), found
    pair.world.settle()
    assert unfinished(shard) is None


def test_who_came_must_have_been_published(far: bool) -> None:
    world = World(2)
    world.device(world.user_on(0)).hello(settle=False)
    world.shards[0]._store.flush(world.now)
    world.shards[0]._store.flush(world.now)
    assert "1 joins and leaves to be published" in str(unfinished(world.shards[0]))


def test_receipts_that_can_not_be_saved_are_unfinished() -> None:
    pair = Pair(False)
    ann, bob = pair.chatting("receipts")
    ann.msg(pair.bob, message_id="1")
    pair.world.stores[0].failure = "the disk is full"
    bob.say("MSG_ACK", message_id="1")
    assert unfinished(pair.world.shards[0]) == "1 receipts that could not be saved"
    pair.world.stores[0].failure = None
    pair.world.pass_time(2.0)
    assert unfinished(pair.world.shards[0]) is None
    assert [status for _, status in ann.statuses()] == ["accepted", "delivered"]


# -- Until a user is there --


def test_what_comes_before_the_user_is_loaded_waits_and_nobody_is_late() -> None:
    pair = Pair(False)
    ann, bob = pair.chatting()
    taken = _successor(pair.world, 0)
    through = _resume(pair.world, 0, taken)
    assert not through
    assert not ann.session.awaits_hello
    ann.msg(pair.bob, "one", settle=False)
    bob.msg(pair.ann, "two", settle=False)
    pair.world.settle()
    assert len(through) == 2
    assert (ann.contents(), bob.contents()) == (["two"], ["one"])


def test_who_leaves_before_the_user_is_loaded_has_the_grace(far: bool) -> None:
    """And typing ends, as when any connection ends."""
    pair = Pair(far)
    ann, bob = pair.chatting()
    bob.typing()
    pair.world.pass_time(2.0)
    ann.take()
    taken = _successor(pair.world, int(far))
    _resume(pair.world, int(far), taken)
    bob.leave()
    pair.world.shards[int(far)].start()
    pair.world.settle()
    assert ann.typists() == [(pair.bob, False)]
    pair.world.pass_time(PRESENCE_GRACE - 0.2)
    assert ann.kinds() == []
    pair.world.pass_time(1.2)
    assert [user["user_id"] for user in ann.one("PRESENCE")["users"]] == [pair.ann]
    assert unfinished(pair.world.shards[int(far)]) is None


def test_whose_connections_were_all_left_behind_has_the_grace(pair: Pair) -> None:
    ann, bob = pair.chatting()
    pair.world.pass_time(2.0)
    ann.take()
    index = pair.world.placement.worker_of(pair.bob)
    bob.closed = (1006, "left behind")
    pair.world.succeed(index)
    pair.world.pass_time(PRESENCE_GRACE - 0.2)
    assert ann.kinds() == []
    pair.world.pass_time(1.2)
    assert [user["user_id"] for user in ann.one("PRESENCE")["users"]] == [pair.ann]


@pytest.mark.parametrize("trouble", ["unreadable", "unknown", "damaged"])
def test_who_can_not_be_loaded_comes_again(trouble: str) -> None:
    """Who can't be is closed, and may come again; that is seen neither on the same worker nor on another one, if it is within the grace."""
    pair = Pair(True)
    world = pair.world
    ann, bob = pair.chatting()
    cat = pair.come(pair.cat)
    world.pass_time(2.0)
    for device in (ann, cat):
        device.take()
    taken = _successor(world, 1)
    store = world.stores[1]
    kept = dict(store.records)
    through = _resume(world, 1, [one for one in taken if one[0].get("user") != pair.bob])
    world.settle()
    (record, devices) = next(one for one in taken if one[0].get("user") == pair.bob)
    if trouble == "unreadable":
        store.read_failure = "the disk is broken"
    elif trouble == "unknown":
        del store.records[pair.bob]
    else:
        record["receipts_due"] = [7]
    bob.session = world.shards[1].connect(bob, pair.bob, 0, world.now)
    resume(world.shards[1], record, [bob.session], through.append, world.now)
    world.turn(1)
    world.shards[1].start()
    assert len(through) == len(taken) - 1
    assert devices == [bob]
    assert bob.closed is not None
    assert bob.closed[0] == (1011 if trouble == "damaged" else CloseCode.TRY_AGAIN_LATER)
    store.read_failure = None
    store.records.update(kept)
    world.pass_time(2.0)
    assert pair.come(pair.bob).one("HELLO_ACK")
    world.pass_time(2 * PRESENCE_GRACE)
    for device in (ann, cat):
        assert device.kinds() == []


def test_who_can_not_be_loaded_and_stays_away_is_seen_to_leave() -> None:
    pair = Pair(True)
    ann, _ = pair.chatting()
    cat = pair.come(pair.cat)
    pair.world.pass_time(2.0)
    for device in (ann, cat):
        device.take()

    def change(taken: Taken) -> None:
        next(record for record, _ in taken if record.get("user") == pair.bob)["receipts_due"] = [7]

    pair.world.succeed(1, change)
    pair.world.pass_time(PRESENCE_GRACE - 0.2)
    assert ann.kinds() == cat.kinds() == []
    pair.world.pass_time(1.2)
    for device in (ann, cat):
        assert {user["user_id"] for user in device.one("PRESENCE")["users"]} == {pair.ann, pair.cat}


def test_the_other_workers_see_nobody_leave() -> None:
    """Though they hear that the predecessor is dead, before or after the successor."""
    for order in (0, 1):
        pair = Pair(True)
        ann, _ = pair.chatting()
        pair.world.pass_time(2.0)
        ann.take()
        dead = pair.world.shards[1].generation
        taken = _successor(pair.world, 1)
        _resume(pair.world, 1, taken)
        pair.world.turn(1)
        if order == 0:
            pair.world.shards[0].worker_gone(1, dead, pair.world.now)
        pair.world.shards[1].start()
        pair.world.settle()
        if order == 1:
            pair.world.shards[0].worker_gone(1, dead, pair.world.now)
        pair.world.pass_time(2 * PRESENCE_GRACE)
        assert ann.kinds() == []
        assert pair.world.shards[0].unheard == pair.world.shards[1].unheard == 0


# -- What is not carried --


def test_a_page_that_could_not_be_read_is_read_by_the_successor() -> None:
    pair = Pair(False, messages_per_minute=0)
    ann, bob = pair.chatting()
    bob.leave()
    for number in range(CACHE_MAX + 10):
        ann.msg(pair.bob, f"{number}", settle=False)
    pair.world.settle()
    pair.world.stores[0].read_failure = "the disk is broken"
    bob = pair.come(pair.bob)
    assert bob.contents() == []
    pair.world.stores[0].read_failure = None
    pair.world.succeed(0)
    assert bob.contents() == [f"{number}" for number in range(CACHE_MAX + 10)]


def test_a_connection_without_hello_keeps_its_time_and_its_user() -> None:
    world = World(1)
    device = world.device(world.user_on(0))
    connected = world.now
    world.pass_time(4.0)
    taken = _successor(world, 0)
    device.user_id = "somebody else"
    assert _resume(world, 0, taken) == [world.now]
    assert device.session.claimed != "somebody else"
    assert device.session.hello_deadline == connected + HELLO_DEADLINE
    assert device.session.since == connected
    assert device.session.awaits_hello


# -- Formats --


@pytest.mark.parametrize("kind", ["shard", "user"])
def test_another_format_is_refused_with_a_sentence(kind: str) -> None:
    shard = World(1).shards[0]
    record: dict[str, Any] = {"format": FORMAT + 1, "kind": kind}
    with pytest.raises(ValueError, match=r"a record of format 1 was expected, and one of format 2 came"):
        if kind == "shard":
            gather(shard, [record])
        else:
            resume(shard, record, [], print, 0.0)


def test_other_kinds_and_numbers_of_connections_are_refused() -> None:
    world = World(1)
    shard = world.shards[0]
    with pytest.raises(ValueError, match=r"of kind shard was expected, and one of kind 'user' came"):
        gather(shard, [{"format": FORMAT, "kind": "user"}])
    with pytest.raises(
        ValueError, match=r"of kind user or stranger was expected, and one of kind 'shard' came"
    ):
        resume(shard, {"format": FORMAT, "kind": "shard"}, [], print, world.now)
    with pytest.raises(ValueError, match=r"a record of 1 connections came with 0"):
        resume(shard, {"format": FORMAT, "kind": "stranger", "sessions": [{}]}, [], print, world.now)


def test_fields_may_be_missing_and_others_may_be_there() -> None:
    """As records of another version have it: everybody stays connected, and is told once who is online."""
    pair = Pair(False)
    ann, bob = pair.chatting("receipts")
    stranger = pair.world.device(pair.world.user_on(0))

    def change(taken: Taken) -> None:
        kept = ("format", "kind", "user", "sessions", "present")
        for record, _ in taken:
            for field in [field for field in record if field not in kept]:
                del record[field]
            record["of later"] = {"what": 1}
            for session in record.get("sessions", []):
                session.clear()
                session["of later"] = [1]

    pair.world.succeed(0, change)
    ann.msg(pair.bob, "Hi.")
    assert bob.contents() == ["Hi."]
    assert stranger.hello().open


# -- The example --


def _before() -> tuple[Pair, list[Device]]:
    """A worker that knows something of everything, as the example says."""
    pair = Pair(True, messages_per_minute=4)
    dan, eve = pair.world.user_on(1), pair.world.user_on(1)
    pair.world.device(eve).hello("Eve").leave()
    pair.world.pass_time(7.0, 0.5)
    ann, bob = pair.chatting("receipts", "presence_delta")
    (cat,) = pair.online(pair.cat)
    cat.open_chat(pair.bob)
    ann.msg(pair.bob, "one", "1")
    pair.world.pass_time(0.3)
    bob.answer_those_that_came()
    cat.msg(pair.bob, "two", "2")
    bob.typing(to=pair.ann)
    ann.typing()
    bob.waiting = 1 << 20
    cat.typing(to=pair.bob)
    stranger = pair.world.device(pair.world.user_on(1))
    for device in (bob, stranger):
        device.say("PING")
        device.say_bytes(b"[]")
    cat.leave()
    another = pair.come(pair.bob)
    pair.world.pass_time(0.2)
    another.session.close(CloseCode.POLICY_VIOLATION, "closed by the operator", pair.world.now)
    dans = pair.world.device(dan).hello("Dan")
    dans.open_chat(pair.bob)
    bob.msg(pair.ann, "three", "3")
    return pair, [ann, bob, dans, stranger]


def _after(pair: Pair, devices: list[Device]) -> list[list[dict[str, Any]]]:
    """What comes of it."""
    _, bob, _, stranger = devices
    for device in devices:
        device.take()
    bob.drain()
    bob.answer_those_that_came()
    stranger.hello()
    for number in range(5):
        bob.msg(pair.ann, f"{number}", f"b{number}")
    bob.say("PING")
    pair.world.pass_time(20.0, 0.5)
    return [device.take() for device in devices]


def test_records_of_format_1_can_be_taken() -> None:
    """Whatever this version exports: of every earlier one that has this format."""
    expected = _after(*_before())
    example = json.loads(_EXAMPLE.read_text())

    def change(taken: Taken) -> None:
        devices = {(record["kind"], record.get("user")): devices for record, devices in taken}
        taken[:] = [(record, devices[record["kind"], record.get("user")]) for record in example]

    pair, devices = _before()
    pair.world.succeed(1, change)
    assert _after(pair, devices) == expected
