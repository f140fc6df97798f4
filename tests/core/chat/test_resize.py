"""core.chat.succession: all workers are replaced by more or fewer."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from core.chat.pace import SHARED_BURST
from core.chat.presence_records import NOTHING_KNOWN, merged
from core.chat.succession import FORMAT, SHARD, gather, unfinished
from core.placement import Placement
from core.wire.protocol import PRESENCE_EVERYONE_MAX, PRESENCE_GRACE, TYPING_EXPIRY
from tests.core.world import Device, Taken, World

#: From how many workers to how many.
_SIZES: Final = [(1, 3), (3, 1), (2, 3), (3, 2), (2, 2)]
sizes: Final = pytest.mark.parametrize(("before", "after"), _SIZES)


def _people(world: World, count: int = 6) -> list[Device]:
    """Devices of users, some on each worker, who get presence as changes, and have been told of each other."""
    users = [world.user_on(index % len(world.shards)) for index in range(count)]
    devices = [world.device(user).hello(capabilities=["presence_delta"]) for user in users]
    world.pass_time(3.0)
    for device in devices:
        device.take()
    return devices


def _told(device: Device) -> list[tuple[str, bool]]:
    """Who came and went, as a device was told, removing it."""
    return [
        (entry["user_id"], entry["online"])
        for presence in device.take("PRESENCE")
        for entry in presence["users"]
    ]


# -- Who is online --


@sizes
def test_nobody_is_told_anything(before: int, after: int) -> None:
    world = World(before)
    devices = _people(world)
    world.resize(after)
    world.pass_time(PRESENCE_GRACE + 3.0)
    assert [device.kinds() for device in devices] == [[]] * len(devices)
    assert {len(shard.presence) for shard in world.shards} == {len(devices)}
    assert sum(shard.presence.sessions for shard in world.shards) == len(devices)


@sizes
def test_everybody_is_told_once_who_goes_afterwards(before: int, after: int) -> None:
    world = World(before)
    *others, last = _people(world)
    world.resize(after)
    last.leave()
    world.pass_time(PRESENCE_GRACE + 3.0)
    assert [_told(device) for device in others] == [[(last.user_id, False)]] * len(others)


@sizes
def test_what_was_to_be_told_is_told_once(before: int, after: int) -> None:
    world = World(before)
    *others, last = _people(world)
    last.say("HELLO", user_id=last.user_id, display_name="Another", capabilities=["presence_delta"])
    world.resize(after)
    world.pass_time(3.0)
    assert [_told(device) for device in others] == [[(last.user_id, True)]] * len(others)


@sizes
@pytest.mark.parametrize("returns", [False, True])
def test_the_grace_goes_on(before: int, after: int, returns: bool) -> None:
    world = World(before)
    *others, last = _people(world)
    last.leave()
    world.pass_time(PRESENCE_GRACE - 1.0)
    world.resize(after)
    if returns:
        world.device(last.user_id).hello()
    world.pass_time(0.5)
    assert not any(_told(device) for device in others)
    world.pass_time(3.0)
    assert [_told(device) for device in others] == [[] if returns else [(last.user_id, False)]] * len(others)


@pytest.mark.parametrize("after", [1, 2, 4])
@pytest.mark.parametrize("returns", [False, True])
def test_the_grace_of_users_whose_worker_has_died_goes_on(after: int, returns: bool) -> None:
    """Only the other workers know of them, and whichever owns them afterwards."""
    world = World(3)
    devices = _people(world)
    lost = [device for device in devices if world.placement.worker_of(device.user_id) == 1]
    others = [device for device in devices if device not in lost]
    world.restart(1)
    world.pass_time(PRESENCE_GRACE - 1.0)
    world.resize(after)
    if returns:
        for device in lost:
            world.device(device.user_id).hello()
    world.pass_time(0.5)
    assert not any(_told(device) for device in others)
    world.pass_time(3.0)
    gone = [] if returns else sorted((device.user_id, False) for device in lost)
    assert [sorted(_told(device)) for device in others] == [gone] * len(others)


def test_workers_that_see_everybody_and_those_that_do_not_come_to_one_mind() -> None:
    """One that was started again among so many online as both may have sees everybody; who was told so is told that it is over."""
    world = World(2)
    ann = world.device(world.user_on(0)).hello(capabilities=["presence_delta"])
    crowd = [world.device(world.user_on(0)).hello() for _ in range(PRESENCE_EVERYONE_MAX + 5)]
    world.pass_time(3.0, 1.0)
    for device in crowd[:20]:
        device.leave()
    world.pass_time(8.0, 1.0)
    world.restart(1)
    bob = world.device(world.user_on(1)).hello(capabilities=["presence_delta"])
    world.pass_time(3.0, 1.0)
    assert [ann.take()[-1]["data"]["scope"], bob.take()[-1]["data"]["scope"]] == ["contacts", "everyone"]
    world.resize(3)
    world.pass_time(3.0, 1.0)
    (told,) = bob.take("PRESENCE")
    assert ann.kinds() == []
    assert (told["scope"], [user["user_id"] for user in told["users"]]) == ("contacts", [bob.user_id])


def test_a_worker_is_told_when_its_own_users_leave_and_those_of_the_dead_first_things_first() -> None:
    """Of other users their worker says so: they may be back before that is heard."""
    parts = [
        {"online": {"a0": "A", "b0": "B"}, "leaving": {"a0": 3.0, "b0": 4.0}, "lost": {"c0": ["C", 1.0]}},
        {"online": {"d1": "D"}, "leaving": {"d1": 2.0}, "lost": {"c0": ["C", 1.5], "a0": ["A", 9.0]}},
    ]
    known = merged(parts, 0, lambda user_id: int(user_id[1]))
    assert list(known["leaving"].items()) == [("c0", 1.5), ("a0", 3.0), ("b0", 4.0)]
    assert known["online"] == {"a0": "A", "b0": "B", "c0": "C", "d1": "D"}
    assert known["replicas"] == [[1, 0, NOTHING_KNOWN, ["d1"]]]


# -- What else is moved --


@sizes
def test_what_a_user_sees_of_who_is_typing_ends_in_its_time(before: int, after: int) -> None:
    world = World(before)
    ann, bob, cat, *_ = _people(world)
    for device in (ann, bob):
        device.open_chat(cat.user_id)
        device.typing(to=cat.user_id)
        world.pass_time(1.0)
    cat.take()
    world.resize(after)
    world.pass_time(TYPING_EXPIRY - 2.5)
    assert cat.typists() == []
    world.pass_time(1.0)
    assert cat.typists() == [(ann.user_id, False)]
    world.pass_time(1.0)
    assert cat.typists() == [(bob.user_id, False)]


@sizes
def test_limits_of_who_is_away_count_on(before: int, after: int) -> None:
    world = World(before, hellos_per_minute=2)
    devices = _people(world)
    for device in devices:
        device.hello()
        device.leave()
    world.pass_time(15.0, 0.5)
    assert not any(len(shard.users) for shard in world.shards)
    world.resize(after)
    for device in devices:
        assert world.device(device.user_id).hello().errors() == ["RATE_LIMITED"]


@sizes
def test_who_has_not_said_hello_may_do_so(before: int, after: int) -> None:
    world = World(before)
    strangers = [world.device(world.user_on(index % before)) for index in range(6)]
    world.resize(after)
    for device in strangers:
        device.hello()
    assert {device.kinds()[0] for device in strangers} == {"HELLO_ACK"}
    assert {device.session.claimed == device.user_id for device in strangers} == {True}


def test_the_shared_credit_is_that_of_the_shard_which_has_least() -> None:
    world = World(2)
    for _ in range(SHARED_BURST - 7):
        assert not world.shards[1].spare.retry_after(world.now)
    world.resize(3)
    for shard in world.shards:
        left = 0
        while not shard.spare.retry_after(world.now):
            left += 1
        assert left == 7


def test_each_record_goes_to_the_worker_that_owns_the_user() -> None:
    world = World(2)
    devices = _people(world)
    given: list[Taken] = []
    world.resize(3, lambda taken: given.append(list(taken)))
    placement = Placement(3)
    for worker, taken in enumerate(given):
        shards = sorted(
            (record["worker"], record["workers"]) for record, _ in taken if record["kind"] == SHARD
        )
        users = {record["user"] for record, _ in taken if record["kind"] != SHARD}
        assert shards == [(0, 2), (1, 2)]
        assert users == {
            device.user_id for device in devices if placement.worker_of(device.user_id) == worker
        }


# -- What can't be --


@pytest.mark.parametrize(
    "sources",
    [[], [(0, 2)], [(1, 2)], [(0, 2), (0, 2)], [(0, 2), (1, 3)], [(0, 2), (1, 2), (1, 2)], [(1, 3), (2, 3)]],
)
def test_records_of_some_shards_are_not_enough(sources: list[tuple[int, int]]) -> None:
    records: list[dict[str, Any]] = [
        {"format": FORMAT, "kind": SHARD, "worker": worker, "workers": workers} for worker, workers in sources
    ]
    sentence = f"the records of worker 0, or of all workers, were expected, not of {sources}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        gather(World(1).shards[0], records)


def test_who_has_missed_something_has_to_be_told_before() -> None:
    """While one is replaced the others tell it again; when all are, nobody could."""
    world = World(2)
    device = world.device(world.user_on(0))
    world.refusing.add(1)
    device.hello()
    shard = world.shards[0]
    assert unfinished(shard) is None
    assert unfinished(shard, resize=True) == "1 workers with which presence is to be compared"
    world.refusing.clear()
    world.pass_time(0.1)
    assert unfinished(shard, resize=True) is None


def test_envelopes_that_wait_are_unfinished() -> None:
    world = World(2)
    shard = world.shards[0]
    shard.exchange.streams.block(1)
    assert not shard.exchange.streams.takes(1, 0, b"", world.now)
    assert unfinished(shard) is None
    assert unfinished(shard, resize=True) == "1 workers whose envelopes wait"
